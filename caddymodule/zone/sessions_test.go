package zone

import (
	"crypto/sha256"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

// id names something; the empty name is the zero ID.
func id(name string) registry.ID {
	if name == "" {
		return registry.ID{}
	}
	return sha256.Sum256([]byte(name))
}

// opened is a stream that notes when it is to end.
type opened struct {
	holder registry.Holder
	ends   time.Time
}

func (o *opened) Renew(until time.Time) { o.ends = until }

func newOpened(session string, ends time.Time) *opened {
	return &opened{registry.Holder{ID: registry.NewStreamID(), Session: id(session), Expires: ends}, ends}
}

func (o *opened) in(ss *Sessions) *opened {
	ss.Add(&o.holder, o)
	return o
}

func TestSessions_MoveEndsToLaterOnly(t *testing.T) {
	for name, test := range map[string]struct {
		until time.Time
		moved int
		ends  time.Time
	}{
		"later":   {noon.Add(2 * time.Hour), 1, noon.Add(2 * time.Hour)},
		"equal":   {noon.Add(time.Hour), 0, noon.Add(time.Hour)},
		"earlier": {noon, 0, noon.Add(time.Hour)},
		"never":   {time.Time{}, 1, time.Time{}},
	} {
		t.Run(name, func(t *testing.T) {
			var ss Sessions
			o := newOpened("ann", noon.Add(time.Hour)).in(&ss)
			other := newOpened("bob", noon.Add(time.Hour)).in(&ss)
			require.Equal(t, test.moved, ss.Renew(id("ann"), id("t2"), test.until))
			require.Equal(t, test.ends, o.ends)
			require.Equal(t, noon.Add(time.Hour), other.ends)
		})
	}
}

func TestSessions_KeepAStreamThatNeverExpires(t *testing.T) {
	var ss Sessions
	o := newOpened("ann", noon).in(&ss)
	require.Equal(t, 1, ss.Renew(id("ann"), id("t2"), time.Time{}))
	require.Zero(t, ss.Renew(id("ann"), id("t3"), noon.Add(time.Hour)), "nothing is later than never")
	require.Equal(t, []registry.StreamID{o.holder.ID}, ss.RenewedBy(id("ann"), id("t2")))
	ss.remove(&o.holder)
	require.Zero(t, ss.Len())
}

func TestSessions_KnowOnlyStreamsThatCanBeMoved(t *testing.T) {
	var ss Sessions
	newOpened("", noon).in(&ss)
	newOpened("ann", time.Time{}).in(&ss)
	require.Zero(t, ss.Len())
	require.Zero(t, ss.Renew(registry.ID{}, id("t"), noon.Add(time.Hour)))
}

func TestSessions_AreRenewedFromOneTokenToTheNext(t *testing.T) {
	var ss Sessions
	first := newOpened("ann", noon).in(&ss)
	require.Equal(t, 1, ss.Renew(id("ann"), id("t2"), noon.Add(time.Hour)))
	second := newOpened("ann", noon.Add(90*time.Minute)).in(&ss)
	require.Equal(t, []registry.StreamID{first.holder.ID}, ss.RenewedBy(id("ann"), id("t2")))
	require.Equal(t, 2, ss.Renew(id("ann"), id("t3"), noon.Add(2*time.Hour)))
	require.Equal(t, []registry.StreamID{first.holder.ID, second.holder.ID}, ss.RenewedBy(id("ann"), id("t3")))
	require.Empty(t, ss.RenewedBy(id("ann"), id("t2")))
	require.Empty(t, ss.RenewedBy(id("ann"), registry.ID{}))
}

// A wall clock's time compares with another's, whatever their monotonic readings.
func TestSessions_GoByTheWallClock(t *testing.T) {
	var ss Sessions
	o := newOpened("ann", time.Now()).in(&ss)
	require.Equal(t, 1, ss.Renew(id("ann"), id("t2"), time.Now().Add(time.Hour)))
	require.NotContains(t, o.ends.String(), "m=+")
}

// Sessions against a list that is searched from end to end.
func TestSessions_BehaveAsDescribed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var ss Sessions
		type entry struct {
			*opened
			by registry.ID
		}
		var model []*entry
		sessions, tokens := []string{"", "a", "b"}, []string{"t1", "t2", "t3"}
		drawTime := func(t *rapid.T) time.Time {
			if h := rapid.IntRange(0, 4).Draw(t, "hours"); h > 0 {
				return noon.Add(time.Duration(h) * time.Hour)
			}
			return time.Time{}
		}
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				o := newOpened(rapid.SampledFrom(sessions).Draw(t, "session"), drawTime(t)).in(&ss)
				if !o.holder.Session.IsZero() && !o.holder.Expires.IsZero() {
					model = append(model, &entry{opened: o})
				}
			},
			"remove": func(t *rapid.T) {
				if len(model) == 0 {
					return
				}
				i := rapid.IntRange(0, len(model)-1).Draw(t, "which")
				ss.remove(&model[i].holder)
				ss.remove(&model[i].holder)
				model = slices.Delete(model, i, i+1)
			},
			"renew": func(t *rapid.T) {
				session, token := id(rapid.SampledFrom(sessions).Draw(t, "session")), id(rapid.SampledFrom(tokens).Draw(t, "token"))
				until, want := drawTime(t), 0
				wantEnds := make(map[*entry]time.Time)
				for _, e := range model {
					wantEnds[e] = e.ends
					if e.holder.Session == session && !e.ends.IsZero() && (until.IsZero() || e.ends.Before(until)) {
						wantEnds[e], e.by = until, token
						want++
					}
				}
				require.Equal(t, want, ss.Renew(session, token, until))
				for e, ends := range wantEnds {
					require.Equal(t, ends, e.ends)
				}
			},
			"": func(t *rapid.T) {
				require.Equal(t, len(model), ss.Len())
				for _, session := range sessions {
					for _, token := range tokens {
						var want []registry.StreamID
						for _, e := range model {
							if e.holder.Session == id(session) && e.by == id(token) {
								want = append(want, e.holder.ID)
							}
						}
						require.Equal(t, want, ss.RenewedBy(id(session), id(token)))
					}
				}
			},
		})
	})
}
