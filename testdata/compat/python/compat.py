"""What the Python clients share: they read what to do from their environment and
standard input, and print what they see as JSON lines. See ../README.md."""

import asyncio
import inspect
import json
import os
import sys
import threading

URL = os.environ["COMPAT_URL"]
TOKEN = os.environ["COMPAT_TOKEN"]
N = os.environ["COMPAT_N"]
EVENTS = f"{URL}/events?token={TOKEN}&n={N}"
HEADERS = {"X-Instance": N}


def saw(what, **more):
    print(json.dumps({"saw": what, **more}), flush=True)


def event(name, data, id=""):
    saw("event", name=name or "message", data=str(data), id=id or "")


def run(connect):
    """Connects now, and once more for each line of standard input."""

    def attempt():
        try:
            result = connect()
            if inspect.isawaitable(result):
                asyncio.run(_await(result))
            saw("end")
        except Exception as e:  # whatever the library raises is what its user sees
            saw("error", text=f"{type(e).__name__}: {e}")

    async def _await(awaitable):
        await awaitable

    threading.Thread(target=attempt, daemon=True).start()
    for _ in sys.stdin:
        threading.Thread(target=attempt, daemon=True).start()
    os._exit(0)
