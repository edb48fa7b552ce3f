from anthropic import Anthropic

import compat

client = Anthropic(base_url=compat.URL, auth_token=compat.TOKEN, default_headers=compat.HEADERS)


def connect():
    stream = client.messages.create(model="m", max_tokens=9, messages=[{"role": "user", "content": "hi"}], stream=True)
    for e in stream:
        if e.type == "content_block_delta":
            compat.event("message", e.delta.text)


compat.run(connect)
