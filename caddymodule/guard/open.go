package guard

import (
	"cmp"
	"errors"
	"net/http"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/sse-guard/sse-guard/caddymodule/event"
	"github.com/sse-guard/sse-guard/caddymodule/eventstream"
	"github.com/sse-guard/sse-guard/caddymodule/reason"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
	"github.com/sse-guard/sse-guard/caddymodule/stream"
)

// terms are those of a stream that is to hold its key.
func (q *request) terms() stream.Terms {
	h, g := q.holder, q.guard
	if q.claims != nil {
		if !q.claims.Expires.IsZero() {
			h.Expires = q.claims.Expires.Add(g.Leeway)
		}
		if q.verified() && g.OnExpiry == ExpiryRenew {
			h.Session = registry.ID(q.claims.Session)
		}
	}
	t := stream.Terms{Notice: noticeOf(q), ForgetID: len(tombstones(q.r)) > 0}
	if q.rule().Policy == registry.Reject && !q.yielding {
		t.Keep = g.Reserve
	}
	return t
}

// open makes the request's response a stream, and lists it: from now on it may be
// ended.
func (q *request) open(t stream.Terms) {
	q.holder.Since = time.Now()
	t.Holder = q.holder
	t.About = q.about()
	t.Connection = q.connection()
	t.Gone = q.guard.Zone.Forget
	s := q.response.NewStream(t)
	if !t.Untracked {
		s.Renew(q.guard.deadline(q.claims))
	}
	q.guard.Zone.Enter(s)
}

// Opened implements stream.Gate: the stream's header is on its way.
func (q *request) Opened() {
	q.entry.forget()
	q.noteSent(q.response.Header())
	s, z := q.response.Stream(), q.guard.Zone
	q.chain.commit(q.r.Context(), q)
	err := q.verdict.uncommitted
	q.leaveArrivals() // whoever logs the token out from now on finds the holder
	switch {
	case errors.Is(err, registry.ErrDenied):
		q.tellRefused(event.OutcomeDenied)
		s.End(registry.Ending{Reason: reason.Logout})
		return
	case errors.Is(err, registry.ErrOutasked):
		q.tellRefused(event.OutcomeOutasked)
		s.End(registry.Ending{Reason: reason.Superseded})
		return
	case errors.Is(err, registry.ErrNotReserved), errors.Is(err, errPlaceLost): // it has ended, or is about to
		q.guard.Logger.Debug("stream was over before it was admitted", q.guard.zoneField(), zap.Error(err))
		return
	case err != nil: // who does not hold the key must not pass
		q.guard.Logger.Log(registryFailed(err), "asking the registry", q.guard.zoneField(), zap.Error(err))
		q.tellRefused(event.OutcomeUnavailable)
		s.End(registry.Ending{Reason: reason.Fenced})
		return
	}
	if q.arrival.loggedOut.Load() {
		s.End(registry.Ending{Reason: reason.Logout}) // who did it may not have found a holder yet
	}
	if z.IsDraining() {
		s.End(registry.Ending{Reason: reason.Shutdown}) // the drain may not have seen it
	}
	if !q.tracked() {
		q.tellUntracked()
		return
	}
	q.held = true
	q.noteHeld()
	z.Sessions.Add(q.holder, s)
	q.tell(event.Admitted{Stream: q.self(), Superseding: q.supersedes})
}

// warnIfEncoded says once that this guard's upstream compresses streams.
func (g *Guard) warnIfEncoded(h http.Header) {
	if ce := h.Get("Content-Encoding"); ce != "" && ce != "identity" {
		g.warnEncoded.Do(func() {
			g.Logger.Warn("the upstream compresses event streams: they are ended without an event; let it send them uncompressed",
				g.zoneField(), zap.String("content_encoding", ce))
		})
	}
}

// noticeOf returns what appends what the client is told when its stream ends: an event,
// or only when it is to come back, or nothing. Others will call it, while the
// handlers behind the guard run: placeholders, whose values those may change, are
// replaced now.
func noticeOf(q *request) func(dst []byte, e registry.Ending, lastEventID string) []byte {
	messages := messagesOf(q)
	return func(dst []byte, e registry.Ending, lastEventID string) []byte {
		m := e.Reason.Meaning()
		after := q.guard.returnAfter(m.Return)
		if !m.Event() {
			return appendRetry(dst, after)
		}
		id := q.entomb(e.Reason)
		if m.Return == reason.AtOnce && id == "" {
			after = 0 // there is nothing to show
		}
		return q.guard.appendNotice(dst, stream.Notice{
			Reason:      e.Reason,
			Message:     cmp.Or(e.Message, messages[e.Reason]),
			Tombstone:   id,
			Retry:       after,
			LastEventID: lastEventID,
		})
	}
}

// messagesOf are the guard's own messages, for this request.
func messagesOf(q *request) map[reason.Reason]string {
	if len(q.guard.Messages) == 0 {
		return nil
	}
	messages := make(map[reason.Reason]string, len(q.guard.Messages))
	for r := range q.guard.Messages {
		messages[r] = messageOf(q, r)
	}
	return messages
}

// messageOf is the guard's own message of an ending, for this request; empty: there is
// none, or nothing is left of it.
func messageOf(q *request, r reason.Reason) string {
	template := q.guard.Messages[r]
	if !strings.Contains(template, "{") {
		return template
	}
	return strings.TrimSpace(q.env.Expand(template, q.placeholder))
}

// returnAfter is when a client is to come back; 0: it is not told.
func (g *Guard) returnAfter(r reason.Return) time.Duration {
	switch r {
	case reason.Soon:
		return stream.Spread(reason.SoonAtMost)
	case reason.Drained:
		if g.Zone.IsDraining() {
			return g.Zone.DrainReturn()
		}
	case reason.Later:
		return g.Retry
	case reason.AtOnce:
		return reason.AtOnceIs
	case reason.Untold:
	}
	return 0
}

// appendRetry appends when the client is to come back, as the last line of all.
func appendRetry(dst []byte, after time.Duration) []byte {
	if after <= 0 {
		return dst
	}
	return eventstream.AppendRetry(dst, after)
}

// appendNotice appends n under the name that the guard gives it.
func (g *Guard) appendNotice(dst []byte, n stream.Notice) []byte {
	n.Name = g.Names[n.Reason]
	n.Time = time.Now()
	b, err := n.Append(dst)
	if err != nil {
		g.Logger.Error("an event could not be written",
			g.zoneField(), zap.String("reason", string(n.Reason)), zap.Error(err))
	}
	return b
}
