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
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
	"github.com/sse-guard/sse-guard/caddymodule/registry/memory"
)

// arrival is one stream of a concurrent schedule and what became of it. Only
// the goroutine that made it writes to it.
type arrival struct {
	stream   *registry.Stream
	place    registry.Place // nil if refused
	held     bool
	released bool
	victims  []registry.Victim
}

// live tells whether the stream must be a holder, once all is quiet.
func (a *arrival) live() bool {
	return a.held && !a.released && len(endings(a.stream)) == 0
}

// schedule is what all goroutines of one concurrent run share.
type schedule struct {
	t    *testing.T
	real *memory.Registry
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

// clientNames are few, so that they meet, but more than any limit.
var clientNames = []string{"c1", "c2", "c3", "c4", "c5", "c6"}

// eachSchedule runs test for all rules of a policy and all kinds of streams.
func eachSchedule(t *testing.T, policy registry.Policy, test func(*testing.T, schedule, uint64)) {
	for _, limit := range []int{1, 2, 5} {
		for _, unit := range someUnits {
			for _, k := range []kind{anons, devices, tabs, mixed} {
				t.Run(fmt.Sprintf("%d%s/%s", limit, unit, k), func(t *testing.T) {
					rule := registry.Rule{Policy: policy, Limit: limit, Unit: unit}
					for range 5 {
						seed := rand.Uint64()
						t.Logf("seed %d", seed)
						test(t, schedule{t, memory.New(), rule, k}, seed)
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

func (s schedule) stream(rnd *rand.Rand, name string) *registry.Stream {
	out := anon(name)
	out.Key = someKeys[rnd.IntN(len(someKeys))]
	out.Token = someTokens[rnd.IntN(len(someTokens))]
	out.Subject = someSubjects[rnd.IntN(len(someSubjects))]
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
		out.Client, out.Tab = id(c), k == tabs
	}
	return out
}

func (s schedule) reserve(stream *registry.Stream) *arrival {
	p, j, err := s.real.Reserve(context.Background(), stream, s.rule)
	assert.NoError(s.t, err)
	assert.Equal(s.t, j.Admitted, p != nil)
	return &arrival{stream: stream, place: p}
}

func (s schedule) commit(a *arrival) {
	victims, err := a.place.Commit(context.Background())
	assert.NoError(s.t, err)
	a.held, a.victims = true, victims
}

func (a *arrival) release() {
	a.place.Release()
	a.released = true
}

// byAge returns the arrivals for key that were held, in the order of their
// commits.
func byAge(all []*arrival, key registry.ID) []*arrival {
	var out []*arrival
	for _, a := range all {
		if a.held && a.stream.Key == key {
			out = append(out, a)
		}
	}
	slices.SortFunc(out, func(a, b *arrival) int { return cmp.Compare(memory.Age(a.place), memory.Age(b.place)) })
	return out
}

func liveStreams(arrivals []*arrival) []*registry.Stream {
	var out []*registry.Stream
	for _, a := range arrivals {
		if a.live() {
			out = append(out, a.stream)
		}
	}
	return out
}

// count counts streams in the unit of the rule.
func (s schedule) count(streams []*registry.Stream) int {
	if s.rule.Unit == registry.Clients {
		return len(clientsOf(streams))
	}
	return len(streams)
}

// Under Supersede, only the order of commits matters. So whatever the schedule,
// the outcome must be that of the same commits one after the other.
func TestConcurrentCommits_LeaveTheNewest(t *testing.T) {
	eachSchedule(t, registry.Supersede, func(t *testing.T, s schedule, seed uint64) {
		all := race(seed, func(rnd *rand.Rand, name string) []*arrival {
			var mine []*arrival
			for i := range 30 {
				a := s.reserve(s.stream(rnd, fmt.Sprintf("%s.%d", name, i)))
				mine = append(mine, a)
				if rnd.IntN(2) == 0 {
					runtime.Gosched()
				}
				if rnd.IntN(6) == 0 {
					a.release() // another guard refused
				} else {
					s.commit(a)
				}
			}
			return mine
		})

		m := newModel()
		for _, key := range someKeys {
			for _, a := range byAge(all, key) {
				p := &modelPlace{a.stream, s.rule}
				m.reserve(p)
				require.Equal(t, told(m.commit(p)), told(a.victims), "victims of %s", a.stream.Addr)
			}
			survivors := on(key, m.held)
			require.Equal(t, names(survivors), names(holders(t, s.real, key)))
			require.Equal(t, names(survivors), names(liveStreams(byAge(all, key))))
			require.LessOrEqual(t, s.count(survivors), s.rule.Limit)
		}
		for _, a := range all {
			require.Equal(t, m.endings[a.stream], endings(a.stream), "endings of %s", a.stream.Addr)
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
				a := s.reserve(s.stream(rnd, fmt.Sprintf("%s.%d", name, i)))
				mine = append(mine, a)
				if a.place == nil {
					full[a.stream.Key] = true
					continue
				}
				if s.kind == anons {
					assert.False(t, full[a.stream.Key], "admitted after an older newcomer was refused")
				}
				runtime.Gosched()
				s.commit(a)
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
		live := liveStreams(admitted)
		require.Equal(t, names(live), names(holders(t, s.real, key)))
		if s.kind == anons || s.kind == devices {
			require.Len(t, live, len(admitted), "nobody is ended")
			require.Equal(t, s.rule.Limit, s.count(live))
		}
		require.LessOrEqual(t, s.count(live), s.rule.Limit)
		require.NotEmpty(t, live)
		newest := make(map[registry.ID]*registry.Stream)
		for _, a := range admitted {
			if a.stream.Tab {
				newest[a.stream.Client] = a.stream
			}
		}
		for _, a := range admitted {
			if n, ok := newest[a.stream.Client]; ok && n != a.stream {
				require.Len(t, endings(a.stream), 1)
				require.Equal(t, registry.Replaced, endings(a.stream)[0].Reason)
			} else {
				require.Empty(t, endings(a.stream))
			}
		}
	}
}

// Streams come, go by themselves, are ended by others, and wait, all at once.
func TestConcurrentChurn_EndsInOrder(t *testing.T) {
	for _, policy := range somePolicy {
		t.Run(string(policy), func(t *testing.T) {
			eachSchedule(t, policy, func(t *testing.T, s schedule, seed uint64) {
				all := race(seed, func(rnd *rand.Rand, name string) []*arrival { return s.churn(rnd, name) })
				// A last round fills what places the leaving left.
				rnd := rand.New(rand.NewPCG(seed, goroutines))
				for i := range 200 {
					a := s.reserve(s.stream(rnd, fmt.Sprintf("last.%d", i)))
					all = append(all, a)
					if a.place != nil {
						s.commit(a)
					}
				}
				s.requireQuiet(t, all)
			})
		})
	}
}

// churn does random things, and returns the streams it opened.
func (s schedule) churn(rnd *rand.Rand, name string) []*arrival {
	ctx := context.Background()
	var mine []*arrival
	for i := range 60 {
		stream := s.stream(rnd, fmt.Sprintf("%s.%d", name, i))
		switch rnd.IntN(13) {
		case 0:
			_, _ = s.real.EndAll(ctx, registry.ByToken, stream.Token, registry.Ending{Reason: registry.Logout})
		case 1:
			_, _ = s.real.EndAll(ctx, registry.ByClient, stream.Client, registry.Ending{Reason: registry.Logout})
		case 2:
			_, _ = s.real.EndAll(ctx, registry.ByKey, stream.Key, registry.Ending{Reason: registry.Logout})
		case 3:
			_, _ = s.real.EndAll(ctx, registry.BySubject, stream.Subject, registry.Ending{Reason: registry.Logout})
		case 4:
			if j, _ := s.real.Judge(ctx, stream, s.rule); len(j.Ends) > 0 {
				runtime.Gosched()
				_, _ = s.real.Evict(ctx, j.Ends, stream.Addr)
			}
		case 5:
			if w, ok := s.real.Wait(stream, s.rule); ok {
				runtime.Gosched()
				w.Stop()
			}
		case 6, 7:
			if len(mine) > 0 {
				if a := mine[rnd.IntN(len(mine))]; a.place != nil {
					a.release()
				}
			}
		default:
			a := s.reserve(stream)
			mine = append(mine, a)
			if a.place == nil {
				continue
			}
			if rnd.IntN(2) == 0 {
				runtime.Gosched()
			}
			s.commit(a)
		}
	}
	return mine
}

func (s schedule) requireQuiet(t *testing.T, all []*arrival) {
	byAddr := make(map[string]*registry.Stream)
	for _, a := range all {
		byAddr[a.stream.Addr] = a.stream
	}
	total := 0
	for _, key := range someKeys {
		arrivals := byAge(all, key)
		live := liveStreams(arrivals)
		total += len(live)
		require.Equal(t, names(live), names(holders(t, s.real, key)))
		if s.kind == tabs && s.rule.Unit == registry.Streams {
			require.Equal(t, min(s.rule.Limit, len(clientNames)), len(live))
		}
		require.Equal(t, s.rule.Limit, s.count(live))
		if s.rule.Policy == registry.Supersede && s.rule.Unit == registry.Streams {
			requireSupersededAreOlder(t, arrivals)
		}
	}
	require.Equal(t, total, s.real.Len())

	for _, a := range all {
		es := endings(a.stream)
		require.LessOrEqual(t, len(es), 1, "%s is ended more than once", a.stream.Addr)
		for _, e := range es {
			require.True(t, a.held)
			switch e.Reason {
			case registry.Superseded:
				require.Equal(t, registry.Supersede, s.rule.Policy)
			case registry.Replaced:
				by := byAddr[e.By]
				if by != nil { // else the address of one that was only judged
					require.Equal(t, a.stream.Client, by.Client)
				}
				require.True(t, s.rule.Policy == registry.Supersede || a.stream.Tab)
			}
		}
		if a.place != nil {
			a.place.Release()
		}
	}
	require.Zero(t, s.real.Size())
}

// requireSupersededAreOlder checks that no stream lives that is older than one
// which had to go for being the oldest.
func requireSupersededAreOlder(t *testing.T, byAge []*arrival) {
	oldest := slices.IndexFunc(byAge, (*arrival).live)
	for _, a := range byAge[oldest+1:] {
		for _, e := range endings(a.stream) {
			require.NotEqual(t, registry.Superseded, e.Reason, "%s went before its elders", a.stream.Addr)
		}
	}
}

// A newcomer that waits and comes back when told gets its turn: no telling is
// lost between a refusal, a wait and a release.
func TestConcurrentWaiters_AllGetTheirTurn(t *testing.T) {
	for _, limit := range []int{1, 2, 5} {
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			rule := registry.Rule{Policy: registry.Reject, Limit: limit, Unit: registry.Streams}
			s := schedule{t, memory.New(), rule, anons}
			done := make(chan struct{})
			go func() {
				defer close(done)
				race(rand.Uint64(), func(_ *rand.Rand, name string) []*arrival {
					for range 200 {
						s.takeTurn(anon(name))
					}
					return nil
				})
			}()
			select {
			case <-done:
			case <-time.After(time.Minute):
				t.Fatal("some wait for ever")
			}
			require.Zero(t, s.real.Size())
		})
	}
}

// takeTurn holds and releases the key, however long it must wait for that.
func (s schedule) takeTurn(stream *registry.Stream) {
	for {
		if a := s.reserve(stream); a.place != nil {
			runtime.Gosched()
			s.commit(a)
			a.release()
			return
		}
		if w, ok := s.real.Wait(stream, s.rule); ok {
			<-w.Free()
			w.Stop()
		}
	}
}
