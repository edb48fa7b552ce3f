import { EventSourcePolyfill } from "event-source-polyfill"
import { events, listen, run } from "./compat.js"

let source
run(() => {
	source?.close()
	listen((source = new EventSourcePolyfill(events)))
})
