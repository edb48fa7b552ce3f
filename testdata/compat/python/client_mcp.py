import asyncio

from mcp import ClientSession
from mcp.client.streamable_http import streamablehttp_client

import compat


async def logged(params):
    compat.event("message", params.data)


async def message(m):
    if isinstance(m, Exception):
        compat.saw("error", text=f"{type(m).__name__}: {m}")


async def connect():
    headers = {**compat.HEADERS, "Authorization": "Bearer " + compat.TOKEN}
    async with (
        streamablehttp_client(compat.URL + "/mcp", headers=headers) as (read, write, _),
        ClientSession(read, write, logging_callback=logged, message_handler=message) as session,
    ):
        await session.initialize()
        # A call beside the open stream, which must not end it.
        await session.send_ping()
        await asyncio.Event().wait()


compat.run(connect)
