"""A FastAPI application of the usual kind, with event streams, for end-to-end tests.

Nothing in it knows of a proxy. Start it with:

    python -m uvicorn app:app --host 127.0.0.1 --port 8000 --timeout-graceful-shutdown 1

`GET /stats` and `GET /requests` tell what reached it, `POST /reset` forgets that.
`POST /jwt/key` gives it the key that it verifies JWTs with. What a webhook posts to
`/hooks/streams`, signed with the secret in the environment's WEBHOOK_SECRET, `GET /rooms`
tells.
"""

import asyncio
import json
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Annotated, Any

import jwt
from fastapi import Body, Depends, FastAPI, HTTPException, Query, Request, Response, WebSocket
from fastapi.responses import (
    HTMLResponse,
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    StreamingResponse,
)
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect

from hooks import router
from journal import Journal, JournalMiddleware
from rooms import rooms


class Shutdown:
    """Ends the open streams as soon as the server is told to stop.

    Without it uvicorn waits for them, then cancels them with a stack trace each.
    """

    def __init__(self) -> None:
        self.event = asyncio.Event()
        # sse-starlette asks the signal handler's object for this.
        self.should_exit = False

    def watch(self) -> None:
        """Goes in front of the handlers that uvicorn has set by now."""
        self.loop = asyncio.get_running_loop()
        self.next = {s: signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)}
        for number in self.next:
            signal.signal(number, self.handle)

    def handle(self, number: int, frame: FrameType | None) -> None:
        self.should_exit = True
        self.loop.call_soon_threadsafe(self._begin)
        self.next[signal.Signals(number)](number, frame)

    def _begin(self) -> None:
        self.event.set()
        emitters.end_all()

    async def pause(self, seconds: float) -> bool:
        """Waits; returns False if the server is stopping."""
        try:
            async with asyncio.timeout(seconds):
                await self.event.wait()
        except TimeoutError:
            return True
        return False


class Emitters:
    """One emitter per user, in a dict, as many a backend has it.

    Deliberately naive: a new stream overwrites the user's older emitter, and a
    stream that closes removes *the user's* emitter, whosever that is by then.
    """

    def __init__(self) -> None:
        self.by_user: dict[str, asyncio.Queue[str | None]] = {}
        # Only for the end of the server: the overwritten ones are in no dict.
        self.everyone: set[asyncio.Queue[str | None]] = set()

    def put(self, user: str) -> asyncio.Queue[str | None]:
        emitter: asyncio.Queue[str | None] = asyncio.Queue()
        self.by_user[user] = emitter
        self.everyone.add(emitter)
        return emitter

    def remove(self, user: str, emitter: asyncio.Queue[str | None]) -> None:
        self.by_user.pop(user, None)
        self.everyone.discard(emitter)

    def emit(self, user: str, data: str) -> bool:
        emitter = self.by_user.get(user)
        if emitter is None:
            return False
        emitter.put_nowait(data)
        return True

    def end_all(self) -> None:
        for emitter in self.everyone:
            emitter.put_nowait(None)


class Places:
    """The open streams of each user, counted, as a backend does that allows only so many.

    Deliberately trusting: a place is free again when the stream that has it ends,
    so that a stream whose client is gone without a word keeps its own.
    """

    def __init__(self) -> None:
        self.taken: Counter[str] = Counter()

    def take(self, user: str, allowed: int) -> bool:
        if self.taken[user] >= allowed:
            return False
        self.taken[user] += 1
        return True

    def free(self, user: str) -> None:
        self.taken[user] -= 1


class Keys:
    """The key that JWTs are verified with, as a test tells it: PEM, or the secret of HS256."""

    def __init__(self) -> None:
        self.forget()

    def tell(self, algorithm: str, key: str) -> None:
        self.algorithm, self.key = algorithm, key

    def forget(self) -> None:
        self.tell("", "")

    def subject(self, token: str) -> str:
        """The claim sub of a token that holds; else raises jwt.InvalidTokenError."""
        if not self.key:
            raise jwt.InvalidTokenError("no key to verify tokens with")
        claims = jwt.decode(
            token,
            self.key,
            algorithms=[self.algorithm],
            options={"require": ["sub"], "verify_aud": False},
        )
        return claims["sub"]


def token_of(connection: HTTPConnection) -> str:
    """A Bearer header, query `token` or cookie `access_token`.

    Where no more is known of the user, the token is the user's name.
    """
    scheme, _, credentials = connection.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and credentials:
        return credentials.strip()
    return connection.query_params.get("token") or connection.cookies.get("access_token") or ""


shutdown = Shutdown()
emitters = Emitters()
journal = Journal()
places = Places()
keys = Keys()


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    shutdown.watch()
    yield


class CORSOn:
    """FastAPI's CORS middleware, for one path."""

    def __init__(self, app: ASGIApp, path: str) -> None:
        self.app = app
        self.path = path
        self.cors = CORSMiddleware(
            app, allow_origin_regex=".*", allow_credentials=True, allow_headers=["*"]
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self.cors if scope.get("path") == self.path else self.app
        await app(scope, receive, send)


app = FastAPI(lifespan=lifespan)
app.include_router(router)
app.add_middleware(CORSOn, path="/cors")
app.add_middleware(
    JournalMiddleware,
    journal=journal,
    user_of=token_of,
    quiet=frozenset({"/stats", "/requests", "/reset", "/emit", "/jwt/key", "/rooms", "/hooks/streams"}),
)


@dataclass
class Pace:
    """Query parameters of the numbered streams."""

    interval: float = 0.05  # seconds between two events
    count: int = 0  # events to send; 0: endless
    first: str | None = None  # an extra field "data" of the first event


def payload(request: Request, n: int, data: str | None = None) -> str:
    fields: dict[str, Any] = {
        "n": n,
        "user": request.state.user,
        "stream": request.state.stream,
        "lastEventId": request.headers.get("last-event-id"),
    }
    if data is not None:
        fields["data"] = data
    return json.dumps(fields)


async def numbered(request: Request, pace: Pace) -> AsyncIterator[tuple[str, str]]:
    """Yields (id, data). The ids go on where a numeric Last-Event-ID stopped."""
    last = request.headers.get("last-event-id", "")
    start = int(last) + 1 if last.isascii() and last.isdigit() else 1
    sent = 0
    while True:
        n = start + sent
        yield str(n), payload(request, n, pace.first if sent == 0 else None)
        sent += 1
        if sent == pace.count or not await shutdown.pause(pace.interval):
            return


def event_source(request: Request, pace: Pace, headers: dict[str, str] | None = None) -> EventSourceResponse:
    async def events() -> AsyncIterator[ServerSentEvent]:
        async for id, data in numbered(request, pace):
            yield ServerSentEvent(id=id, data=data)

    return EventSourceResponse(events(), headers=headers)


Paced = Annotated[Pace, Depends()]


@app.get("/sse")
async def sse(request: Request, pace: Paced) -> Response:
    """A stream by sse-starlette: CRLF line ends, a ping comment every 15 s."""
    return event_source(request, pace)


@app.get("/raw")
async def raw(request: Request, pace: Paced) -> Response:
    """A stream by hand: LF line ends, no header but the media type."""

    async def chunks() -> AsyncIterator[str]:
        async for id, data in numbered(request, pace):
            yield f"id: {id}\ndata: {data}\n\n"

    return StreamingResponse(chunks(), media_type="text/event-stream")


@app.get("/cors")
async def cors(request: Request, pace: Paced) -> Response:
    return event_source(request, pace)


@app.get("/user-header")
async def user_header(request: Request, pace: Paced) -> Response:
    return event_source(request, pace, {"X-User": request.state.user})


@app.get("/slow-header")
async def slow_header(request: Request, pace: Paced, delay: float = 0.5) -> Response:
    """Thinks for `delay` seconds before it answers at all."""
    await shutdown.pause(delay)
    return event_source(request, pace)


@app.get("/secured")
async def secured(request: Request, pace: Paced) -> Response:
    if not request.state.user:
        raise HTTPException(401, "no token", {"WWW-Authenticate": "Bearer"})
    if request.state.user == "forbidden":
        raise HTTPException(403, "this token may not listen")
    return event_source(request, pace)


async def verified_user(request: Request) -> str:
    try:
        return keys.subject(token_of(request))
    except jwt.InvalidTokenError as e:
        raise HTTPException(401, str(e), {"WWW-Authenticate": "Bearer"}) from None


@app.get("/user-stream")
async def user_stream(
    request: Request,
    pace: Paced,
    user: Annotated[str, Depends(verified_user)],
    allowed: Annotated[int, Query(alias="max")] = 1,
) -> Response:
    """At most `max` streams at a time for the user whom a JWT names."""
    request.state.user = user
    if not places.take(user, allowed):
        raise HTTPException(409, "too many connections")

    async def events() -> AsyncIterator[ServerSentEvent]:
        try:
            async for id, data in numbered(request, pace):
                yield ServerSentEvent(id=id, data=data)
        finally:
            places.free(user)

    return EventSourceResponse(events())


@app.get("/emitter")
async def emitter(request: Request, user: str | None = None) -> Response:
    """Whatever `POST /emit` sends to this user, until the next stream of the user."""
    name = request.state.user = user or request.state.user
    queue = emitters.put(name)

    async def events() -> AsyncIterator[ServerSentEvent]:
        n = 0
        try:
            while (data := await queue.get()) is not None:
                n += 1
                yield ServerSentEvent(id=str(n), data=payload(request, n, data))
        finally:
            emitters.remove(name, queue)

    return EventSourceResponse(events())


@app.post("/emit")
async def emit(user: str, data: str) -> dict[str, bool]:
    return {"delivered": emitters.emit(user, data)}


@app.post("/chat")
async def chat(request: Request, n: int = 5, interval: float = 0.05) -> Response:
    """Answers as LLM gateways do: chunks of a completion, then [DONE]. n = 0: endless."""
    await request.body()
    name = f"chatcmpl-{request.state.stream}"

    def chunk(content: str | None, finish: str | None = None) -> str:
        delta = {} if content is None else {"content": content}
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return f"data: {json.dumps({'id': name, 'object': 'chat.completion.chunk', 'choices': [choice]})}\n\n"

    async def chunks() -> AsyncIterator[str]:
        sent = 0
        while True:
            sent += 1
            yield chunk(f"word{sent} ")
            if sent == n or not await shutdown.pause(interval):
                break
        yield chunk(None, "stop")
        yield "data: [DONE]\n\n"

    return StreamingResponse(chunks(), media_type="text/event-stream")


@app.get("/login")
async def login() -> HTMLResponse:
    return HTMLResponse(
        "<!doctype html><title>Login</title><form method=post><input name=user><button>Log in</button></form>"
    )


@app.api_route("/logout", methods=["GET", "POST"])
async def logout(status: int = 200, delay: float = 0) -> Response:
    """Lets anyone out who asks, or fails, as `status` says, after `delay` seconds.

    A redirect is the one that Spring Security answers.
    """
    await shutdown.pause(delay)
    if status == 204:
        return Response(status_code=status)
    if 300 <= status < 400:
        return RedirectResponse("/login?logout", status_code=status)
    return JSONResponse({"ok": status < 300}, status_code=status)


@app.post("/refresh")
async def refresh() -> dict[str, bool]:
    """What a page calls when its token has expired; any token will do."""
    return {"refreshed": True}


@app.post("/game/answer")
async def answer() -> dict[str, bool]:
    return {"accepted": True}


@app.get("/whoami")
async def whoami(request: Request) -> dict[str, str]:
    """The headers of the request, the values of one name joined as RFC 9110 section 5.3 says."""
    return {name: ", ".join(request.headers.getlist(name)) for name in request.headers.keys()}


@app.get("/api/items")
async def items() -> dict[str, Any]:
    return {"items": [{"id": 1, "name": "one"}, {"id": 2, "name": "two"}]}


@app.get("/download")
async def download(size: int = 1 << 20) -> Response:
    """`size` bytes, 0 to 255 over and over, with a Content-Length."""

    async def chunks() -> AsyncIterator[bytes]:
        block = bytes(range(256)) * 256
        for start in range(0, size, len(block)):
            yield block[: size - start]

    return StreamingResponse(
        chunks(), media_type="application/octet-stream", headers={"Content-Length": str(size)}
    )


@app.get("/status/{code}")
async def status(code: int) -> Response:
    if code in (204, 304):
        return Response(status_code=code)
    return PlainTextResponse(f"status {code}\n", status_code=code)


@app.get("/redirect")
async def redirect() -> Response:
    return RedirectResponse("/login", status_code=302)


@app.websocket("/ws")
async def websocket(socket: WebSocket) -> None:
    """Sends every message back."""
    await socket.accept()
    try:
        while True:
            await socket.send_text(await socket.receive_text())
    except WebSocketDisconnect:
        pass


@app.get("/stats")
async def stats() -> dict[str, Any]:
    return journal.stats()


@app.get("/requests")
async def requests() -> list[dict[str, Any]]:
    return journal.requests()


@app.get("/rooms")
async def in_rooms() -> dict[str, Any]:
    return rooms.as_dict()


@app.post("/reset")
async def reset() -> dict[str, Any]:
    keys.forget()
    rooms.reset()
    journal.reset()
    return journal.stats()


@app.post("/jwt/key")
async def jwt_key(algorithm: Annotated[str, Body()], key: Annotated[str, Body()]) -> dict[str, str]:
    keys.tell(algorithm, key)
    return {"algorithm": algorithm}
