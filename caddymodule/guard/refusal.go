package guard

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"go.uber.org/zap"

	"github.com/sse-guard/sse-guard/caddymodule/event"
	"github.com/sse-guard/sse-guard/caddymodule/identity"
	"github.com/sse-guard/sse-guard/caddymodule/reason"
)

// refusal is why a request does not get its stream, and what it is told.
//
// A permanent one is a status, which closes an EventSource for good. A
// temporary one is a stream with a retry that is then cut (come_back) where a
// stream was asked for, so that the client comes back by itself.
type refusal struct {
	// outcome is what observers are told; empty: nothing, since nobody hears the answer.
	outcome   event.Outcome
	status    int
	title     string
	detail    string
	temporary bool
	reason    reason.Reason // of the event; empty: none
	header    http.Header
	retry     time.Duration // when to come back; 0: as the guard says
}

func differingTokens() *refusal {
	return &refusal{
		outcome: event.OutcomeUnauthorized,
		status:  http.StatusBadRequest,
		title:   "Two different tokens in one request",
		detail:  "Send the token in one place only (RFC 6750 section 2). If one of them is no token for this stream, name the right source with the guard's token option.",
	}
}

func missingToken() *refusal {
	return &refusal{
		outcome: event.OutcomeUnauthorized,
		status:  http.StatusUnauthorized,
		title:   "This stream needs a token",
		detail:  "The request carries no token where the guard looks for one.",
		header:  http.Header{"Www-Authenticate": {`Bearer realm="sse_guard"`}},
	}
}

// invalidToken is the answer to a token that is not accepted (RFC 6750 section 3.1).
func invalidToken(why string) *refusal {
	return &refusal{
		outcome: event.OutcomeUnauthorized,
		status:  http.StatusUnauthorized,
		title:   "The token is not accepted",
		detail:  why,
		header: http.Header{"Www-Authenticate": {
			`Bearer realm="sse_guard", error="invalid_token", error_description="` + why + `"`,
		}},
	}
}

// unverifiable is the answer to a token that the verifier did not accept.
func (g *Guard) unverifiable(err error) *refusal {
	if invalid, ok := errors.AsType[*identity.InvalidTokenError](err); ok {
		f := invalidToken(invalid.Why)
		if errors.Is(err, errLoggedOut) {
			f.outcome = event.OutcomeDenied
		}
		return f
	}
	g.Logger.Debug("a token could not be verified", g.zoneField(), zap.Error(err))
	return unavailable()
}

// missingKey is the answer to a request whose key has an empty part.
func (q *request) missingKey() *refusal {
	f := &refusal{
		outcome: event.OutcomeUnauthorized,
		status:  http.StatusForbidden,
		title:   "This stream needs an identity that the request lacks",
		detail:  "The request has no token, by which streams are counted.",
	}
	if q.lacks != "" {
		f.detail = fmt.Sprintf("The part %s of the key that streams are counted by is empty.", q.lacks)
	}
	return f
}

// stayAway is the answer to a client that was told to stay away.
func stayAway() *refusal {
	return &refusal{outcome: event.OutcomeEntombed, status: http.StatusNoContent}
}

// unheard is f as the answer to a client that has left meanwhile.
func unheard(f *refusal) *refusal {
	f.outcome = ""
	return f
}

func rejected() *refusal {
	return &refusal{
		outcome:   event.OutcomeRejected,
		status:    http.StatusConflict,
		title:     "Another connection holds this stream already",
		detail:    "Close the other connection, or try again later.",
		temporary: true,
		reason:    reason.Rejected,
	}
}

// outasked is the answer to a request that was answered after one that asked later. It
// has lost its place as if it had got it first, so its client is told the same.
func outasked() *refusal {
	return &refusal{
		outcome: event.OutcomeOutasked,
		status:  http.StatusConflict,
		title:   "A newer connection holds this stream",
		detail:  "This request was answered after one that was sent later.",
		reason:  reason.Superseded,
	}
}

// parked is the answer to a client that takes the key back again and again.
func parked() *refusal {
	return &refusal{
		outcome:   event.OutcomeDamped,
		status:    http.StatusConflict,
		title:     "Another connection holds this stream",
		detail:    "This client took the stream back again and again. It gets it when the other connection leaves.",
		temporary: true,
		reason:    reason.Parked,
	}
}

// unavailable is the temporary refusal of a guard that cannot tell.
func unavailable() *refusal {
	return &refusal{
		outcome:   event.OutcomeUnavailable,
		status:    http.StatusServiceUnavailable,
		title:     "Streams cannot be admitted right now",
		detail:    "Try again later.",
		temporary: true,
	}
}
