package memory_test

import (
	"encoding/binary"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
	"github.com/sse-guard/sse-guard/caddymodule/registry/memory"
	"github.com/sse-guard/sse-guard/caddymodule/registry/registrytest"
)

// sameShard returns the i-th key of one shard.
func sameShard(i int) (key registry.ID) {
	binary.BigEndian.PutUint32(key[4:], uint32(i))
	return key
}

// Who waits for a key that others crowd out of the memory asks again, and is told
// nothing of a place that came free.
func TestFreed_TheLatestAreRemembered(t *testing.T) {
	s := open(t)
	one := registrytest.Supersede(1, registry.Streams)
	made := time.Now()
	s.SetNow(func() time.Time { return made })
	show := func(i int) registry.Admission {
		h := registrytest.Anon("n")
		h.Key = sameShard(i)
		as, err := s.Admit(t.Context(), registry.Early, registry.Consent{}, []registry.Ask{{Holder: h, Rule: one, Tombstone: &made}}, nil)
		require.NoError(t, err)
		return as[0]
	}
	comeFree := func(i int) {
		h := registrytest.Anon("a")
		h.Key = sameShard(i)
		p := s.hold(t, h, one)
		p.Leave(registry.Keep{})
		p.Departed()
	}
	comeFree(1)
	waits := show(1)
	require.Equal(t, registry.Entombed, waits.Outcome)
	for i := range memory.MostFreed - 1 {
		comeFree(i + 2)
	}
	require.Equal(t, registry.Entombed, show(1).Outcome)
	select {
	case <-waits.Taken:
		require.Fail(t, "nobody took it")
	default:
	}
	comeFree(memory.MostFreed + 1)
	<-waits.Taken
	require.Equal(t, registry.Admitted, show(1).Outcome)
	require.Equal(t, registry.Entombed, show(2).Outcome)
	require.Equal(t, registry.Entombed, show(memory.MostFreed+1).Outcome)
}

// A channel that nobody waits for any more is let go when a place of another key
// is taken.
func TestFreed_WaitsThatAreOverAreForgotten(t *testing.T) {
	s := open(t)
	one := registrytest.Supersede(1, registry.Streams)
	now := time.Now()
	s.SetNow(func() time.Time { return now })
	h, made := registrytest.Anon("a"), now
	s.hold(t, h, one).Leave(registry.Keep{})
	as, err := s.Admit(t.Context(), registry.Early, registry.Consent{}, []registry.Ask{{Holder: h, Rule: one, Tombstone: &made}}, nil)
	require.NoError(t, err)
	require.Equal(t, 1, s.Awaited())
	now = as[0].Until
	other := registrytest.Anon("b")
	other.Key = h.Key
	other.Key[31]++ // of the same shard
	s.hold(t, other, one)
	<-as[0].Taken
	require.Zero(t, s.Awaited())
}
