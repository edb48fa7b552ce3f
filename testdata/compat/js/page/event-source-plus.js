import { EventSourcePlus } from "event-source-plus"
import { error, event, events, run } from "./compat.js"

let listening
run(() => {
	listening?.abort()
	listening = new EventSourcePlus(events).listen({
		onMessage: event,
		onResponseError: ({ response }) => error(response.status),
	})
})
