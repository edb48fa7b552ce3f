package wheel_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/sse-guard/sse-guard/caddymodule/internal/wheel"
)

// guest is a visitor that knows when it is to be visited. What it expects is kept
// as described, not as built: a time of its own, and no slots.
type guest struct {
	site  *site
	entry *wheel.Entry
	next  []time.Duration

	mu     sync.Mutex
	visits int
	// blocks is how long the first visit, wrongly, takes.
	blocks time.Duration
	// due is the time of the next visit, after the beginning; never: none is to come.
	due time.Duration
	// leftAt is when it left; never: it has not.
	leftAt time.Duration
	err    error
}

const never = 1 << 62

func (g *guest) Visit(now wheel.Tick) time.Duration {
	next, blocks := g.note(now)
	<-time.After(blocks)
	return next
}

// note takes down a visit. It returns what is left to be done in it.
func (g *guest) note(now wheel.Tick) (next, blocks time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	at := time.Since(g.site.begin)
	switch late := g.site.late(); {
	case at > g.leftAt:
		g.err = fmt.Errorf("visited at %s, and has left at %s", at, g.leftAt)
	case at < g.due:
		g.err = fmt.Errorf("visited at %s, before %s", at, g.due)
	case at > g.due+wheel.Precision && !late:
		g.err = fmt.Errorf("visited at %s, long after %s", at, g.due)
	case now.Since(0) > at, now.Since(0) <= at-wheel.Precision && !late:
		g.err = fmt.Errorf("visited at %s, but told %s", at, now.Since(0))
	}
	blocks, g.blocks = g.blocks, 0
	g.due = never
	if len(g.next) == 0 {
		return 0, blocks
	}
	next = g.next[g.visits%len(g.next)]
	g.visits++
	if next > 0 {
		g.due = now.Since(0) + next
	}
	return next, blocks
}

// check says if something went wrong, or if a visit is missing.
func (g *guest) check() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if at := time.Since(g.site.begin); g.err == nil && g.leftAt == never && at >= g.due+wheel.Precision {
		return fmt.Errorf("not yet visited at %s, due at %s", at, g.due)
	}
	return g.err
}

func (g *guest) here() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.leftAt == never && g.due != never
}

// action is something a user does.
type action struct {
	Do string
	// Wait is how long it waits before.
	Wait   time.Duration
	In     time.Duration
	Next   []time.Duration
	Blocks time.Duration
	Which  int
}

// phase is what all users do at the same time, and how long nothing happens then.
type phase struct {
	Actions [][]action
	Pass    time.Duration
}

// genTime draws times that fall on ticks, next to them and in between, and some
// that are longer than a revolution.
func genTime(most time.Duration) *rapid.Generator[time.Duration] {
	return rapid.Custom(func(t *rapid.T) time.Duration {
		whole := rapid.IntRange(-2, int(most/wheel.Precision)).Draw(t, "ticks")
		part := rapid.SampledFrom([]time.Duration{0, 0, 1, 50 * ms, wheel.Precision - 1}).Draw(t, "part")
		return time.Duration(whole)*wheel.Precision + part
	})
}

func genAction() *rapid.Generator[action] {
	return rapid.Custom(func(t *rapid.T) action {
		d := action{
			Do:    rapid.SampledFrom([]string{"enter", "enter", "leave"}).Draw(t, "do"),
			Wait:  max(genTime(3*wheel.Precision).Draw(t, "wait"), 0),
			In:    genTime(3*time.Second).Draw(t, "in"),
			Next:  rapid.SliceOfN(genTime(2*time.Second), 0, 3).Draw(t, "next"),
			Which: rapid.IntRange(0, 9).Draw(t, "which"),
		}
		switch rapid.IntRange(0, 19).Draw(t, "odd") {
		case 0:
			d.In += wheel.Revolution
		case 1:
			d.Next = append(d.Next, 2*wheel.Revolution+d.In)
		case 2:
			d.Blocks = max(genTime(2*time.Second).Draw(t, "blocks"), 0)
		case 3:
			d.Blocks = wheel.Revolution + time.Second
		}
		return d
	})
}

func genPhase(users int) *rapid.Generator[phase] {
	return rapid.Custom(func(t *rapid.T) phase {
		p := phase{Pass: max(genTime(8*time.Second).Draw(t, "pass"), 0)}
		if rapid.IntRange(0, 4).Draw(t, "long") == 0 {
			p.Pass += wheel.Revolution
		}
		for range users {
			p.Actions = append(p.Actions, rapid.SliceOfN(genAction(), 0, 6).Draw(t, "actions"))
		}
		return p
	})
}

func TestWheel_BehavesAsDescribed(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		users := rapid.IntRange(1, 4).Draw(rt, "users")
		phases := rapid.SliceOfN(genPhase(users), 1, 6).Draw(rt, "phases")
		var err error
		inBubble(t, func(_ *testing.T, s *site) { err = play(s, users, phases) })
		if err != nil {
			rt.Fatal(err)
		}
	})
}

// play returns the first thing that did not go as the guests expected.
func play(s *site, users int, phases []phase) error {
	all := make([][]*guest, users)
	for n, p := range phases {
		errs := make([]error, users)
		var wg sync.WaitGroup
		for i := range all {
			wg.Go(func() { all[i], errs[i] = s.do(all[i], p.Actions[i]) })
		}
		wg.Wait()
		s.pass(p.Pass)
		s.settle()
		here := 0
		for i, guests := range all {
			for which, g := range guests {
				if err := g.check(); err != nil {
					errs[i] = fmt.Errorf("guest %d: %w", which, err)
				}
				if g.here() {
					here++
				}
			}
			if errs[i] != nil {
				return fmt.Errorf("phase %d, user %d: %w", n, i, errs[i])
			}
		}
		if s.Len() != here {
			return fmt.Errorf("phase %d: there are %d, not %d", n, s.Len(), here)
		}
	}
	return nil
}

// do returns the user's guests, with those who have newly come.
func (s *site) do(guests []*guest, actions []action) ([]*guest, error) {
	for _, d := range actions {
		<-time.After(d.Wait)
		switch {
		case d.Do == "enter":
			guests = append(guests, s.enter(d))
		case len(guests) > 0:
			guests[len(guests)-1-d.Which%len(guests)].leave()
		}
	}
	return guests, nil
}

func (s *site) enter(d action) *guest {
	if d.Blocks > 0 {
		s.blocked(time.Since(s.begin) + max(d.In, 0) + d.Blocks + time.Second)
	}
	g := &guest{
		site: s, next: d.Next, blocks: d.Blocks,
		due: time.Since(s.begin) + max(d.In, 0), leftAt: never,
	}
	g.mu.Lock() // the first visit may come before Enter has returned
	defer g.mu.Unlock()
	g.entry = s.Enter(g, d.In)
	return g
}

func (g *guest) leave() {
	g.entry.Leave()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.leftAt = min(g.leftAt, time.Since(g.site.begin))
}
