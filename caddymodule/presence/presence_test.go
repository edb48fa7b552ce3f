package presence

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/identity"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// page is a stream, and what it was told.
type page struct {
	holder registry.Holder
	ending, opaque,
	stuck atomic.Bool

	mu   sync.Mutex // guards told
	told []string
}

func newPage() *page { return &page{holder: registry.Holder{ID: registry.NewStreamID()}} }

func (p *page) Holder() *registry.Holder { return &p.holder }
func (p *page) Framed() bool             { return !p.opaque.Load() }

func (p *page) State() registry.State {
	if p.ending.Load() {
		return registry.StateEnding
	}
	return registry.StateLive
}

func (p *page) Notify(event []byte) bool {
	if p.stuck.Load() {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.told = append(p.told, string(event))
	return true
}

// take returns what the page was told since it was called last.
func (p *page) take() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	told := p.told
	p.told = nil
	return told
}

// says is what a room of so many is told.
func says(room string, n int) string {
	return fmt.Sprintf("event: PRESENCE\ndata: {\"label\":\"room\",\"value\":%q,\"count\":%d}\n\n", room, n)
}

var secondly = Telling{Event: "PRESENCE", Interval: time.Second}

// rooms are groups in a synctest bubble.
type rooms struct{ *Groups }

func inRooms(t *testing.T, test func(*testing.T, rooms)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := rooms{New()}
		test(t, r)
		r.Close()
	})
}

func (r rooms) open(room string) *page {
	p := newPage()
	r.Enter(p, "room", room, secondly)
	return p
}

// end has a stream told to end, and gone a moment later.
func (r rooms) end(p *page) {
	p.ending.Store(true)
	r.Ending(p.holder.ID)
	r.Leave(p.holder.ID)
}

func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func TestPresence_IsToldToAllWhenItChanges(t *testing.T) {
	inRooms(t, func(t *testing.T, r rooms) {
		a := r.open("one")
		pass(settle)
		require.Equal(t, []string{says("one", 1)}, a.take(), "also to the first")
		pass(time.Minute)
		b, other := r.open("one"), r.open("two")
		pass(settle)
		require.Equal(t, []string{says("one", 2)}, a.take())
		require.Equal(t, []string{says("one", 2)}, b.take())
		require.Equal(t, []string{says("two", 1)}, other.take())
		pass(time.Minute)
		require.Empty(t, a.take(), "nothing has changed")
		r.end(a)
		pass(settle)
		require.Empty(t, a.take())
		require.Equal(t, []string{says("one", 1)}, b.take())
		require.Empty(t, other.take())
	})
}

func TestPresence_IsToldOnceInAnIntervalAndTheLastIsNeverLeftOut(t *testing.T) {
	inRooms(t, func(t *testing.T, r rooms) {
		a := r.open("one")
		pass(settle)
		require.Len(t, a.take(), 1)
		for range 100 {
			r.open("one")
			pass(45 * time.Millisecond)
		}
		told := a.take()
		require.Len(t, told, 4, "4.5 s: %q", told)
		pass(time.Second)
		require.Equal(t, []string{says("one", 101)}, a.take())
	})
}

// Who takes another's place does not count beside it, nor is anybody told who knows.
func TestPresence_OfATakeoverIsToldToTheNewcomerOnly(t *testing.T) {
	inRooms(t, func(t *testing.T, r rooms) {
		a, b := r.open("one"), r.open("one")
		pass(time.Minute)
		a.take()
		b.take()
		newer := r.open("one")
		b.ending.Store(true)
		r.Ending(b.holder.ID) // its client reads nothing, and it is not gone for long
		pass(settle)
		require.Equal(t, []string{says("one", 2)}, newer.take())
		pass(time.Minute)
		r.Leave(b.holder.ID)
		pass(time.Minute)
		require.Empty(t, a.take())
		require.Empty(t, b.take())
		require.Empty(t, newer.take())
	})
}

func TestPresence_OfOneResponseBehindTwoGuards(t *testing.T) {
	inRooms(t, func(t *testing.T, r rooms) {
		outer, inner := newPage(), newPage()
		outer.holder.ID = inner.holder.ID.Nth(0)
		inner.holder.ID = inner.holder.ID.Nth(1)
		r.Enter(inner, "room", "one", secondly)
		r.Enter(outer, "room", "one", secondly)
		pass(settle)
		require.Equal(t, []string{says("one", 1)}, outer.take())
		require.Empty(t, inner.take())
		r.end(inner)
		pass(time.Minute)
		require.Empty(t, outer.take(), "it is there")
		r.end(outer)
		pass(time.Minute)
		require.Empty(t, r.groups)
		require.Empty(t, r.seats)
		require.Zero(t, r.size.Load())
	})
}

func TestPresence_IsToldLaterToWhoTakesNothingIn(t *testing.T) {
	inRooms(t, func(t *testing.T, r rooms) {
		a, b := r.open("one"), r.open("one")
		b.stuck.Store(true)
		c := r.open("one")
		c.opaque.Store(true)
		pass(10 * time.Second)
		require.Equal(t, []string{says("one", 3)}, a.take(), "what can be told nothing counts all the same")
		require.Empty(t, b.take())
		b.stuck.Store(false)
		pass(time.Second)
		require.Equal(t, []string{says("one", 3)}, b.take())
		pass(10 * time.Second)
		require.Empty(t, c.take())
		require.Zero(t, r.due.Len(), "nothing is left to do")
	})
}

// The longest interval of a group counts, and each stream gets the event of its guard.
func TestPresence_OfStreamsOfTwoGuards(t *testing.T) {
	inRooms(t, func(t *testing.T, r rooms) {
		a, b := r.open("one"), newPage()
		r.Enter(b, "room", "one", Telling{"THERE", time.Minute})
		pass(settle)
		require.Equal(t, []string{says("one", 2)}, a.take())
		require.Contains(t, b.take()[0], "event: THERE\n")
		r.open("one")
		pass(59 * time.Second)
		require.Empty(t, a.take())
		pass(2 * time.Second)
		require.Equal(t, []string{says("one", 3)}, a.take())
	})
}

func TestPresence_ForgetsGroupsThatAreEmpty(t *testing.T) {
	inRooms(t, func(t *testing.T, r rooms) {
		var pages []*page
		for i := range 1000 {
			pages = append(pages, r.open(fmt.Sprint(i)))
		}
		pass(time.Minute)
		require.Len(t, r.groups, 1000)
		for _, p := range pages {
			r.end(p)
		}
		pass(time.Minute)
		require.Empty(t, r.groups)
		require.Empty(t, r.seats)
		require.Zero(t, r.due.Len())
		require.False(t, r.sweeper.Armed())
	})
}

// A label without a value makes no group.
func TestPresence_OfNothing(t *testing.T) {
	inRooms(t, func(t *testing.T, r rooms) {
		p := r.open("")
		pass(time.Minute)
		require.Empty(t, p.take())
		require.Empty(t, r.seats)
	})
}

// otherNodes are the other nodes of a zone.
type otherNodes struct {
	count     func(registry.ID) int
	changed   func([]registry.ID)
	told      []registry.ID
	elsewhere atomic.Int64
}

func (o *otherNodes) Group(count func(registry.ID) int, changed func([]registry.ID)) {
	o.count, o.changed = count, changed
}
func (o *otherNodes) GroupChanged(groups ...registry.ID) { o.told = append(o.told, groups...) }
func (o *otherNodes) Elsewhere(registry.ID) int          { return int(o.elsewhere.Load()) }

func TestPresence_CountsStreamsOfOtherNodes(t *testing.T) {
	inRooms(t, func(t *testing.T, r rooms) {
		o := new(otherNodes)
		r.Share(o)
		hash, _ := identity.Key("room", "one")
		one := registry.ID(hash)
		a, b := r.open("one"), r.open("one")
		require.Equal(t, []registry.ID{one, one}, o.told)
		require.Equal(t, 2, o.count(one))
		require.Zero(t, o.count(registry.ID{}))
		o.elsewhere.Store(3)
		pass(settle)
		require.Equal(t, []string{says("one", 5)}, a.take())
		pass(time.Minute)
		o.elsewhere.Store(1)
		o.changed([]registry.ID{one, {}})
		pass(settle)
		require.Equal(t, []string{says("one", 3)}, a.take())
		b.take()
		// A takeover by another node: both changes are told as one.
		b.ending.Store(true)
		r.Ending(b.holder.ID)
		require.Equal(t, 1, o.count(one), "before the stream is gone")
		pass(settle / 2)
		o.elsewhere.Store(2)
		o.changed([]registry.ID{one})
		pass(time.Minute)
		require.Empty(t, slices.Concat(a.take(), b.take()))
	})
}

func TestPresence_TellsNothingOnceItIsClosed(t *testing.T) {
	inRooms(t, func(t *testing.T, r rooms) {
		p := r.open("one")
		r.Close()
		r.open("one")
		pass(time.Minute)
		require.Empty(t, p.take())
	})
}
