import { useEventSource } from "@vueuse/core"
import { effectScope, watch } from "vue"
import { event, events, names, run } from "./compat.js"

let scope
run(() => {
	scope?.stop()
	scope = effectScope()
	scope.run(() => {
		const { eventSource } = useEventSource(events, names.slice(1), { autoReconnect: true })
		watch(eventSource, source => source && names.forEach(name => source.addEventListener(name, event)), { immediate: true, flush: "sync" })
	})
})
