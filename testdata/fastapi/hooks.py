"""What sse_guard's webhook tells. README shows this file."""

import hashlib
import hmac
import json
import os

from fastapi import APIRouter, HTTPException, Request

from rooms import rooms  # the application's own

SECRET = os.environ["WEBHOOK_SECRET"].encode()

# The client comes back by itself, or its key has another stream.
STAYS = {"max_age", "shutdown", "stalled", "fenced", "finished", "superseded", "replaced"}

router = APIRouter()
seen: dict[str, None] = {}  # deliveries; in a shared store, if there are several workers


@router.post("/hooks/streams", status_code=204)
async def streams(request: Request) -> None:
    body = await request.body()
    want = "sha256=" + hmac.new(SECRET, body, hashlib.sha256).hexdigest()
    given = request.headers.get("X-SSE-Guard-Signature-256", "")
    if not hmac.compare_digest(want.encode(), given.encode()):
        raise HTTPException(401, "wrong signature")
    post = json.loads(body)
    if post["delivery"] in seen:
        return  # its first answer was lost
    for e in post["batch"]:
        user = e.get("sub") or e["key"]
        if e["event"] == "admitted":
            rooms.enter(user)
        elif e["event"] == "ended" and e["reason"] not in STAYS and not e.get("holders"):
            rooms.leave(user, e["reason"])
    seen[post["delivery"]] = None
    if len(seen) > 10_000:
        del seen[next(iter(seen))]
