package zone

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/event"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

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
