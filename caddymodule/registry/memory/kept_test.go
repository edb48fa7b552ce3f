package memory_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
	"github.com/sse-guard/sse-guard/caddymodule/registry/memory"
	"github.com/sse-guard/sse-guard/caddymodule/registry/registrytest"
)

// inBubble runs test with a registry whose time only waiting passes. It fails if a
// goroutine outlives the registry.
func inBubble(t *testing.T, test func(t *testing.T, s site)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		node := new(registrytest.FakeNode)
		s := site{memory.New(node), node}
		test(t, s)
		require.NoError(t, s.Close())
	})
}

// after waits until d has passed, and all that is due then has happened.
func after(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// keep has a client hold a key of its own, and leave.
func (s site) keep(t *testing.T, name string, d time.Duration) registry.Place {
	h := registrytest.Anon(name)
	h.Key = registrytest.ID(name)
	p := s.hold(t, h, registrytest.Track)
	p.Leave(registry.Keep{For: d})
	p.Departed()
	return p
}

func TestKept_ExactlySoLong(t *testing.T) {
	inBubble(t, func(t *testing.T, s site) {
		rule := registrytest.Reject(1, registry.Streams)
		s.keep(t, "key", time.Minute)
		ask := registry.Ask{Holder: registrytest.Anon("w"), Rule: rule}
		w, err := s.Wait(context.Background(), ask)
		require.NoError(t, err)
		after(time.Minute - time.Nanosecond)
		require.Equal(t, registry.Rejected, s.ask(t, registry.Header, registrytest.Anon("n"), rule).Outcome)
		select {
		case <-w.Free():
			require.Fail(t, "told too early")
		default:
		}
		after(time.Nanosecond)
		<-w.Free()
		require.Zero(t, s.Size())
	})
}

// Places are kept for times of all lengths, begun at all times; each is given up
// at its own.
func TestKept_EachForItsOwnTime(t *testing.T) {
	inBubble(t, func(t *testing.T, s site) {
		seed := rand.Uint64()
		t.Logf("seed %d", seed)
		rnd := rand.New(rand.NewPCG(seed, 0))
		until := make(map[string]time.Time)
		back := make(map[string]bool)
		for i := range 400 {
			name, d := fmt.Sprint(i), time.Duration(1+rnd.IntN(60))*time.Second
			s.keep(t, name, d)
			until[name] = time.Now().Add(d)
			if rnd.IntN(4) == 0 { // some come back, and stay
				h := registrytest.Anon(name)
				h.Key, h.Client = registrytest.ID(name), registrytest.ID("another client")
				s.hold(t, h, registrytest.Supersede(1, registry.Streams))
				back[name] = true
			}
			after(time.Duration(rnd.IntN(2)) * 500 * time.Millisecond)
			kept := 0
			for name, until := range until {
				if back[name] || until.After(time.Now()) {
					kept++
				}
			}
			require.Equal(t, kept, s.Len())
		}
		after(time.Minute)
		require.Equal(t, len(back), s.Len())
	})
}

// Many are due at once.
func TestKept_GivenUpInBatches(t *testing.T) {
	inBubble(t, func(t *testing.T, s site) {
		for i := range 1000 {
			s.keep(t, fmt.Sprint(i), time.Minute)
		}
		after(time.Minute)
		require.Zero(t, s.Size())
	})
}

func TestKept_DepartsLater(t *testing.T) {
	inBubble(t, func(t *testing.T, s site) {
		p := s.hold(t, registrytest.Device("a", "D"), registrytest.Track)
		p.Leave(registry.Keep{For: time.Minute})
		early := func() <-chan struct{} {
			return s.ask(t, registry.Early, registrytest.Device("n", "D"), registrytest.Track).Departed
		}
		kept := early()
		require.NotNil(t, kept)
		after(time.Minute)
		require.Zero(t, s.Len())
		require.Equal(t, kept, early(), "it is still there")
		p.Departed()
		<-kept
		require.Zero(t, s.Size())
	})
}

func TestClose_GivesUpWhatIsKept(t *testing.T) {
	inBubble(t, func(t *testing.T, s site) {
		s.keep(t, "a", time.Hour)
		held := s.hold(t, registrytest.Anon("h"), registrytest.Track)
		require.NoError(t, s.Close())
		require.NoError(t, s.Close())
		require.Equal(t, 1, s.Len())
		s.keep(t, "b", time.Hour)
		require.Equal(t, 1, s.Len(), "no place is kept any more")
		leaveAndDepart(held)
		require.Zero(t, s.Size())
	})
}

// Clients leave and come back while their places are given up.
func TestConcurrentKept_EachPlaceIsGivenUpOnce(t *testing.T) {
	s := open(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	race(seed, func(rnd *rand.Rand, _ string) []*arrival {
		for range 300 {
			h := registrytest.Device("a", fmt.Sprint(rnd.IntN(3)))
			a := s.ask(t, registry.Header, h, registrytest.Reject(2, registry.Streams))
			if a.Place == nil {
				continue
			}
			a.Place.Leave(registry.Keep{For: time.Duration(rnd.IntN(200)) * time.Microsecond})
			a.Place.Departed()
		}
		return nil
	})
	require.Eventually(t, func() bool { return s.Size() == 0 }, 10*time.Second, time.Millisecond)
	require.Empty(t, s.node.Ended())
}
