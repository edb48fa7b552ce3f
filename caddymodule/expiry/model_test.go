package expiry_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/sse-guard/sse-guard/caddymodule/expiry"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// user is one of several who use the same Deadlines at the same time. What it
// expects is kept as described, not as built: one slice of its streams, oldest
// first, searched from end to end. Its sessions are its own.
type user struct {
	name    string
	site    *site
	streams []*modelStream
}

type modelStream struct {
	*registry.Stream
	entry     *expiry.Entry
	session   string // "": none
	at        time.Time
	renewedBy string
	stopped   bool
	ended     bool
}

// deed is something a user does.
type deed struct {
	Do             string
	Session, Token string
	In             time.Duration
	Never          bool
	Which          int
}

// phase is what all users do at the same time, and what the clocks do then.
type phase struct {
	Deeds [][]deed
	Jump  time.Duration
	Pass  time.Duration
}

func genDeed() *rapid.Generator[deed] {
	return rapid.Custom(func(t *rapid.T) deed {
		d := deed{
			Do:      rapid.SampledFrom([]string{"add", "add", "stop", "renew", "renewedBy"}).Draw(t, "do"),
			Session: rapid.SampledFrom([]string{"", "S1", "S2"}).Draw(t, "session"),
			Token:   rapid.SampledFrom([]string{"T1", "T2"}).Draw(t, "token"),
			In:      time.Duration(rapid.IntRange(1, 40).Draw(t, "in")) * 500 * time.Millisecond,
			Never:   rapid.IntRange(0, 9).Draw(t, "never") == 0,
			Which:   rapid.IntRange(0, 9).Draw(t, "which"),
		}
		// What is past already ends while its user does the next thing. That is
		// only foreseeable where no renewal can be faster.
		if d.Do == "add" && d.Session == "" {
			d.In -= 10 * time.Second
		}
		return d
	})
}

func genPhase(users int) *rapid.Generator[phase] {
	return rapid.Custom(func(t *rapid.T) phase {
		p := phase{Pass: time.Duration(rapid.IntRange(1, 30).Draw(t, "pass")) * 250 * time.Millisecond}
		for range users {
			p.Deeds = append(p.Deeds, rapid.SliceOfN(genDeed(), 0, 6).Draw(t, "deeds"))
		}
		if rapid.IntRange(0, 2).Draw(t, "jumps") == 0 {
			p.Jump = time.Duration(rapid.IntRange(-40, 40).Draw(t, "jump")) * 500 * time.Millisecond
			p.Pass += expiry.MaxSleep // so that all is settled before the next phase
		}
		return p
	})
}

func TestDeadlines_BehaveAsDescribed(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		users := rapid.IntRange(1, 4).Draw(rt, "users")
		phases := rapid.SliceOfN(genPhase(users), 1, 8).Draw(rt, "phases")
		var err error
		inBubble(t, func(_ *testing.T, s *site) { err = play(s, users, phases) })
		if err != nil {
			rt.Fatal(err)
		}
	})
}

// play returns the first thing that did not go as the users expected.
func play(s *site, users int, phases []phase) error {
	all := make([]*user, users)
	for i := range all {
		all[i] = &user{name: fmt.Sprint(i), site: s}
	}
	for n, p := range phases {
		errs := make([]error, users)
		var wg sync.WaitGroup
		for i, u := range all {
			wg.Go(func() { errs[i] = u.do(p.Deeds[i]) })
		}
		wg.Wait()
		synctest.Wait() // a sweep on its way has looked at the clock before the jump
		s.jump(p.Jump)
		s.pass(p.Pass)
		known := 0
		for i, u := range all {
			errs[i] = cmpErr(errs[i], u.check())
			known += u.known()
		}
		for i, err := range errs {
			if err != nil {
				return fmt.Errorf("phase %d, user %d: %w", n, i, err)
			}
		}
		if s.Len() != known {
			return fmt.Errorf("phase %d: %d are known, not %d", n, s.Len(), known)
		}
	}
	return nil
}

func cmpErr(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

func (u *user) do(deeds []deed) error {
	for _, d := range deeds {
		var err error
		switch d.Do {
		case "add":
			u.add(d)
		case "stop":
			u.stop(d.Which)
		case "renew":
			err = u.renew(d)
		case "renewedBy":
			err = u.renewedBy(d)
		}
		if err != nil {
			return fmt.Errorf("%+v: %w", d, err)
		}
	}
	return nil
}

// id names something of this user's.
func (u *user) id(name string) registry.ID {
	if name == "" {
		return none
	}
	return id(u.name + name)
}

func (u *user) add(d deed) {
	m := &modelStream{Stream: stream("a"), session: d.Session, at: u.site.in(d.In)}
	m.entry = u.site.Add(m.Stream, u.id(d.Session), m.at)
	u.streams = append(u.streams, m)
}

func (u *user) stop(which int) {
	if len(u.streams) == 0 {
		return
	}
	m := u.streams[len(u.streams)-1-which%len(u.streams)]
	m.entry.Stop()
	m.stopped = true
}

// of returns the session's streams that have not ended.
func (u *user) of(session string) []*modelStream {
	var out []*modelStream
	for _, m := range u.streams {
		if session != "" && m.session == session && !m.stopped && !m.ended {
			out = append(out, m)
		}
	}
	return out
}

func (u *user) renew(d deed) error {
	at := u.site.in(d.In)
	if d.Never {
		at = time.Time{}
	}
	want := 0
	for _, m := range u.of(d.Session) {
		if !m.at.IsZero() && (d.Never || m.at.Before(at)) {
			m.at, m.renewedBy = at, d.Token
			want++
		}
	}
	if got := u.site.Renew(u.id(d.Session), u.id(d.Token), at); got != want {
		return fmt.Errorf("moved %d, not %d", got, want)
	}
	return nil
}

func (u *user) renewedBy(d deed) error {
	var want []*registry.Stream
	for _, m := range u.of(d.Session) {
		if m.renewedBy == d.Token {
			want = append(want, m.Stream)
		}
	}
	if got := u.site.RenewedBy(u.id(d.Session), u.id(d.Token)); !slices.Equal(got, want) {
		return fmt.Errorf("listed %d, not %d", len(got), len(want))
	}
	return nil
}

// check takes note of who has ended, and says if someone should not have, or
// should.
func (u *user) check() error {
	synctest.Wait()
	now := u.site.now()
	for i, m := range u.streams {
		at, ended := u.site.endedAt[m.Stream]
		newly := ended && !m.ended
		m.ended = ended
		switch {
		case newly && (m.at.IsZero() || at.Before(m.at)):
			return fmt.Errorf("stream %d ended at %s, before %s", i, at, m.at)
		case !ended && !m.stopped && !m.at.IsZero() && !m.at.After(now):
			return fmt.Errorf("stream %d is over since %s, and has not ended", i, m.at)
		}
	}
	return nil
}

func (u *user) known() int {
	n := 0
	for _, m := range u.streams {
		if !m.stopped && !m.ended {
			n++
		}
	}
	return n
}
