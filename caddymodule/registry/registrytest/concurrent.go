package registrytest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/reason"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// Few of each, so that they meet.
var (
	someKeys     = []registry.ID{ID("k1"), ID("k2")}
	someTokens   = []registry.ID{{}, ID("t1"), ID("t2")}
	someClients  = []registry.ID{{}, ID("c1"), ID("c2"), ID("c3")}
	someSubjects = []registry.ID{{}, ID("u1"), ID("u2")}
	someSessions = []registry.ID{{}, ID("s1")}
	somePolicies = []registry.Policy{registry.Supersede, registry.Reject}
	someUnits    = []registry.Unit{registry.Streams, registry.Clients}
)

func testConcurrent(t *testing.T, open Open) {
	t.Run("Churn", func(t *testing.T) { testChurn(t, open) })
	t.Run("WhoAskedLastSurvives", func(t *testing.T) { testLastAsked(t, open) })
	t.Run("WaitersAllGetTheirTurn", func(t *testing.T) { testTurns(t, open) })
	t.Run("NobodySlipsThroughALogout", func(t *testing.T) { testLogouts(t, open) })
	t.Run("DenyAndAsk", func(t *testing.T) { testConcurrentDeny(t, open.site(t)) })
}

const goroutines = 8

// race runs work in several goroutines, each with its own random source.
func race(seed uint64, work func(rnd *rand.Rand, name string)) {
	var wg sync.WaitGroup
	start := make(chan struct{})
	for g := range goroutines {
		wg.Go(func() {
			<-start
			work(source(seed, g), fmt.Sprintf("g%d", g))
		})
	}
	close(start)
	wg.Wait()
}

func source(seed uint64, n int) *rand.Rand {
	return rand.New(rand.NewPCG(seed, uint64(n))) //nolint:gosec // a schedule need not be secret
}

func pick[T any](rnd *rand.Rand, from []T) T { return from[rnd.IntN(len(from))] }

// kind says what client ids the streams of a schedule carry.
type kind string

const (
	anons   kind = "anons"
	devices kind = "devices"
	tabs    kind = "tabs"
	mixed   kind = "mixed"
)

// clientNames are few, so that they meet, but more than any limit.
var clientNames = []string{"c1", "c2", "c3", "c4", "c5", "c6"}

// schedule is what all goroutines of one concurrent run share.
type schedule struct {
	site
	t    *testing.T
	rule registry.Rule
	kind kind

	mu  sync.Mutex
	all []*arrival // guarded by mu
}

// arrival is one stream of a schedule that was admitted, and what became of it.
// Only the goroutine that made it writes to it.
type arrival struct {
	holder *registry.Holder
	place  registry.Place
	left   bool
	kept   bool
}

// Streams come, go by themselves, are ended by others, and wait, all at once.
func testChurn(t *testing.T, open Open) {
	for _, policy := range somePolicies {
		for _, limit := range []int{1, 2, 5} {
			for _, unit := range someUnits {
				for _, k := range []kind{anons, devices, tabs, mixed} {
					t.Run(fmt.Sprintf("%s/%d%s/%s", policy, limit, unit, k), func(t *testing.T) {
						rule := registry.Rule{Policy: policy, Limit: limit, Unit: unit}
						for done, rounds := 0, 1; done < rounds; done++ {
							s := &schedule{site: open.site(t), t: t, rule: rule, kind: k}
							rounds = s.rounds(5)
							s.run(rand.Uint64()) //nolint:gosec // a schedule need not be secret
						}
					})
				}
			}
		}
	}
}

func (s *schedule) run(seed uint64) {
	s.t.Logf("seed %d", seed)
	race(seed, s.churn)
	// A last round fills what places the leaving left.
	rnd := source(seed, goroutines)
	var last []*arrival
	for i := range 150 {
		s.admit(s.holder(rnd, fmt.Sprintf("last.%d", i)), &last)
	}
	s.all = append(s.all, last...)
	s.requireQuiet()
}

// steps is how much each goroutine does.
func (s *schedule) steps() int {
	if _, remote := s.Registry.(Remote); remote {
		return 30
	}
	return 60
}

func (s *schedule) holder(rnd *rand.Rand, name string) *registry.Holder {
	h := Anon(name)
	h.Key, h.Token, h.Subject = pick(rnd, someKeys), pick(rnd, someTokens), pick(rnd, someSubjects)
	k := s.kind
	if k == mixed {
		k = pick(rnd, []kind{anons, devices, tabs})
	}
	if k != anons {
		c := pick(rnd, clientNames)
		// Whether an id names a tab or a device is a matter of configuration,
		// so no id is both.
		if s.kind == mixed {
			c += string(k)
		}
		h.Client, h.Tab = ID(c), k == tabs
	}
	return h
}

// churn does random things.
func (s *schedule) churn(rnd *rand.Rand, name string) {
	var mine []*arrival
	for i := range s.steps() {
		h := s.holder(rnd, fmt.Sprintf("%s.%d", name, i))
		switch rnd.IntN(14) {
		case 0:
			s.logOut(pick(rnd, []registry.Selector{
				{Token: h.Token}, {Client: h.Client}, {Key: h.Key}, {Subject: h.Subject}, {All: true, Token: h.Token},
			}))
		case 1:
			s.ask(s.t, registry.Early, h, s.rule)
		case 2:
			s.askWith(s.t, registry.Early, anyToken, h, s.rule)
		case 3:
			if w, err := s.Wait(context.Background(), registry.Ask{Holder: h, Rule: s.rule}); err == nil {
				runtime.Gosched()
				w.Stop()
			}
		case 4:
			_, _, err := s.Find(context.Background(), registry.Selector{All: true, Key: h.Key}, "", 5)
			assert.NoError(s.t, err)
		case 5, 6:
			if len(mine) > 0 {
				pick(rnd, mine).leave(rnd)
			}
		case 7:
			if a := s.show(s.t, registry.Header, h, s.rule); a.Place != nil {
				mine = append(mine, &arrival{holder: h, place: a.Place})
			}
		case 8:
			if a := s.damped(s.t, registry.Header, h, s.rule); a.Place != nil {
				mine = append(mine, &arrival{holder: h, place: a.Place})
			}
		default:
			s.admitSomehow(rnd, h, &mine)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, mine...)
}

func (s *schedule) logOut(sel registry.Selector) {
	_, err := s.End(context.Background(), sel, registry.Ending{Reason: reason.Logout})
	assert.NoError(s.t, err)
}

func (s *schedule) admit(h *registry.Holder, mine *[]*arrival) {
	if a := s.ask(s.t, registry.Header, h, s.rule); a.Outcome == registry.Admitted {
		*mine = append(*mine, &arrival{holder: h, place: a.Place})
	}
}

func (s *schedule) admitSomehow(rnd *rand.Rand, h *registry.Holder, mine *[]*arrival) {
	if rnd.IntN(2) == 0 {
		s.admit(h, mine)
		return
	}
	a := s.ask(s.t, registry.Reserve, h, s.rule)
	if a.Outcome != registry.Admitted {
		return
	}
	runtime.Gosched()
	if rnd.IntN(6) == 0 {
		leaveAndDepart(a.Place) // another guard refused
		return
	}
	_, err := a.Place.Commit(context.Background())
	assert.NoError(s.t, err)
	*mine = append(*mine, &arrival{holder: h, place: a.Place})
}

// leave has the client leave; for some a place is kept.
func (a *arrival) leave(rnd *rand.Rand) {
	keep := registry.Keep{}
	if rnd.IntN(3) == 0 {
		keep = forAnHour
	}
	if !a.left {
		a.left, a.kept = true, keep.For > 0
	}
	a.place.Leave(keep)
	if rnd.IntN(2) == 0 {
		a.place.Departed()
	}
}

// requireQuiet checks how everything stands once all is quiet.
func (s *schedule) requireQuiet() {
	t := s.t
	byAddr := make(map[string]*registry.Holder)
	for _, a := range s.all {
		byAddr[a.holder.Addr] = a.holder
	}
	for _, key := range someKeys {
		holding := s.find(t, registry.Selector{Key: key})
		live, kept := s.standing(key)
		require.Subset(t, holding, live)
		require.Subset(t, append(live, kept...), holding)
		if s.rule.Policy == registry.Supersede {
			require.Len(t, holding, len(live), "kept places have yielded")
		}
		require.Equal(t, s.rule.Limit, s.count(holding))
	}
	for _, a := range s.all {
		endings := s.node.Endings(a.holder.ID)
		require.LessOrEqual(t, len(endings), 1, "%s is ended more than once", a.holder.Addr)
		for _, e := range endings {
			s.requireDue(a.holder, byAddr[e.By], e)
		}
		leaveAndDepart(a.place)
	}
	s.end(t, registry.Selector{All: true}, registry.Ending{})
	s.requireEmpty(t)
}

// standing returns the streams that must hold key, and those for which a place may
// be kept.
func (s *schedule) standing(key registry.ID) (live, kept []*registry.Holder) {
	for _, a := range s.all {
		switch {
		case a.holder.Key != key || len(s.node.Endings(a.holder.ID)) > 0:
		case !a.left:
			live = append(live, a.holder)
		case a.kept:
			kept = append(kept, a.holder)
		}
	}
	return live, kept
}

// requireDue checks the reason why h was ended by a stream, nil if that was not
// admitted.
func (s *schedule) requireDue(h, by *registry.Holder, e registry.Ending) {
	switch e.Reason {
	case reason.Superseded:
		require.Equal(s.t, registry.Supersede, s.rule.Policy)
	case reason.Replaced:
		if by != nil {
			require.Equal(s.t, h.Client, by.Client)
		}
		require.True(s.t, s.rule.Policy == registry.Supersede || h.Tab)
	}
}

// count counts streams in the unit of the rule.
func (s *schedule) count(holders []*registry.Holder) int {
	if s.rule.Unit == registry.Clients {
		return len(clientsOf(holders))
	}
	return len(holders)
}

// A newcomer that waits and comes back when told gets its turn: no telling is
// lost between a refusal, a wait and a leave.
func testTurns(t *testing.T, open Open) {
	for _, limit := range []int{1, 2, 5} {
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			s := open.site(t)
			rule := Reject(limit, registry.Streams)
			done := make(chan struct{})
			go func() {
				defer close(done)
				race(0, func(_ *rand.Rand, name string) {
					for range s.rounds(100) {
						s.takeTurn(t, Anon(name), rule)
					}
				})
			}()
			select {
			case <-done:
			case <-time.After(time.Minute):
				t.Fatal("some wait for ever")
			}
			s.requireEmpty(t)
		})
	}
}

// takeTurn holds the key and leaves, however long it must wait for that.
func (s site) takeTurn(t *testing.T, h *registry.Holder, rule registry.Rule) {
	for {
		if a := s.ask(t, registry.Header, h, rule); a.Outcome == registry.Admitted {
			runtime.Gosched()
			leaveAndDepart(a.Place)
			return
		}
		if w, err := s.Wait(context.Background(), registry.Ask{Holder: h, Rule: rule}); err == nil {
			<-w.Free()
			w.Stop()
		}
	}
}
