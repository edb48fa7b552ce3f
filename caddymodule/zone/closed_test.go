package zone

import (
	"io"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/event"
	"github.com/sse-guard/sse-guard/caddymodule/reason"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// take returns the closings that were told since it was called last.
func (h *house) take() []event.Closed {
	h.mu.Lock()
	defer h.mu.Unlock()
	closed := h.closed
	h.closed = nil
	return closed
}

// Every stream that was relayed is told once when it is over, whoever has ended it.
func TestClosed_IsToldOfEachStreamOnce(t *testing.T) {
	for want, end := range map[reason.Reason]func(*house, *guest){
		reason.Superseded: func(h *house, g *guest) {
			h.Streams.End(g.holder.ID, registry.Ending{Reason: reason.Superseded})
			h.Streams.End(g.holder.ID, registry.Ending{Reason: reason.Logout}) // too late
		},
		reason.Logout:  func(h *house, g *guest) { h.Streams.End(g.holder.ID, registry.Ending{Reason: reason.Logout}) },
		event.Left:     func(_ *house, g *guest) { g.leave() },
		event.Finished: func(_ *house, g *guest) { close(g.finish) },
	} {
		t.Run(string(want), func(t *testing.T) {
			inZone(t, func(t *testing.T, h *house) {
				g := h.open("a")
				<-time.After(time.Minute)
				end(h, g)
				<-g.done
				synctest.Wait()
				closed := h.take()
				require.Len(t, closed, 1)
				c := closed[0]
				require.Equal(t, want, c.Why())
				require.Same(t, &g.holder, c.Stream)
				require.Equal(t, time.Minute, c.Age)
				require.EqualValues(t, 1, c.Events)
				require.EqualValues(t, len("data: hello\n\n"), c.Bytes)
			})
		})
	}
}

// A backend that breaks off panics in the handler behind the guard.
func TestClosed_IsToldOfAStreamThatBreaksOff(t *testing.T) {
	inZone(t, func(t *testing.T, h *house) {
		g := h.openTo("a", func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "data: hello\n\n")
			panic(http.ErrAbortHandler)
		})
		<-g.done
		closed := h.take()
		require.Len(t, closed, 1)
		require.Equal(t, event.Finished, closed[0].Why())
	})
}

func TestClosed_IsNotToldOfWhatIsNoStream(t *testing.T) {
	inZone(t, func(t *testing.T, h *house) {
		for _, v := range []func(*guest){
			func(g *guest) { g.passes = true },
			func(g *guest) { g.refuses = true },
		} {
			g := h.ready("a")
			v(g)
			g.relay(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "{}") })
			<-g.done
			require.Zero(t, h.Streams.Len())
			require.Empty(t, h.take())
		}
	})
}

func TestCensus_CountsStreamsAndWhatWasRelayed(t *testing.T) {
	inZone(t, func(t *testing.T, h *house) {
		require.Empty(t, h.Streams.Census().States)
		var guests []*guest
		for range 100 {
			guests = append(guests, h.open("a"))
		}
		untracked := h.ready("b")
		untracked.untracked = true
		untracked.relay(untracked.hello)
		synctest.Wait()
		c := h.Streams.Census()
		require.Equal(t, map[registry.State]int{registry.StateLive: 100, registry.StateUntracked: 1}, c.States)
		require.EqualValues(t, 100, c.Events, "of an untracked stream they are not told apart")
		require.EqualValues(t, 101*len("data: hello\n\n"), c.Bytes)

		guests[0].leave()
		<-guests[0].done
		require.Equal(t, 99, h.Streams.Census().States[registry.StateLive])
		require.EqualValues(t, 99, h.Streams.Census().Events, "the rest was told")
	})
}

func TestProbe_IsToldWithWhatItHasShown(t *testing.T) {
	inZone(t, func(t *testing.T, h *house) {
		g := h.open("a")
		require.True(t, h.Streams.Probe(t.Context(), g.holder.ID, time.Second))
		require.Equal(t, []event.Event{event.Probed{Stream: &g.holder, Proof: event.ProofUnknown}}, h.told, "there is no connection to ask")
	})
}
