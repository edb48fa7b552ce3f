package guard

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/sse-guard/sse-guard/caddymodule/event"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// diary is a registry that writes down what it is asked. What is Denied is asked
// of this process, and not written down.
type diary struct {
	registry.Registry
	calls *[]string
}

func (d diary) note(what string) { *d.calls = append(*d.calls, what) }

func (d diary) Admit(ctx context.Context, phase registry.Phase, consent registry.Consent, asks []registry.Ask, leaving []registry.StreamID) ([]registry.Admission, error) {
	d.note([]string{"early", "header", "reserve"}[phase])
	admissions, err := d.Registry.Admit(ctx, phase, consent, asks, leaving)
	for i := range admissions {
		if p := admissions[i].Place; p != nil {
			admissions[i].Place = diaryPlace{p, d}
		}
	}
	return admissions, err
}

func (d diary) End(ctx context.Context, sel registry.Selector, e registry.Ending) (registry.Ended, error) {
	d.note("end")
	return d.Registry.End(ctx, sel, e)
}

func (d diary) Find(ctx context.Context, sel registry.Selector, cursor string, limit int) ([]*registry.Holder, string, error) {
	d.note("find")
	return d.Registry.Find(ctx, sel, cursor, limit)
}

func (d diary) Wait(ctx context.Context, ask registry.Ask) (registry.Waiter, error) {
	d.note("wait")
	return d.Registry.Wait(ctx, ask)
}

func (d diary) Each(ctx context.Context, f func(registry.Node)) error {
	d.note("each")
	return d.Registry.Each(ctx, f)
}

type diaryPlace struct {
	registry.Place
	in diary
}

func (p diaryPlace) Commit(ctx context.Context) ([]registry.Victim, error) {
	p.in.note("commit")
	return p.Place.Commit(ctx)
}

// Each call of a registry may go over a network, and is waited for.
func TestCalls_OfTheRegistryPerFlow(t *testing.T) {
	json := answering(http.StatusOK, "application/json", "{}")
	newcomer := func(s *site) { require.Equal(t, hello, s.open(token("ann")).text()) }
	takeover := func(s *site) { newcomer(s); newcomer(s) }
	back := func(after time.Duration, edits ...func(*client)) func(*site) {
		return func(s *site) {
			id := s.entombedClient(token("ann"))
			if after > 0 {
				s.leaveAll()
				s.pass(after)
			}
			calls := s.guards[0].Zone.Registry.(diary).calls
			*calls = nil
			s.open(append(edits, token("ann"), field("Last-Event-ID", id))...)
		}
	}
	notStream := func(edits ...func(*client)) func(*site) {
		return func(s *site) {
			s.backend.answer = json
			require.Equal(t, "{}", s.open(append(edits, token("sub=ann"))...).text())
		}
	}
	for name, test := range map[string]struct {
		flow   func(*site)
		want   []string
		guards []func(*Config)
	}{
		"a stream":                         {newcomer, []string{"early", "header"}, nil},
		"a stream, nobody asked for it":    {func(s *site) { s.open(token("ann"), notAsking) }, []string{"header"}, nil},
		"a takeover":                       {takeover, []string{"early", "header", "early", "header"}, nil},
		"a takeover at the header":         {takeover, []string{"header", "header"}, []func(*Config){onlyAtHeader}},
		"a verified token":                 {func(s *site) { s.open(token("sub=ann")) }, []string{"early", "header"}, []func(*Config){verifying}},
		"a refused newcomer":               {func(s *site) { newcomer(s); s.open(token("ann")) }, []string{"early", "header", "early"}, []func(*Config){rejecting}},
		"a tombstone of a full key":        {back(0), []string{"early"}, nil},
		"one, nobody asks for a stream":    {back(0, notAsking), []string{"early"}, nil},
		"one, decided at the header":       {back(0), []string{"early"}, []func(*Config){onlyAtHeader}},
		"a tombstone of a free key":        {back(time.Minute), []string{"early", "header"}, nil},
		"no stream":                        {notStream(notAsking), nil, nil},
		"no stream, asked for one":         {notStream(), []string{"early"}, nil},
		"no stream, with a verified token": {notStream(notAsking), nil, []func(*Config){verifying}},
		"no stream, by a method":           {notStream(method(http.MethodPost)), nil, []func(*Config){verifying}},
		"without a token":                  {func(s *site) { s.open() }, nil, nil},
		"a stream's end":                   {func(s *site) { s.open(token("ann")).leave(); s.settle() }, []string{"early", "header"}, nil},
		"two guards of one zone": {
			func(s *site) { s.guards[1].Zone = s.guards[0].Zone; newcomer(s) },
			[]string{"reserve", "commit", "commit"},
			[]func(*Config){all(onlyAtHeader, keyedBy("shop")), all(onlyAtHeader, keyedBy("{sse_guard.token}"))},
		},
		"two guards of one zone and key": {
			func(s *site) { s.guards[1].Zone = s.guards[0].Zone; newcomer(s) },
			[]string{"header"},
			[]func(*Config){onlyAtHeader, onlyAtHeader},
		},
		"two guards of one zone and key, nobody asked for a stream": {
			func(s *site) {
				s.guards[1].Zone = s.guards[0].Zone
				s.open(token("ann"), notAsking)
				require.Equal(t, 1, s.guards[0].Zone.Registry.(diary).Registry.(byValue).Len())
			},
			[]string{"header"},
			[]func(*Config){func(*Config) {}, func(*Config) {}},
		},
		"two registries": {
			newcomer,
			[]string{"early", "reserve", "reserve", "commit", "commit"}, // the outer zone says whom it has to end
			[]func(*Config){all(onlyAtHeader, keyedBy("shop")), all(onlyAtHeader, keyedBy("{sse_guard.token}"))},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var calls []string
			guards := test.guards
			if guards == nil {
				guards = []func(*Config){func(*Config) {}}
			}
			for i, configure := range guards {
				guards[i] = all(configure, func(g *Config) { g.Zone.Registry = diary{g.Zone.Registry, &calls} })
			}
			atSite(t, func(_ *testing.T, s *site) { test.flow(s) }, guards...)
			require.Equal(t, test.want, slices.Clone(calls))
		})
	}
}

// slow is an observer that takes a minute over takeovers.
type slow struct{}

func (slow) Observe(e event.Event) {
	switch e.(type) {
	case event.Superseded, event.Ended:
		<-time.After(time.Minute)
	}
}

func TestObserver_ThatIsSlowHoldsUpNobodyElse(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		g := s.guards[0]
		g.observers = append(g.observers, slow{})
		older := s.open(token("ann"))
		s.send(token("ann")) // its observer is at it
		s.settle()
		require.Contains(t, older.text(), "DUPLICATED_CONNECTION", "it was told")
		other := s.open(token("bob"))
		require.Equal(t, hello, other.text())
		s.pass(16 * time.Second)
		require.Equal(t, hello+beat, other.text(), "others are looked after")
		require.Equal(t, 1, s.holders(0), "ann's newcomer waits for its observer")
	}, tended)
}

// What is no stream is not asked who it is, and builds nothing.
func TestPass_AllocatesLittle(t *testing.T) {
	g := New(plainConfig(t, zap.NewNop()))
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/api?page=2", nil)
	r.Header.Set("Authorization", "Bearer "+strings.Repeat("token", 100))
	r.Header.Set("Accept", "application/json")
	r.Body = io.NopCloser(r.Body) // as Caddy does, also where there is none
	handler := func(w http.ResponseWriter, _ *http.Request) error {
		w.Header().Set("Content-Type", "application/json")
		_, err := io.WriteString(w, "{}")
		return err
	}
	w := &discard{http.Header{"Server": {"Caddy"}}}
	plain := testing.AllocsPerRun(100, func() { _ = handler(w, r) })
	env := fakeEnv{r}
	guarded := testing.AllocsPerRun(100, func() { _ = g.Serve(w, r, handler, env) })
	require.LessOrEqual(t, guarded-plain, 4.0)
}

type discard struct{ header http.Header }

func (d *discard) Header() http.Header       { return d.header }
func (*discard) WriteHeader(int)             {}
func (*discard) Write(p []byte) (int, error) { return len(p), nil }
