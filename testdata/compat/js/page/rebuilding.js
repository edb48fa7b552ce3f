// A page that builds a new EventSource a second after the old one has closed.
import { events, listen, run } from "./compat.js"

let source
run(function connect() {
	source?.close()
	listen((source = new EventSource(events)))
	const mine = source
	mine.onerror = () => {
		if (mine.readyState === EventSource.CLOSED && mine === source) setTimeout(connect, 1000)
	}
})
