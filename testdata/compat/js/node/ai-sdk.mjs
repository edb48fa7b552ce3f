import { createOpenAI } from "@ai-sdk/openai"
import { streamText } from "ai"
import { error, event, headers, run, saw, token, url } from "./compat.mjs"

const provider = createOpenAI({ baseURL: url + "/v1", apiKey: token, headers })
run(async () => {
	const { fullStream } = streamText({ model: provider.chat("m"), prompt: "hi", onError: () => {} })
	saw("open")
	for await (const part of fullStream) {
		if (part.type === "text-delta") event({ data: part.text ?? part.delta })
		if (part.type === "error") error(part.error)
	}
	saw("end")
})
