package guard

import (
	"encoding/json"
	"maps"
	"math"
	"net/http"
	"strconv"

	"github.com/sse-guard/sse-guard/caddymodule/event"
	"github.com/sse-guard/sse-guard/caddymodule/eventstream"
	"github.com/sse-guard/sse-guard/caddymodule/reason"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
	"github.com/sse-guard/sse-guard/caddymodule/stream"
)

// answer writes the refusal. Guards further out let it through as it is.
func (f *refusal) answer(q *request, w http.ResponseWriter) error {
	q.chain.answering = true
	q.letRead(w.Header())
	maps.Copy(w.Header(), f.header)
	if f.retry == 0 {
		f.retry = q.guard.Retry
	}
	if f.temporary && q.asks && q.guard.OnReject != RejectStatus {
		return f.answerStream(q, w) // it may be parked
	}
	q.tellRefused(f.outcome)
	switch {
	case f.status == http.StatusNoContent:
		w.Header().Set("Cache-Control", "no-store")
		w.WriteHeader(f.status)
		return nil
	case f.reason == reason.Superseded && q.asks:
		stream.SetHeader(w.Header())
		w.WriteHeader(http.StatusOK)
		_, _ = w.Write(noticeOf(q)(nil, registry.Ending{Reason: f.reason}, "")) // a client that left needs none
		return nil
	default:
		return f.answerStatus(w)
	}
}

// tellRefused tells of an answer that somebody hears.
func (q *request) tellRefused(o event.Outcome) {
	q.refusedAs = o
	if o != "" {
		q.tell(event.Refused{Client: q.self(), Outcome: o})
	}
}

// answerStream answers with a stream of the guard's own.
func (f *refusal) answerStream(q *request, w http.ResponseWriter) error {
	parks := f.reason == reason.Parked || f.reason != "" && q.guard.OnReject == RejectPark
	if parks && !q.yielding { // who yields takes nobody's turn
		if f.park(q, w) {
			return nil
		}
	}
	q.tellRefused(f.outcome)
	var body []byte
	if f.reason != "" {
		body = q.guard.appendNotice(nil, stream.Notice{Reason: f.reason, Message: messageOf(q, f.reason), Retry: f.retry})
	} else {
		body = eventstream.AppendRetry(nil, f.retry)
	}
	stream.SetHeader(w.Header())
	w.WriteHeader(http.StatusOK)
	q.noteSent(w.Header())
	_, _ = w.Write(body) // a client that left needs no refusal
	if !q.guard.Stream.FinishAll {
		stream.Abort(w, q.r)
	}
	return nil
}

// problem is an RFC 9457 problem document. Its type is about:blank: the
// status and code say it all.
type problem struct {
	Title  string        `json:"title"`
	Status int           `json:"status"`
	Detail string        `json:"detail,omitempty"`
	Code   string        `json:"code,omitempty"`
	Reason reason.Reason `json:"reason,omitempty"`
	// Error is where the SDKs of language models look for what to tell.
	Error problemError `json:"error"`
}

type problemError struct {
	Type    string `json:"type"`
	Code    string `json:"code,omitempty"`
	Message string `json:"message"`
}

func (f *refusal) answerStatus(w http.ResponseWriter) error {
	body, err := json.Marshal(problem{
		Title:  f.title,
		Status: f.status,
		Detail: f.detail,
		Code:   f.reason.Meaning().Code,
		Reason: f.reason,
		Error:  problemError{Type: "sse_guard", Code: f.reason.Meaning().Code, Message: f.title + ". " + f.detail},
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
