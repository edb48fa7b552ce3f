import htmx from "htmx.org"
window.htmx = htmx
import { event, events, names, run } from "./compat.js"

document.addEventListener("htmx:sseMessage", e => event(e.detail))
// htmx looks at the page by itself when it is there; what comes later is shown to it once.
addEventListener("load", () =>
	run(async () => {
		await import("htmx-ext-sse")
		document.body.innerHTML = `<div hx-ext="sse" sse-connect="${events}">
			${names.map(name => `<div sse-swap="${name}"></div>`).join("")}</div>`
		htmx.process(document.body)
	}),
)
