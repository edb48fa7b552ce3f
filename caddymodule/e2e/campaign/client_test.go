package campaign

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/e2e/checker"
	"github.com/sse-guard/sse-guard/caddymodule/e2e/harness"
)

// stream is one request for a stream, as its client has it.
type stream struct {
	c     *crowd
	index int // in the history
	zone  string
	user  string
	leave context.CancelCauseFunc
	// over is closed once it has ended.
	over chan struct{}
	// tombstone is the last event's ID, to be read when it is over.
	tombstone string
}

var (
	errLeft    = errors.New("the client left")
	errGivenUp = errors.New("the client gave up")
)

// patience is how long clients wait for an answer.
const patience = 3 * time.Second

// crowd is what all clients have in common.
type crowd struct {
	w         *world
	r         *recorder
	transport *http.Transport
	wg        sync.WaitGroup // of all streams

	// mu guards the field below it.
	mu sync.Mutex
	// logins counts the logouts of each user of each zone, whose tokens differ.
	logins map[string]int
}

func newCrowd(w *world, r *recorder) *crowd {
	return &crowd{w: w, r: r, transport: &http.Transport{DisableKeepAlives: true}, logins: make(map[string]int)}
}

// open asks for a stream, waits for the answer, and has the stream read. It gives up after
// so long. nil: there is no stream.
func (c *crowd) open(s checker.Stream, url, tombstone string, giveUp time.Duration) *stream {
	ctx, leave := context.WithCancelCause(context.Background())
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/"+s.Zone+"/events", nil)
	if err != nil {
		panic(err) // the URL is ours
	}
	request.Header.Set("Accept", "text/event-stream")
	request.Header.Set("X-User", s.Key)
	request.Header.Set("Authorization", "Bearer "+s.Token)
	if s.Client != "" {
		request.Header.Set("X-Client-Id", s.Client)
	}
	if tombstone != "" {
		request.Header.Set("Last-Event-ID", tombstone)
	}
	timer := time.AfterFunc(giveUp, func() { leave(errGivenUp) })
	i := c.r.asks(s)
	response, err := c.transport.RoundTrip(request)
	inTime := timer.Stop()
	switch {
	case err == nil && response.StatusCode == http.StatusOK && inTime:
		c.r.answered(i, checker.Admitted, response.StatusCode)
		st := &stream{c: c, index: i, zone: s.Zone, user: s.Key, leave: leave, over: make(chan struct{})}
		c.wg.Go(func() { st.read(ctx, response.Body) })
		return st
	case !inTime:
		c.r.answered(i, checker.GivenUp, 0)
	case err != nil:
		c.r.answered(i, checker.Failed, 0)
	default:
		outcome, known := outcomes[response.StatusCode]
		if !known {
			outcome = checker.Odd
		}
		c.r.answered(i, outcome, response.StatusCode)
	}
	if err == nil {
		response.Body.Close()
	}
	leave(nil)
	return nil
}

var outcomes = map[int]checker.Outcome{
	http.StatusNoContent:          checker.Entombed,
	http.StatusUnauthorized:       checker.Denied,
	http.StatusConflict:           checker.Rejected,
	http.StatusServiceUnavailable: checker.Unavailable,
}

// read notes the end.
func (s *stream) read(ctx context.Context, body io.ReadCloser) {
	defer close(s.over)
	defer body.Close()
	defer s.leave(nil)
	parser := harness.NewParser("", func(e harness.Event) {
		var notice harness.Notice
		if e.Type != "message" && json.Unmarshal([]byte(e.Data), &notice) == nil && context.Cause(ctx) == nil {
			s.tombstone = e.ID
			s.c.r.ended(s.index, checker.Ending(notice.Reason))
		}
	})
	_, err := io.Copy(parser, body)
	switch {
	case errors.Is(context.Cause(ctx), errLeft): // close has noted it
	case err == nil:
		s.c.r.ended(s.index, checker.Clean)
	default:
		s.c.r.ended(s.index, checker.Cut)
	}
}

// close leaves.
func (s *stream) close() {
	s.c.r.ended(s.index, checker.Left)
	s.leave(errLeft)
	<-s.over
}

func (s *stream) isOver() bool {
	select {
	case <-s.over:
		return true
	default:
		return false
	}
}

// login returns how often the user has logged out of the zone.
func (c *crowd) login(zone, user string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.logins[zone+"/"+user]
}

// logOut logs the user's present token out, and has the user log in again.
func (c *crowd) logOut(zone, user, token string, n *node) {
	c.mu.Lock()
	c.logins[zone+"/"+user]++
	c.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, n.url+"/"+zone+"/logout", nil)
	if err != nil {
		panic(err) // the URL is ours
	}
	request.Header.Set("X-User", user)
	request.Header.Set("Authorization", "Bearer "+token)
	l := checker.Logout{Zone: zone, Token: token, Node: n.name, Asked: c.r.now()}
	response, err := c.transport.RoundTrip(request)
	if err == nil {
		response.Body.Close()
		l.Done = response.StatusCode == http.StatusNoContent
	}
	c.r.loggedOut(l)
}
