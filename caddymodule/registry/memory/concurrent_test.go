package memory_test

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/reason"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
	"github.com/sse-guard/sse-guard/caddymodule/registry/memory"
	"github.com/sse-guard/sse-guard/caddymodule/registry/registrytest"
)

// arrival is one stream of a concurrent schedule and what became of it. Only
// the goroutine that made it writes to it.
type arrival struct {
	holder  *registry.Holder
	place   registry.Place // nil if refused
	held    bool
	victims []registry.Victim
}

// schedule is what all goroutines of one concurrent run share.
type schedule struct {
	site
	t    *testing.T
	rule registry.Rule
	kind kind
}

// kind says what client ids the streams of a schedule carry.
type kind string

const (
	anons   kind = "anons"
	devices kind = "devices"
	tabs    kind = "tabs"
	mixed   kind = "mixed"
)

const goroutines = 8

var (
	someKeys = []registry.ID{registrytest.ID("k1"), registrytest.ID("k2")}
	// clientNames are few, so that they meet, but more than any limit.
	clientNames = []string{"c1", "c2", "c3", "c4", "c5", "c6"}
)

// eachSchedule runs test for all rules of a policy and all kinds of streams.
func eachSchedule(t *testing.T, policy registry.Policy, test func(*testing.T, schedule, uint64)) {
	for _, limit := range []int{1, 2, 5} {
		for _, unit := range []registry.Unit{registry.Streams, registry.Clients} {
			for _, k := range []kind{anons, devices, tabs, mixed} {
				t.Run(fmt.Sprintf("%d%s/%s", limit, unit, k), func(t *testing.T) {
					rule := registry.Rule{Policy: policy, Limit: limit, Unit: unit}
					for range 5 {
						seed := rand.Uint64()
						t.Logf("seed %d", seed)
						test(t, schedule{open(t), t, rule, k}, seed)
					}
				})
			}
		}
	}
}

// race runs work in several goroutines, each with its own random source, and
// returns what all of them did.
func race(seed uint64, work func(*rand.Rand, string) []*arrival) []*arrival {
	var (
		wg  sync.WaitGroup
		mu  sync.Mutex
		all []*arrival
	)
	start := make(chan struct{})
	for g := range goroutines {
		wg.Go(func() {
			<-start
			as := work(rand.New(rand.NewPCG(seed, uint64(g))), fmt.Sprintf("g%d", g))
			mu.Lock()
			defer mu.Unlock()
			all = append(all, as...)
		})
	}
	close(start)
	wg.Wait()
	return all
}

func (s schedule) holder(rnd *rand.Rand, name string) *registry.Holder {
	h := registrytest.Anon(name)
	h.Key = someKeys[rnd.IntN(len(someKeys))]
	h.Token = registrytest.ID(fmt.Sprint("t", rnd.IntN(3)))
	h.Subject = registrytest.ID(fmt.Sprint("u", rnd.IntN(3)))
	k := s.kind
	if k == mixed {
		k = []kind{anons, devices, tabs}[rnd.IntN(3)]
	}
	if k != anons {
		c := clientNames[rnd.IntN(len(clientNames))]
		// Whether an id names a tab or a device is a matter of configuration,
		// so no id is both.
		if s.kind == mixed {
			c += string(k)
		}
		h.Client, h.Tab = registrytest.ID(c), k == tabs
	}
	return h
}

// admit asks for a place, in one go or two.
func (s schedule) admit(rnd *rand.Rand, h *registry.Holder) *arrival {
	if rnd.IntN(2) == 0 {
		a := s.ask(s.t, registry.Header, h, s.rule)
		return &arrival{holder: h, place: a.Place, held: a.Place != nil, victims: a.Ends}
	}
	a := &arrival{holder: h, place: s.ask(s.t, registry.Reserve, h, s.rule).Place}
	if rnd.IntN(2) == 0 {
		runtime.Gosched()
	}
	switch {
	case a.place == nil:
	case s.rule.Policy == registry.Supersede && rnd.IntN(6) == 0:
		leaveAndDepart(a.place) // another guard refused
	default:
		victims, err := a.place.Commit(context.Background())
		assert.NoError(s.t, err)
		a.held, a.victims = true, victims
	}
	return a
}

// byAge returns the arrivals for key that were held, in the order of their
// commits.
func byAge(all []*arrival, key registry.ID) []*arrival {
	var out []*arrival
	for _, a := range all {
		if a.held && a.holder.Key == key {
			out = append(out, a)
		}
	}
	slices.SortFunc(out, func(a, b *arrival) int { return cmp.Compare(memory.Age(a.place), memory.Age(b.place)) })
	return out
}

// live returns the streams that were not ended.
func (s schedule) live(arrivals []*arrival) []*registry.Holder {
	var out []*registry.Holder
	for _, a := range arrivals {
		if len(s.node.Endings(a.holder.ID)) == 0 {
			out = append(out, a.holder)
		}
	}
	return out
}

// count counts streams in the unit of the rule.
func (s schedule) count(holders []*registry.Holder) int {
	if s.rule.Unit == registry.Streams {
		return len(holders)
	}
	clients := make(map[any]bool)
	for _, h := range holders {
		if h.Client.IsZero() {
			clients[h] = true
		} else {
			clients[h.Client] = true
		}
	}
	return len(clients)
}

// Under Supersede, only the order of commits matters. So whatever the schedule,
// the outcome must be that of the same commits one after the other.
func TestConcurrentCommits_LeaveTheNewest(t *testing.T) {
	eachSchedule(t, registry.Supersede, func(t *testing.T, s schedule, seed uint64) {
		all := race(seed, func(rnd *rand.Rand, name string) []*arrival {
			var mine []*arrival
			for i := range 30 {
				mine = append(mine, s.admit(rnd, s.holder(rnd, fmt.Sprintf("%s.%d", name, i))))
			}
			return mine
		})

		inOrder := open(t)
		for _, key := range someKeys {
			for _, a := range byAge(all, key) {
				require.Equal(t, inOrder.ask(t, registry.Header, a.holder, s.rule).Ends, a.victims, "victims of %s", a.holder.Addr)
			}
			survivors := inOrder.holders(t, key)
			require.Equal(t, survivors, s.holders(t, key))
			require.ElementsMatch(t, survivors, s.live(byAge(all, key)))
			require.LessOrEqual(t, s.count(survivors), s.rule.Limit)
			require.NotEmpty(t, survivors)
		}
		for _, a := range all {
			require.Equal(t, inOrder.node.Endings(a.holder.ID), s.node.Endings(a.holder.ID), "endings of %s", a.holder.Addr)
		}
	})
}

// Under Reject, whoever came first keeps the key.
func TestConcurrentReservations_LeaveTheOldest(t *testing.T) {
	eachSchedule(t, registry.Reject, func(t *testing.T, s schedule, seed uint64) {
		all := race(seed, func(rnd *rand.Rand, name string) []*arrival {
			var mine []*arrival
			full := make(map[registry.ID]bool)
			for i := range 30 {
				a := s.admit(rnd, s.holder(rnd, fmt.Sprintf("%s.%d", name, i)))
				mine = append(mine, a)
				if a.place == nil {
					full[a.holder.Key] = true
				} else if s.kind == anons {
					assert.False(t, full[a.holder.Key], "admitted after an older newcomer was refused")
				}
			}
			return mine
		})
		s.requireOldestLive(t, all)
	})
}

// requireOldestLive checks that, with nobody gone by itself, all who were
// admitted live, but for tabs that replaced themselves.
func (s schedule) requireOldestLive(t *testing.T, all []*arrival) {
	for _, key := range someKeys {
		admitted := byAge(all, key)
		live := s.live(admitted)
		require.ElementsMatch(t, live, s.holders(t, key))
		if s.kind == anons || s.kind == devices {
			require.Len(t, live, len(admitted), "nobody is ended")
			require.Equal(t, s.rule.Limit, s.count(live))
		}
		require.LessOrEqual(t, s.count(live), s.rule.Limit)
		require.NotEmpty(t, live)
		newest := make(map[registry.ID]*registry.Holder)
		for _, a := range admitted {
			if a.holder.Tab {
				newest[a.holder.Client] = a.holder
			}
		}
		for _, a := range admitted {
			endings := s.node.Endings(a.holder.ID)
			if n, ok := newest[a.holder.Client]; ok && n != a.holder {
				require.Len(t, endings, 1)
				require.Equal(t, reason.Replaced, endings[0].Reason)
			} else {
				require.Empty(t, endings)
			}
		}
	}
}
