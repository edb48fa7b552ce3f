package guard

import (
	"encoding/json"
	"errors"
	"maps"
	"math"
	"net/http"
	"strconv"
	"time"

	"go.uber.org/zap"

	"github.com/sse-guard/sse-guard/caddymodule/eventstream"
	"github.com/sse-guard/sse-guard/caddymodule/identity"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
	"github.com/sse-guard/sse-guard/caddymodule/stream"
)

// refusal is why a request does not get its stream, and what it is told.
//
// A permanent one is a status, which closes an EventSource for good. A
// temporary one is a stream with a retry and a clean end where a stream was
// asked for, so that the page comes back by itself.
type refusal struct {
	status    int
	title     string
	detail    string
	temporary bool
	reason    registry.Reason // of the event; empty: none
	header    http.Header
	retry     time.Duration // when to come back; 0: as the guard says
}

func differingTokens() *refusal {
	return &refusal{
		status: http.StatusBadRequest,
		title:  "Two different tokens in one request",
		detail: "Send the token in one place only (RFC 6750 section 2). If one of them is no token for this stream, name the right source with the guard's token option.",
	}
}

func missingToken() *refusal {
	return &refusal{
		status: http.StatusUnauthorized,
		title:  "This stream needs a token",
		detail: "The request carries no token where the guard looks for one.",
		header: http.Header{"Www-Authenticate": {`Bearer realm="sse_guard"`}},
	}
}

// invalidToken is the answer to a token that is not accepted (RFC 6750 section 3.1).
func invalidToken(why string) *refusal {
	return &refusal{
		status: http.StatusUnauthorized,
		title:  "The token is not accepted",
		detail: why,
		header: http.Header{"Www-Authenticate": {
			`Bearer realm="sse_guard", error="invalid_token", error_description="` + why + `"`,
		}},
	}
}

// unverifiable is the answer to a token that the verifier did not accept.
func (v *visit) unverifiable(err error) *refusal {
	if invalid, ok := errors.AsType[*identity.InvalidTokenError](err); ok {
		return invalidToken(invalid.Why)
	}
	v.guard.Logger.Debug("a token could not be verified", v.zone(), zap.Error(err))
	return unavailable()
}

func missingKey() *refusal {
	return &refusal{
		status: http.StatusForbidden,
		title:  "This stream needs an identity that the request lacks",
		detail: "A part of the key that streams are counted by is empty.",
	}
}

// entombed is the answer to a client that was told to stay away.
func entombed() *refusal { return &refusal{status: http.StatusNoContent} }

func rejected() *refusal {
	return &refusal{
		status:    http.StatusConflict,
		title:     "Another connection holds this stream already",
		detail:    "Close the other connection, or try again later.",
		temporary: true,
		reason:    registry.Rejected,
	}
}

// parked is the answer to a client that takes the key back again and again.
func parked() *refusal {
	return &refusal{
		status:    http.StatusConflict,
		title:     "Another connection holds this stream",
		detail:    "This client took the stream back again and again. It gets it when the other connection leaves.",
		temporary: true,
		reason:    registry.Parked,
	}
}

// draining is the answer while the server stops.
func (z *Zone) refusal() *refusal {
	f := unavailable()
	f.retry = spread(z.draining.window)
	return f
}

func (v *visit) unreachable(err error) *refusal {
	v.guard.Logger.Error("asking the registry", v.zone(), zap.Error(err))
	return unavailable()
}

// unavailable is the temporary refusal of a guard that cannot tell.
func unavailable() *refusal {
	return &refusal{
		status:    http.StatusServiceUnavailable,
		title:     "Streams cannot be admitted right now",
		detail:    "Try again later.",
		temporary: true,
	}
}

// answer writes the refusal. Guards further out let it through as it is.
func (v *visit) answer(w http.ResponseWriter, f *refusal) error {
	for o := v.outer; o != nil; o = o.outer {
		o.bypass = true
	}
	maps.Copy(w.Header(), f.header)
	if f.retry == 0 {
		f.retry = v.guard.Retry
	}
	switch {
	case f.status == http.StatusNoContent:
		w.Header().Set("Cache-Control", "no-store")
		w.WriteHeader(f.status)
		return nil
	case f.temporary && v.asks && v.guard.OnReject != RejectStatus:
		return v.answerStream(w, f)
	default:
		return v.answerStatus(w, f)
	}
}

const (
	// parkHeartbeat keeps proxies from closing a parked stream for idleness, where
	// the guard has no heartbeat of its own.
	parkHeartbeat = 15 * time.Second
	// parkReturn is the retry of a parked newcomer whose turn has come. The
	// browser keeps it for later reconnects too, so it is not shorter.
	parkReturn = 500 * time.Millisecond
)

// answerStream answers with a stream of the guard's own.
func (v *visit) answerStream(w http.ResponseWriter, f *refusal) error {
	if f.reason == registry.Parked || f.reason != "" && v.guard.OnReject == RejectPark {
		if v.park(w, f) {
			return nil
		}
	}
	var body []byte
	var err error
	if f.reason != "" {
		body = v.notice(nil, stream.Notice{Reason: f.reason, Retry: f.retry})
	} else if body, err = (eventstream.Event{Retry: f.retry}).Append(nil); err != nil {
		return err
	}
	stream.SetHeader(w.Header())
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write(body) // a client that left needs no refusal
	return nil
}

// park lets the newcomer wait for the key, as one that supersedes nobody. It
// reports false if too many wait already.
func (v *visit) park(w http.ResponseWriter, f *refusal) bool {
	g := v.guard
	v.waits = true
	waiter, ok := g.Zone.Registry.Wait(&v.stream, v.rule())
	if !ok {
		return false
	}
	heartbeat := g.Stream.Heartbeat
	if heartbeat == 0 {
		heartbeat = parkHeartbeat
	}
	stream.Park(w, v.r, stream.Parking{
		Notice:     v.notice(nil, stream.Notice{Reason: f.reason}),
		Waiter:     waiter,
		Free:       v.mayComeBack,
		Heartbeat:  heartbeat,
		Return:     parkReturn,
		Drain:      g.Zone.draining.began,
		Later:      spread(g.Drain.Window),
		Connection: v.env.Connection(),
		DeadAfter:  g.Stream.DeadAfter,
	})
	return true
}

// mayComeBack tells a parked newcomer to ask again: it would be admitted, or it is
// welcome no more and is to hear that.
func (v *visit) mayComeBack() bool {
	if v.denied() || v.claims != nil && v.guard.expired(v.claims) {
		return true
	}
	judgement, err := v.guard.Zone.Registry.Judge(v.r.Context(), &v.stream, v.rule())
	return err == nil && judgement.Admitted
}

// problem is an RFC 9457 problem document. Its type is about:blank: the
// status and code say it all.
type problem struct {
	Title  string          `json:"title"`
	Status int             `json:"status"`
	Detail string          `json:"detail,omitempty"`
	Code   string          `json:"code,omitempty"`
	Reason registry.Reason `json:"reason,omitempty"`
}

func (v *visit) answerStatus(w http.ResponseWriter, f *refusal) error {
	body, err := json.Marshal(problem{
		Title:  f.title,
		Status: f.status,
		Detail: f.detail,
		Code:   stream.Code(f.reason),
		Reason: f.reason,
	})
	if err != nil {
		return err
	}
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-store")
	if f.temporary {
		h.Set("Retry-After", strconv.Itoa(int(math.Ceil(f.retry.Seconds()))))
	}
	w.WriteHeader(f.status)
	_, _ = w.Write(append(body, '\n'))
	return nil
}

// Notice implements stream.Gate.
func (v *visit) Notice(dst []byte, e registry.Ending, lastEventID string) []byte {
	switch e.Reason {
	case registry.Dead:
		return dst // nobody listens
	case registry.MaxAge:
		return v.retry(dst, spread(maxAgeReturn))
	case registry.Shutdown:
		return v.retry(dst, spread(v.guard.Zone.draining.window))
	}
	return v.notice(dst, stream.Notice{
		Reason:      e.Reason,
		Tombstone:   v.entomb(e.Reason),
		LastEventID: lastEventID,
	})
}

// maxAgeReturn is when, at the latest, the client of a stream comes back that has
// lived for long enough.
const maxAgeReturn = 2 * time.Second

// retry appends when the client is to come back, and nothing else.
func (v *visit) retry(dst []byte, after time.Duration) []byte {
	b, err := (eventstream.Event{Retry: after}).Append(dst)
	if err != nil {
		return dst // there was no window
	}
	return b
}

// notice appends n under the name that the guard gives it.
func (v *visit) notice(dst []byte, n stream.Notice) []byte {
	n.Name = v.guard.Names[n.Reason]
	n.Time = time.Now()
	b, err := n.Append(dst)
	if err != nil {
		v.guard.Logger.Error("an event could not be written", v.zone(), zap.String("reason", string(n.Reason)), zap.Error(err))
	}
	return b
}
