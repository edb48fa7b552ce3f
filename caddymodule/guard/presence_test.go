package guard

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/presence"
)

// present has the streams of a room told how many they are.
func present(g *Config) {
	g.Labels = []Label{{"room", "{req.X-Room}"}}
	g.Presence = []Presence{{"room", presence.Telling{Event: "PRESENCE", Interval: time.Second}}}
}

// one and two are what a room of so many is told.
const (
	one = "event: PRESENCE\ndata: {\"label\":\"room\",\"value\":\"one\",\"count\":1}\n\n"
	two = "event: PRESENCE\ndata: {\"label\":\"room\",\"value\":\"one\",\"count\":2}\n\n"
)

func inRoom(user string) func(*client) { return both(field("X-Room", "one"), token(user)) }

func TestPresence_JoinLeaveAndTakeOver(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		ann := s.open(inRoom("ann"))
		s.pass(2 * time.Second)
		require.Equal(t, hello+one, ann.text())
		bob := s.open(inRoom("bob"))
		s.pass(2 * time.Second)
		require.Equal(t, hello+one+two, ann.text())
		require.Equal(t, hello+two, bob.text())
		newer := s.open(inRoom("bob"))
		s.pass(2 * time.Second)
		require.True(t, bob.over())
		require.Equal(t, hello+two, newer.text())
		require.Equal(t, hello+one+two, ann.text(), "for ann nothing has changed")
		newer.leave()
		s.pass(2 * time.Second)
		require.Equal(t, hello+one+two+one, ann.text())
	}, present)
}

// An event that the backend has not finished is not torn.
func TestPresence_GoesBetweenTwoEvents(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		finish := make(chan struct{})
		s.backend.answer = func(w http.ResponseWriter, r *http.Request) error {
			w.Header().Set("Content-Type", "text/event-stream")
			_, _ = io.WriteString(w, "data: half")
			select {
			case <-finish:
				_, _ = io.WriteString(w, " is whole\n\n")
				<-r.Context().Done()
			case <-r.Context().Done():
			}
			return nil
		}
		ann := s.open(inRoom("ann"))
		s.pass(2 * time.Second)
		require.Contains(t, ann.text(), "data: half")
		s.open(inRoom("bob"))
		s.pass(2 * time.Second)
		require.NotContains(t, ann.text(), two)
		close(finish)
		s.settle()
		require.Contains(t, ann.text(), "data: half is whole\n\n")
		require.True(t, strings.HasSuffix(ann.text(), "\n\n"+two), ann.text())
	}, all(present, func(g *Config) { g.Stream.Hold = 250 * time.Millisecond }))
}

// Nobody counts who holds no key, and nothing is written to them.
func TestPresence_IsOfLiveStreamsOnly(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		ann := s.open(inRoom("ann"))
		untracked, parked := s.open(field("X-Room", "one")), s.open(inRoom("ann"))
		nowhere := s.open(token("bob"))
		s.pass(2 * time.Second)
		require.Equal(t, hello+one, ann.text())
		require.Equal(t, hello, untracked.text())
		require.NotContains(t, parked.text(), "PRESENCE")
		require.Equal(t, hello, nowhere.text())
		require.Equal(t, 1, s.holders(0)-1)
	}, all(parking, present))
}

func TestPresence_CompressedStreamsCountAndAreLeftAlone(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		s.backend.header = http.Header{"Content-Encoding": {"br"}}
		packed := s.open(inRoom("ann"))
		s.backend.header = nil
		bob := s.open(inRoom("bob"))
		s.pass(2 * time.Second)
		require.Equal(t, hello, packed.text())
		require.Equal(t, hello+two, bob.text())
	}, present)
}

// Of a response behind two guards of a zone, one tells its client, and counts it once.
func TestPresence_OfGuardsOfOneRequest(t *testing.T) {
	room := field("X-Room", "one")
	atSite(t, func(t *testing.T, s *site) {
		s.guards[inner].Zone = s.guards[outer].Zone
		ann := s.open(in("books", "ann"), room)
		s.pass(2 * time.Second)
		require.Equal(t, hello+one, ann.text())
		ann.leave()
		s.pass(2 * time.Second)
		require.Equal(t, hello+one, s.openFor(2*time.Second, in("books", "bob"), room))
	}, perStore(present), perUser(present))
}

// openFor opens a stream, and returns what came in that time.
func (s *site) openFor(d time.Duration, edits ...func(*client)) string {
	c := s.open(edits...)
	s.pass(d)
	return c.text()
}
