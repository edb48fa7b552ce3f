import { events, listen, run } from "./compat.js"

let source
run(() => {
	source?.close()
	listen((source = new EventSource(events)))
})
