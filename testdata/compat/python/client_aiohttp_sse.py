from aiohttp_sse_client2 import client

import compat


async def connect():
    async with client.EventSource(compat.EVENTS, timeout=None) as source:
        async for e in source:
            compat.event(e.type, e.data, e.last_event_id)


compat.run(connect)
