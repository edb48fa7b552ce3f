import Anthropic from "@anthropic-ai/sdk"
import { event, headers, run, saw, token, url } from "./compat.mjs"

const client = new Anthropic({ baseURL: url, authToken: token, apiKey: null, defaultHeaders: headers })
run(async () => {
	const stream = await client.messages.create({ model: "m", max_tokens: 9, messages: [{ role: "user", content: "hi" }], stream: true })
	saw("open")
	for await (const e of stream) if (e.type === "content_block_delta") event({ data: e.delta.text })
	saw("end")
})
