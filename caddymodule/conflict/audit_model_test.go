package conflict_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// auditAction is something that happens to a key; afterwards, time passes.
type auditAction struct {
	Key string
	// From is who takes the key over; empty: a newcomer is refused.
	From string
	Pass time.Duration
}

func genAuditAction() *rapid.Generator[auditAction] {
	return rapid.Custom(func(t *rapid.T) auditAction {
		return auditAction{
			Key:  rapid.SampledFrom([]string{"a", "b", "c", "d"}).Draw(t, "key"),
			From: rapid.SampledFrom([]string{"", "", "1", "2", "3", "4"}).Draw(t, "from"),
			// Never nothing, so that no two windows are over at the same time.
			Pass: time.Duration(rapid.SampledFrom([]int{0, 1, 10, 30, 60, 100}).Draw(t, "pass"))*time.Second + 1,
		}
	})
}

// auditModel is an Audit as it is described, not as it is built: it knows all that ever
// happened to a key, until that is forgotten.
type auditModel struct {
	keys      int
	addrs     int
	window    time.Duration
	refusals  []*auditedKey
	takeovers []*auditedKey
	told      []string
}

type auditedKey struct {
	key      string
	over     time.Time
	attempts int
	from     []auditedTakeover
	told     time.Time
}

type auditedTakeover struct {
	addr string
	at   time.Time
}

// open returns the key's entry, after the oldest made room for it if need be.
func (m *auditModel) open(in *[]*auditedKey, key string, over time.Time) (k *auditedKey, isNew bool, gone *auditedKey) {
	for _, k := range *in {
		if k.key == key {
			return k, false, nil
		}
	}
	if len(*in) == m.keys {
		gone = slices.MinFunc(*in, func(a, b *auditedKey) int { return a.over.Compare(b.over) })
		*in = slices.DeleteFunc(*in, func(k *auditedKey) bool { return k == gone })
	}
	k = &auditedKey{key: key, over: over}
	*in = append(*in, k)
	return k, true, gone
}

func (m *auditModel) tell(key string, attempts int) {
	if attempts > 0 {
		m.told = append(m.told, fmt.Sprintf("%s %d", key, attempts))
	}
}

func (m *auditModel) reject(key string, now time.Time) {
	k, isNew, gone := m.open(&m.refusals, key, now.Add(time.Minute))
	if !isNew {
		k.attempts++
		return
	}
	m.tell(key, 1)
	if gone != nil {
		m.tell(gone.key, gone.attempts)
	}
}

func (m *auditModel) takeOver(key, addr string, now time.Time) []string {
	k, _, _ := m.open(&m.takeovers, key, now)
	k.over = now.Add(m.window)
	k.from = append(k.from, auditedTakeover{addr, now})
	var latest []string // first
	for _, a := range slices.Backward(k.from) {
		if now.Sub(a.at) < m.window && !slices.Contains(latest, a.addr) && len(latest) < m.addrs {
			latest = append(latest, a.addr)
		}
	}
	if len(latest) < m.addrs || !k.told.IsZero() && now.Sub(k.told) < m.window {
		return nil
	}
	k.told = now
	slices.Reverse(latest)
	return latest
}

// passed has happen what was due by now.
func (m *auditModel) passed(now time.Time) {
	over := func(k *auditedKey) bool { return !k.over.After(now) }
	m.takeovers = slices.DeleteFunc(m.takeovers, over)
	for {
		slices.SortFunc(m.refusals, func(a, b *auditedKey) int { return a.over.Compare(b.over) })
		if len(m.refusals) == 0 || !over(m.refusals[0]) {
			return
		}
		k := m.refusals[0]
		if k.attempts == 0 {
			m.refusals = m.refusals[1:]
			continue
		}
		m.tell(k.key, k.attempts)
		k.attempts = 0
		k.over = k.over.Add(time.Minute)
	}
}

func (m *auditModel) close() {
	for _, k := range m.refusals {
		m.tell(k.key, k.attempts)
	}
}

func TestAudit_BehavesAsDescribed(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		m := &auditModel{
			keys:   rapid.IntRange(1, 5).Draw(rt, "keys"),
			addrs:  rapid.IntRange(1, 4).Draw(rt, "addrs"),
			window: time.Duration(rapid.IntRange(1, 5).Draw(rt, "window")) * 50 * time.Second,
		}
		actions := rapid.SliceOfN(genAuditAction(), 1, 60).Draw(rt, "actions")
		var err error
		auditInBubble(t, m.keys, func(_ *testing.T, s *auditSite) { err = m.play(s, actions) })
		if err != nil {
			rt.Fatal(err)
		}
	})
}

// play returns the first thing that did not go as the model expected.
func (m *auditModel) play(s *auditSite, actions []auditAction) error {
	for i, d := range actions {
		if d.From == "" {
			s.refuse(d.Key, 1)
			m.reject(d.Key, time.Now())
		} else {
			got := s.TakenOver(id(d.Key), d.From, m.addrs, m.window)
			if want := m.takeOver(d.Key, d.From, time.Now()); !slices.Equal(got, want) {
				return fmt.Errorf("action %d: contested by %q, not %q", i, got, want)
			}
		}
		s.pass(d.Pass)
		m.passed(time.Now())
		if err := m.compare(s); err != nil {
			return fmt.Errorf("action %d: %w", i, err)
		}
	}
	s.Close()
	m.close()
	return m.compareLines(s)
}

func (m *auditModel) compare(s *auditSite) error {
	refused, takenOver := s.Keys()
	if refused != len(m.refusals) || takenOver != len(m.takeovers) {
		return fmt.Errorf("%d and %d keys are known, not %d and %d", refused, takenOver, len(m.refusals), len(m.takeovers))
	}
	if known := refused+takenOver > 0; s.Armed() != known {
		return fmt.Errorf("the timer runs: %t", s.Armed())
	}
	return m.compareLines(s)
}

func (m *auditModel) compareLines(s *auditSite) error {
	want := m.told
	m.told = nil
	if got := s.lines(); !slices.Equal(got, want) {
		return fmt.Errorf("told %q, not %q", got, want)
	}
	return nil
}

// The model knows what it is told to know: it agrees with an example.
func TestAuditModel_AgreesWithAnExample(t *testing.T) {
	m, now := &auditModel{keys: 1, addrs: 2, window: time.Minute}, time.Now()
	m.reject("a", now)
	m.reject("a", now)
	m.reject("b", now)
	require.Equal(t, []string{"a 1", "b 1", "a 1"}, m.told)
	require.Nil(t, m.takeOver("a", "1", now))
	require.Equal(t, []string{"1", "2"}, m.takeOver("a", "2", now))
}
