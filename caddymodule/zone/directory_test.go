package zone

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/event"
	"github.com/sse-guard/sse-guard/caddymodule/reason"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
	"github.com/sse-guard/sse-guard/caddymodule/registry/memory"
	"github.com/sse-guard/sse-guard/caddymodule/stream"
)

// house is a zone with streams in it. It runs in a synctest bubble.
type house struct {
	*Zone
	t   *testing.T
	cfg stream.Config
	// about is what is known of the streams that are opened from now on.
	about registry.About
	// id is that of the next stream; zero: one of its own.
	id registry.StreamID

	// mu guards told.
	mu   sync.Mutex
	told []event.Event
}

func inZone(t *testing.T, test func(*testing.T, *house)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		z, err := New("zone", func(n registry.Node) (registry.Registry, error) { return memory.New(n), nil }, event.NoMetrics{})
		require.NoError(t, err)
		h := &house{Zone: z, t: t}
		z.Streams.observers = append(z.Streams.observers, h)
		h.cfg = stream.Config{EndTimeout: time.Second, MaxEventSize: 1 << 10, Wheel: z.Wheel}
		test(t, h)
		for _, s := range z.Streams.all() {
			s.End(registry.Ending{Reason: reason.Shutdown})
		}
		<-time.After(time.Second)
		require.Zero(t, z.Streams.Len())
		require.NoError(t, z.Close())
	})
}

// Observe implements event.Observer.
func (h *house) Observe(e event.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.told = append(h.told, e)
}

// guest is a response that is a stream, and the Gate that admits it.
type guest struct {
	house    *house
	holder   registry.Holder
	rec      *httptest.ResponseRecorder
	r        *http.Request
	response stream.Response
	leave    context.CancelFunc // has its client leave
	finish   chan struct{}      // closed: the upstream has finished
	done     chan struct{}

	untracked, passes, refuses bool
}

// open opens a stream of key, which sends one event and lives until it ends.
func (h *house) open(key string) *guest {
	g := h.ready(key)
	return g.relay(g.hello)
}

// openTo opens a stream of key to which serve writes.
func (h *house) openTo(key string, serve http.HandlerFunc) *guest { return h.ready(key).relay(serve) }

func (h *house) ready(key string) *guest {
	g := &guest{house: h, rec: httptest.NewRecorder(), finish: make(chan struct{}), done: make(chan struct{})}
	g.holder = registry.Holder{ID: cmp.Or(h.id, registry.NewStreamID()), Key: id(key), Addr: key, Since: time.Now()}
	ctx, leave := context.WithCancel(h.t.Context())
	g.r, g.leave = httptest.NewRequestWithContext(ctx, http.MethodGet, "/", nil), leave
	g.response.Init(g.rec, g.r, g, &h.cfg)
	return g
}

func (g *guest) hello(w http.ResponseWriter, r *http.Request) {
	_, _ = w.Write([]byte("data: hello\n\n"))
	select {
	case <-g.finish:
	case <-r.Context().Done():
	}
}

func (g *guest) relay(serve http.HandlerFunc) *guest {
	go func() {
		defer close(g.done)
		defer g.leave()
		defer func() {
			if p := recover(); p != nil {
				require.Equal(g.house.t, http.ErrAbortHandler, p)
			}
		}()
		_, _ = g.response.Relay(g.r.Context(), func(w http.ResponseWriter, r *http.Request) error {
			w.Header().Set("Content-Type", "text/event-stream")
			serve(w, r)
			return nil
		})
	}()
	synctest.Wait()
	return g
}

// Judge implements stream.Gate.
func (g *guest) Judge(int, http.Header) stream.Verdict {
	g.house.Enter(g.response.NewStream(stream.Terms{
		Holder:    &g.holder,
		About:     g.house.about,
		Untracked: g.untracked,
		Notice: func(dst []byte, e registry.Ending, _ string) []byte {
			return fmt.Appendf(dst, "data: %s\n\n", e.Reason)
		},
		Gone: g.house.Forget,
	}))
	switch {
	case g.passes:
		return stream.Pass
	case g.refuses:
		return stream.Refuse
	default:
		return stream.Admit
	}
}

// Opened implements stream.Gate.
func (*guest) Opened() {}

func TestDirectory_EndsAStreamByItsID(t *testing.T) {
	inZone(t, func(t *testing.T, h *house) {
		g, other := h.open("a"), h.open("b")
		h.Streams.End(registry.NewStreamID(), registry.Ending{Reason: reason.Logout}) // nobody's
		h.Streams.End(g.holder.ID, registry.Ending{Reason: reason.Logout})
		<-g.done
		require.Equal(t, "data: hello\n\ndata: logout\n\n", g.rec.Body.String())
		require.Equal(t, 1, h.Streams.Len())
		require.Nil(t, h.Streams.find(g.holder.ID))
		require.NotNil(t, h.Streams.find(other.holder.ID))
		require.Empty(t, h.told, "nobody lost a key to another")
	})
}

func TestDirectory_TellsWhoLostTheKeyToWhom(t *testing.T) {
	inZone(t, func(t *testing.T, h *house) {
		for i, why := range []reason.Reason{reason.Superseded, reason.Replaced} {
			g, by := h.open("a"), registry.NewStreamID()
			h.Streams.End(g.holder.ID, registry.Ending{Reason: why, For: by})
			<-g.done
			require.Len(t, h.told, i+1)
			lost := h.told[i].(event.Lost)
			require.Same(t, &g.holder, lost.Loser)
			require.Equal(t, by, lost.To)
			require.False(t, lost.Gone(), "its client was told")
		}
	})
}

// Whoever is told keeps that for minutes, and for many streams.
func TestDirectory_WhatItTellsOfALossKeepsNothingOfTheStream(t *testing.T) {
	inZone(t, func(t *testing.T, h *house) {
		writer, gone := h.lose()
		<-time.After(2 * time.Minute)
		runtime.GC()
		require.Nil(t, writer.Value())
		require.False(t, gone())
	})
}

// lose has a stream superseded, and returns its writer, and what was told of the loss.
func (h *house) lose() (writer weak.Pointer[httptest.ResponseRecorder], gone func() bool) {
	g := h.open("a")
	h.Streams.End(g.holder.ID, registry.Ending{Reason: reason.Superseded})
	<-g.done
	gone = h.told[0].(event.Lost).Gone
	h.told = nil
	return weak.Make(g.rec), gone
}

func TestDirectory_ListsInPages(t *testing.T) {
	inZone(t, func(t *testing.T, h *house) {
		var want []registry.StreamID
		for i := range 100 {
			g := h.open([]string{"a", "b"}[i%2])
			if i%2 == 0 {
				want = append(want, g.holder.ID)
			}
		}
		slices.SortFunc(want, registry.StreamID.Compare)

		var got []registry.StreamID
		pages, cursor := 0, ""
		for {
			rows, next, err := h.Streams.List(t.Context(), of(registry.Selector{Key: id("a")}), cursor, 7)
			require.NoError(t, err)
			for _, row := range rows {
				require.Equal(t, registry.StateLive, row.State)
				require.EqualValues(t, 1, row.Events)
				got = append(got, row.Holder.ID)
			}
			pages++
			if cursor = next; cursor == "" {
				break
			}
		}
		require.Equal(t, want, got)
		require.Equal(t, 8, pages)

		all, next, err := h.Streams.List(t.Context(), of(registry.Selector{All: true}), "", 1000)
		require.NoError(t, err)
		require.Len(t, all, 100)
		require.Empty(t, next)
		one, _, _ := h.Streams.List(t.Context(), of(registry.Selector{ID: want[3]}), "", 10)
		require.Len(t, one, 1)
		for _, none := range []registry.Selector{{}, {Key: id("c")}, {ID: want[3], Key: id("b")}} {
			rows, _, err := h.Streams.List(t.Context(), of(none), "", 10)
			require.NoError(t, err)
			require.Empty(t, rows)
		}
		_, _, err = h.Streams.List(t.Context(), of(registry.Selector{All: true}), "no cursor", 10)
		require.ErrorContains(t, err, `"no cursor" is no cursor`)
		_, _, err = h.Streams.List(t.Context(), of(registry.Selector{All: true}), "", 0)
		require.ErrorContains(t, err, "the limit is 0")
	})
}

// of is the filter of nothing but a selector.
func of(sel registry.Selector) registry.Filter { return registry.Filter{Selector: sel} }

func TestDirectory_FiltersByWhatRowsShow(t *testing.T) {
	inZone(t, func(t *testing.T, h *house) {
		h.about = registry.About{Sub: "alice", Labels: registry.Labels{Names: []string{"room", "plan"}, Values: []string{"one", ""}}}
		a := h.open("a")
		<-time.After(time.Minute)
		h.about = registry.About{Sub: "bob", Labels: registry.Labels{Names: []string{"room", "plan"}, Values: []string{"two", "free"}}}
		b := h.open("b")
		key := id("a")
		for name, test := range map[string]struct {
			filter registry.Filter
			want   []*guest
		}{
			"nothing":              {},
			"state":                {registry.Filter{State: registry.StateLive}, []*guest{a, b}},
			"another state":        {registry.Filter{State: registry.StateParked}, nil},
			"user":                 {registry.Filter{Sub: "bob"}, []*guest{b}},
			"label":                {registry.Filter{Labels: map[string]string{"room": "one"}}, []*guest{a}},
			"labels":               {registry.Filter{Labels: map[string]string{"room": "two", "plan": "free"}}, []*guest{b}},
			"labels of several":    {registry.Filter{Labels: map[string]string{"room": "one", "plan": "free"}}, nil},
			"label that is not":    {registry.Filter{Labels: map[string]string{"mode": "x"}}, nil},
			"beginning of the key": {registry.Filter{KeyPrefix: key[:8]}, []*guest{a}},
			"age":                  {registry.Filter{Before: time.Now().Add(-time.Second)}, []*guest{a}},
			"one of another user":  {registry.Filter{Selector: registry.Selector{ID: a.holder.ID}, Sub: "bob"}, nil},
			"one":                  {registry.Filter{Selector: registry.Selector{ID: a.holder.ID}}, []*guest{a}},
		} {
			rows, _, err := h.Streams.List(t.Context(), test.filter, "", 10)
			require.NoError(t, err)
			var got, want []registry.StreamID
			for _, row := range rows {
				got = append(got, row.Holder.ID)
				require.NotEmpty(t, row.Node)
			}
			for _, g := range test.want {
				want = append(want, g.holder.ID)
			}
			require.ElementsMatch(t, want, got, name)
		}
	})
}

func TestDirectory_CountsByStateAndLabel(t *testing.T) {
	inZone(t, func(t *testing.T, h *house) {
		for _, room := range []string{"one", "two", "one", ""} {
			h.about.Labels = registry.Labels{Names: []string{"room"}, Values: []string{room}}
			h.open(room)
		}
		c, err := h.Streams.Count(t.Context())
		require.NoError(t, err)
		require.Equal(t, map[registry.State]int{registry.StateLive: 4}, c.States)
		require.Equal(t, map[string]map[string]int{"room": {"one": 2, "two": 1}}, c.Labels)
		require.Empty(t, c.Others)
	})
}

func TestKeepMost_SumsUpTheRest(t *testing.T) {
	counts := map[string]int{"a": 1, "b": 5, "c": 3, "d": 1}
	require.Equal(t, 2, keepMost(counts, 2))
	require.Equal(t, map[string]int{"b": 5, "c": 3}, counts)
	require.Zero(t, keepMost(counts, 2))
}

func TestDirectory_NotifiesBetweenEvents(t *testing.T) {
	inZone(t, func(t *testing.T, h *house) {
		g, other := h.open("a"), h.open("b")
		n, err := h.Streams.Notify(t.Context(), of(registry.Selector{Key: id("a")}), "MAINTENANCE", "at\nnoon")
		require.NoError(t, err)
		require.Equal(t, 1, n)
		synctest.Wait()
		_, err = h.Streams.Notify(t.Context(), of(registry.Selector{All: true}), "two\nlines", "x")
		require.Error(t, err, "that is no event's name")
		n, err = h.Streams.Notify(t.Context(), registry.Filter{}, "MAINTENANCE", "at noon")
		require.NoError(t, err)
		require.Zero(t, n, "nobody is named")
		require.Equal(t, "data: hello\n\nevent: MAINTENANCE\ndata: at\ndata: noon\n\n", g.rec.Body.String())
		require.Equal(t, "data: hello\n\n", other.rec.Body.String())
	})
}

// Guards that stand one behind the other have a stream each, and write to one client.
func TestDirectory_NotifiesAResponseOnce(t *testing.T) {
	inZone(t, func(t *testing.T, h *house) {
		outer := h.open("a")
		h.id = outer.holder.ID.Nth(1)
		inner := h.open("b")
		n, err := h.Streams.Notify(t.Context(), of(registry.Selector{All: true}), "HI", "you")
		require.NoError(t, err)
		require.Equal(t, 1, n)
		synctest.Wait()
		require.Contains(t, outer.rec.Body.String(), "HI")
		require.NotContains(t, inner.rec.Body.String(), "HI")
		n, err = h.Streams.Notify(t.Context(), of(registry.Selector{Key: id("b")}), "HI", "you")
		require.NoError(t, err)
		require.Equal(t, 1, n, "the key of either guard names it")
	})
}

func TestDirectory_ProbesNobodyThatItDoesNotHave(t *testing.T) {
	inZone(t, func(t *testing.T, h *house) {
		require.False(t, h.Streams.Probe(t.Context(), registry.NewStreamID(), time.Second), "it has left meanwhile")
	})
}
