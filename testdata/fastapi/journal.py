"""What reached this application: every request, and the life of every event stream."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send


@dataclass
class Exchange:
    """One request and what became of it. Times are seconds since the epoch."""

    number: int
    method: str
    path: str
    query: str
    headers: list[tuple[str, str]]
    user: str
    status: int | None = None
    done: bool = False
    # Set when the response is an event stream.
    opened_at: float | None = None
    closed_at: float | None = None
    # "app" if the application sent the last byte, "client" if the client left before.
    ended_by: str | None = None

    def as_request(self) -> dict[str, Any]:
        return {
            "method": self.method,
            "path": self.path,
            "query": self.query,
            "headers": self.headers,
            "status": self.status,
            "done": self.done,
        }

    def as_stream(self) -> dict[str, Any]:
        return {
            "stream": self.number,
            "path": self.path,
            "user": self.user,
            "opened_at": self.opened_at,
            "closed_at": self.closed_at,
            "ended_by": self.ended_by,
        }


@dataclass
class Journal:
    """Everything seen since the last reset. Numbers go on over a reset."""

    exchanges: list[Exchange] = field(default_factory=list)
    last_number: int = 0
    reset_at: int = 0

    def reset(self) -> None:
        """Forgets every request; a stream that is still open stays and counts."""
        self.exchanges = [e for e in self.exchanges if not e.done]
        self.reset_at = self.last_number

    def requests(self) -> list[dict[str, Any]]:
        return [e.as_request() for e in self.exchanges if e.number > self.reset_at]

    def stats(self) -> dict[str, Any]:
        now = time.time()
        streams = [e for e in self.exchanges if e.opened_at is not None]
        still_open = [e for e in streams if e.closed_at is None]
        return {
            "open": [
                {"stream": e.number, "path": e.path, "user": e.user, "age": now - e.opened_at}
                for e in still_open
            ],
            "opened": len(streams),
            "closed": len(streams) - len(still_open),
            "streams": [e.as_stream() for e in streams],
        }


class JournalMiddleware:
    """Writes every exchange into a journal, but those of the paths in `quiet`.

    It sets `request.state.stream`, the exchange's number, and `request.state.user`,
    which an endpoint may set again before it answers.

    Plain ASGI on purpose: Starlette's BaseHTTPMiddleware stands between a
    stream and the news that its client left.
    """

    def __init__(
        self,
        app: ASGIApp,
        journal: Journal,
        user_of: Callable[[HTTPConnection], str],
        quiet: frozenset[str],
    ) -> None:
        self.app = app
        self.journal = journal
        self.user_of = user_of
        self.quiet = quiet

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket") or scope["path"] in self.quiet:
            await self.app(scope, receive, send)
            return

        exchange = self._begin(scope)

        async def watched_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
                exchange.user = scope["state"]["user"]
                if _is_event_stream(message):
                    exchange.opened_at = time.time()
            await send(message)
            if message["type"] == "http.response.body" and not message.get("more_body"):
                exchange.ended_by = "app"

        try:
            await self.app(scope, receive, watched_send)
        finally:
            exchange.done = True
            if exchange.opened_at is not None:
                exchange.closed_at = time.time()
                exchange.ended_by = exchange.ended_by or "client"

    def _begin(self, scope: Scope) -> Exchange:
        self.journal.last_number += 1
        exchange = Exchange(
            number=self.journal.last_number,
            method=scope.get("method", "GET"),
            path=scope["path"],
            query=scope["query_string"].decode("latin-1"),
            headers=[(k.decode("latin-1"), v.decode("latin-1")) for k, v in scope["headers"]],
            user=self.user_of(HTTPConnection(scope)),
        )
        self.journal.exchanges.append(exchange)
        scope.setdefault("state", {}).update(stream=exchange.number, user=exchange.user)
        return exchange


def _is_event_stream(start: Message) -> bool:
    return start["status"] == 200 and any(
        name.lower() == b"content-type" and value.startswith(b"text/event-stream")
        for name, value in start["headers"]
    )
