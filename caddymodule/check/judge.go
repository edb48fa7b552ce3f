package check

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/reason"
)

// judge says what the streams show. The first thing that fits counts.
func (w *watch) judge() *Report {
	if w.noticed() {
		return w.judgeNotices()
	}
	last := w.streams[len(w.streams)-1]
	if w.stopped && (!last.answered() || last.isOpen()) {
		return &Report{Verdict: Unknown, Code: CodeStopped, Summary: "the check was stopped before anything was clear."}
	}
	if len(w.streams) == w.config.Streams && w.allOpen() {
		return w.judgeAllOpen()
	}
	if last.last() == nil || !last.answered() {
		return w.judgeNoAnswer(last)
	}
	if c := firstFailure(last); c != nil {
		if c.err != nil {
			return w.judgeError(c)
		}
		return w.judgeAnswer(last, c)
	}
	return w.judgeEnds()
}

// firstFailure is the first request that was not answered by a stream, or nil.
func firstFailure(s *stream) *connect {
	for _, c := range s.connects {
		if c.err != nil || c.answer != nil && !c.answer.isStream {
			return c
		}
	}
	return nil
}

// judgeNotices is for streams that the guard told something.
func (w *watch) judgeNotices() *Report {
	var ended, refused []*stream
	for _, s := range w.streams {
		switch n := s.notice(); {
		case n == nil:
		case n.Ends():
			ended = append(ended, s)
		case n.Refuses():
			refused = append(refused, s)
		default:
			return &Report{
				Verdict: Unknown, Code: CodeEnded,
				Summary: fmt.Sprintf("a guard is there, and ended %s with %s (reason %s): %s", streamNo(s), n.Event, n.Reason, quoted(n.Message)),
				Hints:   []string{"Try again with a token that is good for some time."},
			}
		}
	}
	switch {
	case len(ended) > 0:
		return w.judgeSuperseded(ended)
	default:
		return w.judgeRefused(refused)
	}
}

// judgeSuperseded is for streams that were ended for newer ones.
func (w *watch) judgeSuperseded(ended []*stream) *Report {
	r := &Report{Verdict: Guarded, Code: CodeSuperseded}
	if len(w.streams) == 1 || ended[0].number == len(w.streams) {
		r.Summary = fmt.Sprintf("%s was ended with %s for the sake of a stream that is not the check's: somebody else opens streams with the same token now.",
			streamNo(ended[0]), howTold(ended[0].notice()))
		r.Hints = append(r.Hints, w.quiet()...)
		return r
	}
	first := ended[0].notice()
	r.Takeover = first.After
	var text strings.Builder
	if len(w.streams) == MinStreams {
		fmt.Fprintf(&text, "the older stream got %s %s after the newer one had asked", howTold(first), brief(first.After))
	} else {
		fmt.Fprintf(&text, "of %d streams, the %s got %s, the first one %s after the next one had asked", len(w.streams), oldest(len(ended)), howTold(first), brief(first.After))
	}
	for _, s := range ended {
		c := s.showed()
		switch {
		case c == nil:
			continue
		case c.err != nil || c.answer.status != http.StatusNoContent:
			return w.judgeTombstone(s, c)
		}
	}
	switch n := ended[0].notice(); {
	case ended[0].showed() != nil:
		text.WriteString("; its tombstone was answered with 204, and it stays closed")
	case !n.Tombstone && n.Reason == reason.Replaced:
		r.Hints = append(r.Hints, "It got no tombstone, for the guard takes both streams for the same tab: it may come back.")
	case !n.Tombstone:
		r.Hints = append(r.Hints, "It got no tombstone. Does something between change the ids of events?")
	case w.config.Method != http.MethodGet:
		// Such clients do not come back by themselves.
	default:
		r.Hints = append(r.Hints, fmt.Sprintf("Whether its tombstone counts was not tried: it is told to come back after %s only.", brief(n.Retry)))
	}
	if open := w.countOpen(); open > 0 {
		text.WriteString("; the newer one stays")
		if open > 1 {
			fmt.Fprintf(&text, ", as %d do in all", open)
		}
	} else {
		r.Hints = append(r.Hints, "The newest stream did not stay open either.")
	}
	r.Summary = text.String() + "."
	r.Hints = append(r.Hints, w.quiet()...)
	return r
}

// judgeTombstone is for a client that showed its tombstone, and was not sent away.
func (w *watch) judgeTombstone(s *stream, c *connect) *Report {
	r := &Report{Verdict: NotGuarded, Code: CodeTombstoneIgnored, Takeover: s.notice().After}
	got := "no answer"
	if c.answer != nil {
		got = c.answer.String()
	}
	r.Summary = fmt.Sprintf("the older stream got %s %s after the newer one had asked, but its tombstone was answered with %s, not with 204. Two tabs would take the stream from each other again and again.",
		howTold(s.notice()), brief(s.notice().After), got)
	r.Hints = []string{
		"Does something between drop or change the header field Last-Event-ID, or the ids of events?",
		"Several Caddys need a shared registry (registry redis), and the same secret if it is set (option secret).",
		"The key was free, if the newer stream had ended by then.",
	}
	return r
}

// judgeRefused is for streams that were refused for older ones.
func (w *watch) judgeRefused(refused []*stream) *Report {
	s := refused[0]
	n := s.notice()
	r := &Report{Verdict: Guarded, Code: CodeRejected}
	what, then := "rejected", fmt.Sprintf("it is told to come back after %s", brief(n.Retry))
	switch {
	case n.Event == "":
		then = "which closes an EventSource for good (on_reject status)"
	case s.isOpen():
		then = "it stays open, and waits until the key is free"
	}
	if n.Reason == reason.Parked {
		what = "parked"
		r.Code = CodeParked
		r.Hints = append(r.Hints, "Clients with this token have taken the stream from each other again and again (flap damping). For an undisturbed check use a token of its own, or wait for some minutes.")
	}
	if s.number == 1 {
		r.Summary = fmt.Sprintf("the first stream was %s with %s; %s. Somebody else holds the key already, with the same token or as the same user.", what, howTold(n), then)
		return r
	}
	r.Summary = fmt.Sprintf("stream %d was %s with %s %s after it had asked; %s.", s.number, what, howTold(n), brief(n.After), then)
	if n.Reason == reason.Rejected {
		r.Summary = "policy reject: " + r.Summary
	}
	if older := s.number - 1; w.openAmong(older) == older {
		r.Summary += map[bool]string{true: " The older one stays.", false: fmt.Sprintf(" The %d older ones stay.", older)}[older == 1]
	} else {
		r.Hints = append(r.Hints, "The older stream ended meanwhile, without a notice.")
	}
	r.Hints = append(r.Hints, w.quiet()...)
	return r
}

// judgeAllOpen is for streams that all stay open: nobody counts them, or not together.
func (w *watch) judgeAllOpen() *Report {
	n := len(w.streams)
	all := "both streams stay open"
	if n > MinStreams {
		all = fmt.Sprintf("all %d streams stay open", n)
	}
	r := &Report{Verdict: NotGuarded, Code: CodeBothOpen}
	more := fmt.Sprintf("Its limit is %d or more: try --streams %d. With limit 0 it only tracks.", n, n+1)
	method := "Only " + strings.Join(countedByDefault, ", ") + " and the like count, unless the option methods says otherwise."
	switch carried := w.config.carriesToken(); {
	case w.presence.guard && carried == "":
		r.Summary = all + ", although a guard stands before this path: the check sends no token, so that they pass untracked."
		r.Hints = []string{
			"Give the check the token that pages have: --token, --cookie, or in the URL.",
			"require_token, or missing_key deny, would refuse such streams.",
		}
	case w.presence.guard:
		r.Summary = all + ", although a guard stands before this path, and sees the token."
		r.Hints = []string{
			more,
			"A part of its key is empty for this request (missing_key pass), so that the streams pass untracked: Caddy's log says so, once an hour.",
			"A part of its key differs from request to request.",
			"The option methods leaves " + w.config.Method + " out.",
		}
	case carried == "":
		r.Summary = all + ", and no guard has answered. The check sends no token, so that a guard would let them pass untracked."
		r.Hints = append([]string{"Give the check the token that pages have: --token, --cookie, or in the URL."}, w.absent()...)
	default:
		r.Summary = all + ": no guard counts them."
		r.Hints = append(w.absent(),
			"Or it looks for the token elsewhere than in "+carried+" (option token), so that the streams pass untracked: Caddy's log says so, once an hour.",
			"Or a part of its key is empty (missing_key pass), or differs from request to request: two sites or two guards whose keys differ do not meet.",
			more)
		if w.config.Method != http.MethodGet {
			r.Hints = append([]string{method}, r.Hints...)
		}
	}
	r.Hints = append(r.Hints, w.quiet()...)
	return r
}

// countedByDefault are methods of requests that ask for streams and count by default.
var countedByDefault = []string{"GET", "HEAD", "OPTIONS"}

// absent is why there may be no guard.
func (w *watch) absent() []string {
	hints := []string{
		"The site that answers has no sse_guard, or its matcher, or the route around it, leaves this path out.",
	}
	if a := w.streams[0].connects[0].answer; a != nil {
		via := strings.ToLower(a.header.Get("Server") + " " + strings.Join(a.header.Values("Via"), " "))
		if !strings.Contains(via, "caddy") {
			hints = append(hints, "The answer does not say that it comes through Caddy (Server, Via): is this the proxy's address, or the backend's?")
		}
	}
	return hints
}

// carriesToken says where the requests carry what may be a token; "" if nowhere.
func (c *Config) carriesToken() string {
	var places []string
	if c.Header.Get("Authorization") != "" {
		places = append(places, "the header field Authorization")
	}
	if c.Header.Get("Cookie") != "" {
		places = append(places, "a cookie")
	}
	for name := range c.Header {
		switch http.CanonicalHeaderKey(name) {
		case "Authorization", "Cookie", "Host", "Accept", "User-Agent", "X-Client-Id":
		default:
			places = append(places, "a header field of its own")
		}
	}
	if u, err := url.Parse(c.URL); err == nil && (u.RawQuery != "" || u.User != nil || strings.Contains(u.Path, ";")) {
		places = append(places, "the URL")
	}
	return strings.Join(places, " and ")
}

// quiet is a hint where nothing of the application's has come.
func (w *watch) quiet() []string {
	for _, s := range w.streams {
		if s.events() > 0 {
			return nil
		}
	}
	spoke := false
	for _, s := range w.streams {
		spoke = spoke || s.spokeEver()
	}
	if !spoke {
		return []string{"The header of each stream came, but nothing after it: the application is quiet, or something between holds its events back (a buffer, compression)."}
	}
	return []string{"No event of the application came meanwhile: it is quiet, or something behind the guard holds its events back (a buffer, compression)."}
}

// judgeEnds is for streams that ended without a word.
func (w *watch) judgeEnds() *Report {
	s, end := w.firstEnd()
	newest := w.streams[len(w.streams)-1]
	if s != newest && newest.isOpen() && len(newest.connects) == 1 && end > newest.connects[0].asked {
		r := &Report{Verdict: NotGuarded, Code: CodeEndedUntold}
		r.Summary = fmt.Sprintf("%s ended while the newer one was open, but was not told why: its EventSource would come back and take the stream again.", streamNo(s))
		r.Hints = []string{
			"The backend ends older streams itself, or its stream is a short one.",
			"A stream that the backend compresses although it was asked not to is ended without a notice.",
		}
		return r
	}
	r := &Report{Verdict: Unknown, Code: CodeShort}
	r.Summary = fmt.Sprintf("%s ended by itself, after %d events, before anything could happen to it.", streamNo(s), s.events())
	r.Hints = []string{"Ask for a stream that stays open longer.", "A stream that is cut at once with nothing but a retry is a guard's temporary refusal: Caddy is being stopped, or keys or a registry cannot be reached. Try again in some seconds."}
	return r
}

// firstEnd is the oldest stream that has ended, and when it did so first.
func (w *watch) firstEnd() (*stream, time.Duration) {
	for _, s := range w.streams {
		for _, c := range s.connects {
			if c.ended {
				return s, c.endedAt
			}
		}
	}
	return w.streams[0], 0
}

func (w *watch) countOpen() int { return w.openAmong(len(w.streams)) }

// openAmong is how many of the first n streams are open.
func (w *watch) openAmong(n int) (open int) {
	for _, s := range w.streams[:n] {
		if s.isOpen() && (s.notice() == nil || !s.notice().Ends()) {
			open++
		}
	}
	return open
}

func streamNo(s *stream) string { return fmt.Sprintf("stream %d", s.number) }

func oldest(n int) string {
	if n == 1 {
		return "oldest"
	}
	return fmt.Sprintf("%d oldest", n)
}

// howTold names how the notice was told.
func howTold(n *Notice) string {
	if n.Event == "" {
		return fmt.Sprintf("status %d", n.Status)
	}
	return n.Event
}

func quoted(message string) string {
	if message == "" {
		return "without a message."
	}
	return `"` + message + `"`
}
