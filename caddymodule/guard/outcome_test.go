package guard

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/event"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// outcomes is an observer that notes what became of requests.
type outcomes struct {
	mu   sync.Mutex
	told []event.Outcome
}

// Observe implements event.Observer.
func (o *outcomes) Observe(e event.Event) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch e := e.(type) {
	case event.Admitted:
		if e.Superseding {
			o.told = append(o.told, event.OutcomeSuperseding)
		} else {
			o.told = append(o.told, event.OutcomeAdmitted)
		}
	case event.Untracked:
		o.told = append(o.told, event.OutcomeUntracked)
	case event.Refused:
		o.told = append(o.told, e.Outcome)
	}
}

// take returns what was told since it was called last.
func (o *outcomes) take() []event.Outcome {
	o.mu.Lock()
	defer o.mu.Unlock()
	told := o.told
	o.told = nil
	return told
}

// observed has the outcomes at the innermost guard of s noted.
func observed(s *site) *outcomes {
	o := new(outcomes)
	g := s.guards[len(s.guards)-1]
	g.observers = append(g.observers, o)
	return o
}

// Whatever a guard answers, or lets through, is told once.
func TestOutcome_IsToldOnceForEachRequest(t *testing.T) {
	ann := token("ann")
	for name, test := range map[string]struct {
		configure func(*Config)
		before    func(*site)
		edits     []func(*client)
		want      event.Outcome
	}{
		"admitted":                    {nil, nil, []func(*client){ann}, event.OutcomeAdmitted},
		"superseding":                 {nil, func(s *site) { s.open(ann) }, []func(*client){ann}, event.OutcomeSuperseding},
		"superseding, at the header":  {onlyAtHeader, func(s *site) { s.open(ann) }, []func(*client){ann}, event.OutcomeSuperseding},
		"no token":                    {nil, nil, nil, event.OutcomeUntracked},
		"a POST":                      {nil, nil, []func(*client){ann, method(http.MethodPost)}, event.OutcomeUntracked},
		"rejected":                    {rejecting, func(s *site) { s.open(ann) }, []func(*client){ann}, event.OutcomeRejected},
		"rejected, at the header":     {all(rejecting, onlyAtHeader), func(s *site) { s.open(ann) }, []func(*client){ann}, event.OutcomeRejected},
		"rejected with a status":      {withStatus, func(s *site) { s.open(ann) }, []func(*client){ann}, event.OutcomeRejected},
		"rejected, not asking":        {parking, func(s *site) { s.open(ann) }, []func(*client){ann, notAsking}, event.OutcomeRejected},
		"parked":                      {parking, func(s *site) { s.open(ann) }, []func(*client){ann}, event.OutcomeParked},
		"no room to park":             {parking, func(s *site) { parkMany(s, ann) }, []func(*client){ann}, event.OutcomeRejected},
		"damped":                      {damping, func(s *site) { s.fought() }, []func(*client){ann}, event.OutcomeDamped},
		"no token, which is required": {requiringToken, nil, nil, event.OutcomeUnauthorized},
		"no token, for a HEAD":        {requiringToken, nil, []func(*client){method(http.MethodHead)}, event.OutcomeUnauthorized},
		"no token, at the header":     {requiringToken, nil, []func(*client){notAsking}, event.OutcomeUnauthorized},
		"two tokens":                  {nil, nil, []func(*client){ann, query("token=bob")}, event.OutcomeUnauthorized},
		"a bad token":                 {verifying, nil, []func(*client){token("bad")}, event.OutcomeUnauthorized},
		"no key":                      {denyingMissing, nil, nil, event.OutcomeUnauthorized},
		"logged out": {
			all(verifying, loggingOut(LogoutToken)), func(s *site) { s.logOut(http.StatusOK, token("sub=ann")) },
			[]func(*client){token("sub=ann")}, event.OutcomeDenied,
		},
		"no keys to verify with": {
			func(g *Config) { g.Verifier = &plainVerifier{keyless: true} }, nil,
			[]func(*client){token("sub=ann")}, event.OutcomeUnavailable,
		},
		"draining": {
			nil, func(s *site) { s.guards[0].Zone.Drain(s.guards[0].Drain, s.guards[0].Logger) },
			[]func(*client){ann}, event.OutcomeDraining,
		},
	} {
		t.Run(name, func(t *testing.T) {
			if test.configure == nil {
				test.configure = func(*Config) {}
			}
			atSite(t, func(t *testing.T, s *site) {
				if test.before != nil {
					test.before(s)
				}
				o := observed(s)
				s.open(test.edits...)
				s.pass(mostHeldUp + time.Second)
				require.Equal(t, []event.Outcome{test.want}, o.take())
				s.leaveAll()
				require.Empty(t, o.take())
			}, test.configure)
		})
	}
}

// parkMany has as many wait for the key as may.
func parkMany(s *site, edit func(*client)) {
	for range 9 {
		s.open(edit)
	}
}

func TestOutcome_OfWhoShowsATombstoneIsEntombed(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		older := s.open(token("ann"))
		s.open(token("ann"))
		o := observed(s)
		requireStatus(t, s.open(token("ann"), field("Last-Event-ID", older.lastEvent(t).ID)), http.StatusNoContent)
		require.Equal(t, []event.Outcome{event.OutcomeEntombed}, o.take())
	})
}

func TestOutcome_OfALateAnswerIsOutasked(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		release := slowly(s)
		s.open(token("ann"), named("slow"))
		s.pass(time.Millisecond)
		s.open(token("ann"))
		o := observed(s)
		release()
		require.Equal(t, []event.Outcome{event.OutcomeOutasked}, o.take())
	})
}

// Whoever leaves before the answer is none of those who were refused.
func TestOutcome_OfWhoLeavesIsNone(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		release := slowly(s)
		s.open(token("ann"))
		o := observed(s)
		slow := s.open(token("ann"), named("slow"))
		slow.leave()
		release()
		require.Empty(t, o.take())
	}, all(rejecting, onlyAtHeader))
}

func TestOutcome_OfWhatIsNoStreamIsNone(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		s.backend.answer = answering(http.StatusOK, "application/json", "{}")
		o := observed(s)
		s.open(token("ann"))
		require.Empty(t, o.take())
	})
}

func TestOutcome_OfWhoLeavesWhileHeldUpIsNone(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		id := s.entombedClient(token("ann"))
		s.leaveAll()
		o := observed(s)
		leaves := s.open(token("ann"), field("Last-Event-ID", id))
		leaves.leave()
		s.settle()
		require.True(t, leaves.ends())
		require.Empty(t, o.take())
	}, tended)
}

// uncommitting is a registry that takes reserved places back.
type uncommitting struct {
	registry.Registry
	why error
}

func (u uncommitting) Admit(ctx context.Context, phase registry.Phase, c registry.Consent, asks []registry.Ask, leaving []registry.StreamID) ([]registry.Admission, error) {
	admissions, err := u.Registry.Admit(ctx, phase, c, asks, leaving)
	for i := range admissions {
		if admissions[i].Place != nil {
			admissions[i].Place = uncommittedPlace{admissions[i].Place, u.why}
		}
	}
	return admissions, err
}

type uncommittedPlace struct {
	registry.Place
	why error
}

func (p uncommittedPlace) Commit(context.Context) ([]registry.Victim, error) {
	p.Leave(registry.Keep{})
	return nil, p.why
}

func TestOutcome_OfAPlaceThatIsLostBeforeItIsTaken(t *testing.T) {
	for want, why := range map[event.Outcome]error{
		event.OutcomeDenied:   registry.ErrDenied,
		event.OutcomeOutasked: registry.ErrOutasked,
		// Who is not counted does not pass.
		event.OutcomeUnavailable: fmt.Errorf("committing a place: %w", registry.ErrAway),
	} {
		t.Run(string(want), func(t *testing.T) {
			atSite(t, func(t *testing.T, s *site) {
				z := s.guards[1].Zone
				kept := z.Registry
				z.Registry = uncommitting{kept, why}
				o := observed(s)
				c := s.open(in("books", "ann"))
				require.True(t, c.ends())
				require.Equal(t, []event.Outcome{want}, o.take())
				z.Registry = kept
			}, perStore(limited(9)), perUser())
		})
	}
}
