import { SSE } from "sse.js"
import { events, listen, run } from "./compat.js"

let source
run(() => {
	source?.close()
	listen((source = new SSE(events, { autoReconnect: true, reconnectDelay: 1000, useLastEventId: true })))
})
