from langchain_openai import ChatOpenAI

import compat

model = ChatOpenAI(model="m", base_url=compat.URL + "/v1", api_key=compat.TOKEN, default_headers=compat.HEADERS)


def connect():
    for chunk in model.stream("hi"):
        if chunk.content:
            compat.event("message", chunk.content)


compat.run(connect)
