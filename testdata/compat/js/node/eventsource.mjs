import { EventSource } from "eventsource"
import { event, events, run, saw } from "./compat.mjs"

const names = ["message", "DUPLICATED_CONNECTION", "DUPLICATE_SESSION", "LOGGED_OUT"]
let source
run(() => {
	source?.close()
	source = new EventSource(events)
	source.onopen = () => saw("open")
	source.onerror = e => source.readyState === 2 && saw("end", { text: e.message ?? "" })
	for (const name of names) source.addEventListener(name, event)
})
