import httpx
from httpx_sse import connect_sse

import compat

last_id = ""


def connect():
    global last_id
    headers = {"Last-Event-ID": last_id} if last_id else {}
    with httpx.Client(timeout=None) as client, connect_sse(client, "GET", compat.EVENTS, headers=headers) as source:
        for e in source.iter_sse():
            last_id = e.id
            compat.event(e.event, e.data, e.id)


compat.run(connect)
