package harness

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Fighting is what a page does that builds a new EventSource, with nothing of the
// old one, a second after that has failed or ended.
const Fighting = `(() => {
	document.cookie = "access_token=alice"
	const connect = () => {
		const source = window.__source = new EventSource("/raw")
		source.onmessage = () => { window.__last = Date.now() }
		source.onerror = () => { source.close(); setTimeout(connect, 1000) }
	}
	connect()
})()`

// Hears tells whether the page had an event of the application's within a second.
func Hears(t testing.TB, page *Tab) bool {
	t.Helper()
	return page.Eval(t, "Date.now() - (window.__last || 0) < 1000") == "true"
}

// WhoHears waits until exactly one of the pages does, and returns it and the other.
func WhoHears(t testing.TB, a, b *Tab) (holder, waiting *Tab) {
	t.Helper()
	require.Eventually(t, func() bool {
		holder, waiting = a, b
		if Hears(t, b) {
			holder, waiting = b, a
		}
		return Hears(t, holder) && !Hears(t, waiting)
	}, Patience, 50*time.Millisecond, "both hear, or none")
	return holder, waiting
}
