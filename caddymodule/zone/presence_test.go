package zone

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/presence"
	"github.com/sse-guard/sse-guard/caddymodule/reason"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// attend has the stream count in a room.
func (g *guest) attend() {
	g.house.Presence.Enter(g.response.Stream(), "room", "one", presence.Telling{Event: "PRESENCE", Interval: 100 * time.Millisecond})
}

// A stream that was told to end does not count any more, although its backend takes its
// time.
func TestPresence_IsToldBeforeAStreamThatEndsIsGone(t *testing.T) {
	inZone(t, func(t *testing.T, h *house) {
		slow := h.openTo("a", func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte("data: hello\n\n"))
			<-time.After(time.Minute)
		})
		stays := h.open("b")
		slow.attend()
		stays.attend()
		<-time.After(time.Second)
		synctest.Wait()
		require.Contains(t, stays.rec.Body.String(), `"count":2`)
		h.Streams.End(slow.holder.ID, registry.Ending{Reason: reason.Superseded})
		<-time.After(time.Second)
		synctest.Wait()
		require.Contains(t, stays.rec.Body.String(), `"count":1`)
		require.Equal(t, 2, h.Streams.Len())
		<-slow.done
	})
}
