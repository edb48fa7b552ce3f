from openai import OpenAI

import compat

client = OpenAI(base_url=compat.URL + "/v1", api_key=compat.TOKEN, default_headers=compat.HEADERS)


def connect():
    stream = client.chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}], stream=True)
    for chunk in stream:
        compat.event("message", chunk.choices[0].delta.content or "")


compat.run(connect)
