import OpenAI from "openai"
import { event, headers, run, saw, token, url } from "./compat.mjs"

const client = new OpenAI({ baseURL: url + "/v1", apiKey: token, defaultHeaders: headers })
run(async () => {
	const stream = await client.chat.completions.create({ model: "m", messages: [{ role: "user", content: "hi" }], stream: true })
	saw("open")
	for await (const chunk of stream) event({ data: chunk.choices[0].delta.content ?? "" })
	saw("end")
})
