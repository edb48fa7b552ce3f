// What the pages share. A page is opened with the token and its number in the
// query; what it sees stays in window.seen, and again() is its user's wish for a
// new stream. See ../../README.md.
const query = new URLSearchParams(location.search)
export const token = query.get("token")
export const n = query.get("n")
export const events = `/events?token=${token}&n=${n}`
export const names = ["message", "DUPLICATED_CONNECTION", "DUPLICATE_SESSION", "LOGGED_OUT"]

window.seen = []
export const saw = (what, more = {}) => window.seen.push({ saw: what, ...more })
export const event = e => saw("event", { name: e.type || e.event || "message", data: String(e.data), id: e.lastEventId ?? e.id ?? "" })
export const error = e => saw("error", { text: String(e?.message ?? e) })

// run connects now, and whenever again is called.
export function run(connect) {
	window.again = async () => {
		try {
			await connect()
		} catch (e) {
			error(e)
		}
	}
	window.again()
}

// listen reports what a source with the interface of EventSource sees.
export function listen(source) {
	source.addEventListener("open", () => saw("open"))
	for (const name of names) source.addEventListener(name, event)
}
