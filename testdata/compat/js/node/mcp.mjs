import { Client } from "@modelcontextprotocol/sdk/client/index.js"
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js"
import { LoggingMessageNotificationSchema } from "@modelcontextprotocol/sdk/types.js"
import { error, event, headers, run, saw, token, url } from "./compat.mjs"

let client
run(async () => {
	await client?.close()
	client = new Client({ name: "compat", version: "1" })
	client.onerror = error
	client.onclose = () => saw("end")
	client.setNotificationHandler(LoggingMessageNotificationSchema, ({ params }) => event({ data: params.data }))
	await client.connect(new StreamableHTTPClientTransport(new URL(url + "/mcp"), {
		requestInit: { headers: { ...headers, Authorization: "Bearer " + token } },
	}))
	saw("open")
	// A call beside the open stream, which must not end it.
	await client.ping()
})
