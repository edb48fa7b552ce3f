import { fetchEventSource } from "@fortaine/fetch-event-source"
import { event, events, run, saw } from "./compat.js"

let stop
run(async () => {
	stop?.abort()
	stop = new AbortController()
	await fetchEventSource(events, { signal: stop.signal, openWhenHidden: true, onmessage: event })
	saw("end")
})
