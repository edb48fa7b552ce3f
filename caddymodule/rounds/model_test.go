package rounds_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/sse-guard/sse-guard/caddymodule/rounds"
)

// guest is a visitor that knows when it is to be visited. What it expects is kept
// as described, not as built: a time of its own, and no slots.
type guest struct {
	site  *site
	entry *rounds.Entry
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

func (g *guest) Visit(now rounds.Tick) time.Duration {
	next, blocks := g.note(now)
	<-time.After(blocks)
	return next
}

// note takes down a visit. It returns what is left to be done in it.
func (g *guest) note(now rounds.Tick) (next, blocks time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	at := time.Since(g.site.begin)
	switch late := g.site.late(); {
	case at > g.leftAt:
		g.err = fmt.Errorf("visited at %s, and has left at %s", at, g.leftAt)
	case at < g.due:
		g.err = fmt.Errorf("visited at %s, before %s", at, g.due)
	case at > g.due+rounds.Precision && !late:
		g.err = fmt.Errorf("visited at %s, long after %s", at, g.due)
	case now.Since(0) > at, now.Since(0) <= at-rounds.Precision && !late:
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
	if at := time.Since(g.site.begin); g.err == nil && g.leftAt == never && at >= g.due+rounds.Precision {
		return fmt.Errorf("not yet visited at %s, due at %s", at, g.due)
	}
	return g.err
}

func (g *guest) here() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.leftAt == never && g.due != never
}

// deed is something a user does.
type deed struct {
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
	Deeds [][]deed
	Pass  time.Duration
}

// genTime draws times that fall on ticks, next to them and in between, and some
// that are longer than a revolution.
func genTime(most time.Duration) *rapid.Generator[time.Duration] {
	return rapid.Custom(func(t *rapid.T) time.Duration {
		whole := rapid.IntRange(-2, int(most/rounds.Precision)).Draw(t, "ticks")
		part := rapid.SampledFrom([]time.Duration{0, 0, 1, 50 * ms, rounds.Precision - 1}).Draw(t, "part")
		return time.Duration(whole)*rounds.Precision + part
	})
}

func genDeed() *rapid.Generator[deed] {
	return rapid.Custom(func(t *rapid.T) deed {
		d := deed{
			Do:    rapid.SampledFrom([]string{"enter", "enter", "leave", "each"}).Draw(t, "do"),
			Wait:  max(genTime(3*rounds.Precision).Draw(t, "wait"), 0),
			In:    genTime(3*time.Second).Draw(t, "in"),
			Next:  rapid.SliceOfN(genTime(2*time.Second), 0, 3).Draw(t, "next"),
			Which: rapid.IntRange(0, 9).Draw(t, "which"),
		}
		switch rapid.IntRange(0, 19).Draw(t, "odd") {
		case 0:
			d.In += rounds.Revolution
		case 1:
			d.Next = append(d.Next, 2*rounds.Revolution+d.In)
		case 2:
			d.Blocks = max(genTime(2*time.Second).Draw(t, "blocks"), 0)
		case 3:
			d.Blocks = rounds.Revolution + time.Second
		}
		return d
	})
}

func genPhase(users int) *rapid.Generator[phase] {
	return rapid.Custom(func(t *rapid.T) phase {
		p := phase{Pass: max(genTime(8*time.Second).Draw(t, "pass"), 0)}
		if rapid.IntRange(0, 4).Draw(t, "long") == 0 {
			p.Pass += rounds.Revolution
		}
		for range users {
			p.Deeds = append(p.Deeds, rapid.SliceOfN(genDeed(), 0, 6).Draw(t, "deeds"))
		}
		return p
	})
}

func TestRounds_BehaveAsDescribed(t *testing.T) {
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
			wg.Go(func() { all[i], errs[i] = s.do(all[i], p.Deeds[i]) })
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
func (s *site) do(guests []*guest, deeds []deed) ([]*guest, error) {
	for _, d := range deeds {
		<-time.After(d.Wait)
		switch {
		case d.Do == "enter":
			guests = append(guests, s.enter(d))
		case d.Do == "each":
			if err := s.requireEach(guests); err != nil {
				return guests, fmt.Errorf("%+v: %w", d, err)
			}
		case len(guests) > 0:
			guests[len(guests)-1-d.Which%len(guests)].leave()
		}
	}
	return guests, nil
}

func (s *site) enter(d deed) *guest {
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

// requireEach requires that those of the guests who are surely there are listed
// once, and those who are surely not are not.
func (s *site) requireEach(guests []*guest) error {
	listed := map[rounds.Visitor]int{}
	s.Each(func(v rounds.Visitor) bool {
		listed[v]++
		return true
	})
	for i, g := range guests {
		n := listed[g]
		switch {
		case n > 1:
			return fmt.Errorf("guest %d is listed %d times", i, n)
		case n == 1 && g.leftAt != never: // only its own user has it leave
			return fmt.Errorf("guest %d is listed, and has left", i)
		case n == 0 && g.leftAt == never && g.stays():
			return fmt.Errorf("guest %d is not listed", i)
		}
	}
	return nil
}

// stays tells that no visit has been or will be the last.
func (g *guest) stays() bool {
	for _, in := range g.next {
		if in <= 0 {
			return false
		}
	}
	return len(g.next) > 0
}
