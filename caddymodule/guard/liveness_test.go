package guard

import (
	"fmt"
	"math"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap/zapcore"

	"github.com/sse-guard/sse-guard/caddymodule/conflict"
	"github.com/sse-guard/sse-guard/caddymodule/internal/wheel"
	"github.com/sse-guard/sse-guard/caddymodule/zone"
)

// tended has streams looked after, with a heartbeat of 15 s.
func tended(g *Config) {
	g.Stream.Heartbeat, g.Stream.DeadAfter = 15*time.Second, 30*time.Second
	g.Drain = zone.Drain{Window: 10 * time.Second}
}

const beat = ":\n"

func TestHeartbeat_IsSentWhereNothingElseIs(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		c := s.open(token("ann"))
		s.pass(11 * time.Second)
		require.Equal(t, hello, c.text())
		s.pass(4*time.Second + wheel.Precision)
		require.Equal(t, hello+beat, c.text())
		s.backend.say("busy")
		for range 20 {
			s.pass(10 * time.Second)
			s.backend.say("busy")
		}
		require.Equal(t, 1, strings.Count(c.text(), beat), "a busy stream needs none")
		s.pass(time.Minute)
		beats := strings.Count(c.text(), beat)
		require.GreaterOrEqual(t, beats, 1+3)
		require.LessOrEqual(t, beats, 1+5)
	}, tended)
}

func TestHeartbeat_ComesAtDifferentTimes(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		for i := range 100 {
			s.send(token(fmt.Sprint("user", i)))
		}
		s.settle()
		s.backend.say("to all at once")
		clients := s.clients
		first, last := 0, 0
		for tenth := 1; tenth <= 160; tenth++ {
			s.pass(wheel.Precision)
			for _, c := range clients {
				if strings.Contains(c.text(), beat) {
					if first == 0 {
						first = tenth
					}
					last = tenth
					c.body.Reset()
				}
			}
		}
		require.Greater(t, last-first, 20, "spread over more than two seconds")
	}, tended)
}

func TestMaxAge_EndsTheStreamBetweenTwoEvents(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		c := s.open(token("ann"))
		s.pass(8 * time.Minute)
		require.False(t, c.over())
		s.pass(4 * time.Minute)
		require.True(t, c.ends())
		e := c.lastEvent(t)
		require.Empty(t, e.Name, "no event")
		require.Empty(t, e.ID, "no tombstone: it may come back")
		require.NotEmpty(t, e.Retry)
		require.Zero(t, s.holders(0))
		require.Equal(t, hello, s.open(token("ann")).text())
		require.Empty(t, s.visible(), "nobody did anything")
	}, all(tended, func(g *Config) { g.Stream.MaxAge = 10 * time.Minute }))
}

func TestReserve_KeepsThePlaceForWhoComesBack(t *testing.T) {
	agent := field("User-Agent", "Browser")
	phone := field("X-Client-Id", "phone")
	for name, test := range map[string]struct {
		holder, back, thief []func(*client)
	}{
		"by client id":      {[]func(*client){phone}, []func(*client){phone, from("192.0.2.9")}, []func(*client){field("X-Client-Id", "laptop")}},
		"by address, agent": {[]func(*client){agent}, []func(*client){agent}, []func(*client){agent, from("192.0.2.9")}},
		"by agent":          {[]func(*client){agent}, []func(*client){agent}, []func(*client){field("User-Agent", "Other")}},
	} {
		t.Run(name, func(t *testing.T) {
			atSite(t, func(t *testing.T, s *site) {
				open := func(edits []func(*client)) *client { return s.open(append(edits, token("ann"))...) }
				holder := open(test.holder)
				for range 10 { // a page that is reloaded, and a thief who asks all the time
					holder.leave()
					for range 5 {
						s.pass(100 * time.Millisecond)
						require.Equal(t, "rejected", open(test.thief).lastEvent(t).Data.Reason)
					}
					holder = open(test.back)
					require.Equal(t, hello, holder.text())
				}
				holder.leave()
				s.pass(3*time.Second + wheel.Precision)
				require.Equal(t, hello, open(test.thief).text(), "the place is kept for a while only")
			}, all(tended, rejecting, func(g *Config) { g.Reserve = 3 * time.Second }))
		})
	}
}

func TestReserve_IsForClientsThatGoAway(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		s.backend.answer = answering(http.StatusOK, "text/event-stream", hello)
		s.open(token("ann"))
		s.backend.answer = nil
		require.Equal(t, hello, s.open(token("ann"), from("192.0.2.9")).text(), "the backend has ended the stream")
	}, all(tended, rejecting, func(g *Config) { g.Reserve = 3 * time.Second }))
}

func TestReserve_IsNotNeededOnceItsClientIsParked(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		holder := s.open(token("ann"), from("192.0.2.1"))
		waiting := s.open(token("ann"), from("192.0.2.2"))
		holder.leave()
		s.settle()
		require.False(t, waiting.over())
		s.pass(3*time.Second + wheel.Precision)
		require.True(t, waiting.ends(), "it is told that the key is free")
	}, all(tended, parking, func(g *Config) { g.Reserve = 3 * time.Second }))
}

// page is a page that builds a new EventSource whenever the old one ends.
type page struct {
	s        *site
	edits    []func(*client)
	now      *client
	takes    int
	comeback time.Time
}

// live is what the page does until nothing more is to be done now.
func (p *page) live() {
	if p.now != nil && p.now.over() && p.comeback.IsZero() {
		p.comeback = time.Now().Add(time.Second)
	}
	if p.now == nil || !p.comeback.IsZero() && !time.Now().Before(p.comeback) {
		p.comeback = time.Time{}
		p.now = p.s.open(append(p.edits, token("ann"))...)
		if strings.HasPrefix(p.now.text(), hello) {
			p.takes++
		}
	}
}

func TestFlap_PagesThatFightComeToRest(t *testing.T) {
	for name, test := range map[string]struct {
		pages    [][]func(*client)
		takeover Takeover
	}{
		"one browser":   {[][]func(*client){nil, nil}, TakeoverAuto},
		"two devices":   {[][]func(*client){{from("192.0.2.1")}, {from("192.0.2.2")}}, TakeoverAuto},
		"at the header": {[][]func(*client){nil, nil}, TakeoverResponse},
	} {
		t.Run(name, func(t *testing.T) {
			atSite(t, func(t *testing.T, s *site) {
				var pages []*page
				for _, edits := range test.pages {
					pages = append(pages, &page{s: s, edits: edits})
				}
				for range 300 {
					for _, p := range pages {
						p.live()
					}
					s.pass(100 * time.Millisecond)
				}
				takes := pages[0].takes + pages[1].takes
				require.LessOrEqual(t, takes-1, 6, "takeovers")
				require.GreaterOrEqual(t, takes-1, 4, "they did fight")
				require.Equal(t, 1, s.holders(0))
				loser, winner := pages[0], pages[1]
				if strings.HasPrefix(loser.now.text(), hello) {
					loser, winner = winner, loser
				}
				require.False(t, loser.now.over(), "it waits")
				require.True(t, strings.HasPrefix(loser.now.text(), "event: DUPLICATED_CONNECTION\ndata: "), "no tombstone")
				require.Contains(t, loser.now.text(), `"reason":"parked"`)

				winner.now.leave()
				for range 20 {
					s.pass(100 * time.Millisecond)
					loser.live()
				}
				require.Equal(t, hello, loser.now.text(), "the other page is gone, so it has the stream within two seconds")
			}, all(tended, func(g *Config) {
				g.Flap, g.Takeover = conflict.Rule{Count: 4, HalfLife: time.Minute}, test.takeover
			}))
		})
	}
}

func TestFlap_ReloadsAreNone(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		for range 10 {
			c := s.open(token("ann"))
			require.Equal(t, hello, c.text())
			c.leave()
			s.pass(500 * time.Millisecond)
		}
	}, all(tended, func(g *Config) { g.Flap = conflict.Rule{Count: 4, HalfLife: time.Minute} }))
}

// EventSource reconnects after 3 s, shows its tombstone, and rests.
func TestFlap_TabsThatAreOpenedOneAfterTheOtherAreNone(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		var tabs []*client
		for i := range 12 {
			c := s.open(token("ann"))
			require.Equal(t, hello, c.text(), i)
			tabs = append(tabs, c)
			s.pass(time.Second)
			if i > 1 { // ended two seconds ago
				rests := s.open(token("ann"), field("Last-Event-ID", tabs[i-2].lastEvent(t).ID))
				status, _, _ := rests.got()
				require.Equal(t, http.StatusNoContent, status)
			}
			s.pass(time.Second)
		}
	}, all(tended, func(g *Config) { g.Flap = conflict.Rule{Count: 4, HalfLife: time.Minute} }))
}

func TestDrain_EndsAllStreamsAndSpreadsTheirReturn(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		const n = 500
		for i := range n {
			s.send(token(fmt.Sprint("user", i)))
		}
		s.settle()
		holders := s.clients
		parked := s.open(token("user1"))
		require.False(t, parked.over())

		drained := make(chan struct{})
		began := time.Now()
		go func() {
			s.guards[0].Zone.Drain(s.guards[0].Drain, s.guards[0].Logger)
			close(drained)
		}()
		s.settle()
		require.Regexp(t, `\nretry: \d+\n$`, parked.text(), "at once")
		refused := s.open(token("newcomer"))
		status, _, body := refused.got()
		require.Equal(t, http.StatusOK, status, "a temporary refusal")
		require.Regexp(t, `^retry: \d+\n$`, body)
		require.Equal(t, n, s.backend.asked(), "nobody is admitted any more")

		perStep := 0
		for range 100 {
			before := s.holders(0)
			s.pass(50 * time.Millisecond)
			perStep = max(perStep, before-s.holders(0))
		}
		<-drained
		require.LessOrEqual(t, time.Since(began), 5*time.Second)
		require.LessOrEqual(t, perStep, int(math.Ceil(n/100.0))*2, "not all at once")
		seconds := map[int]int{}
		for _, c := range holders {
			require.True(t, c.ends())
			require.Empty(t, c.lastEvent(t).Name)
			var ms int
			_, err := fmt.Sscan(c.lastEvent(t).Retry, &ms)
			require.NoError(t, err)
			require.GreaterOrEqual(t, ms, 1000)
			require.LessOrEqual(t, ms, 10000)
			seconds[ms/1000]++
		}
		require.Greater(t, len(seconds), 7, "they come back at different times: %v", seconds)
		require.Equal(t, 1, s.logs.FilterMessage("draining").Len())
		require.Zero(t, s.logs.FilterMessage("stream ended").FilterLevelExact(zapcore.InfoLevel).Len(), "not one line a stream")
	}, all(tended, parking))
}

// The rounds' clock stands still while there are no streams.
func TestMaxAge_CountsFromTheStreamsOwnBeginning(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		s.pass(time.Hour)
		c := s.open(token("ann"))
		s.pass(8 * time.Minute)
		require.False(t, c.over())
	}, all(tended, func(g *Config) { g.Stream.MaxAge = 10 * time.Minute }))
}

// The page's new request waits for the backend while others ask all the time.
func TestReserve_IsGivenUpOnlyForAPlaceAtTheHeader(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		holder := s.open(token("ann"))
		holder.leave()
		s.settle()
		answer := make(chan struct{})
		s.backend.answer = func(w http.ResponseWriter, r *http.Request) error {
			<-answer
			return s.backend.stream(w, r)
		}
		back := s.open(token("ann"))
		s.backend.answer = nil
		require.Equal(t, "rejected", s.open(token("mallory"), from("192.0.2.9")).lastEvent(t).Data.Reason)
		close(answer)
		s.settle()
		require.Equal(t, hello, back.text())
	}, all(tended, rejecting, keyedBy("shop"), func(g *Config) { g.Reserve = 3 * time.Second }))
}

func TestDrain_EndsStreamsThatHoldNothingToo(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		c := s.open() // without a token
		s.guards[0].Zone.Drain(s.guards[0].Drain, s.guards[0].Logger)
		s.settle()
		require.True(t, c.ends())
		require.Equal(t, hello, c.text(), "byte for byte, and a clean end")
		require.Zero(t, s.guards[0].Zone.Wheel.Len())
	}, tended)
}

func TestDrain_EndsAStreamThatIsAdmittedMeanwhile(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		s.guards[0].Takeover = TakeoverResponse
		s.backend.answer = func(w http.ResponseWriter, r *http.Request) error {
			s.guards[0].Zone.Drain(s.guards[0].Drain, s.guards[0].Logger)
			return s.backend.stream(w, r)
		}
		c := s.open(token("ann"))
		require.True(t, c.ends())
		require.Zero(t, s.holders(0))
	}, tended)
}

// Where an outer guard ends the stream, nobody has left.
func TestReserve_IsNotForStreamsThatAnOuterGuardEnds(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		s.open(token("ann"))
		s.guards[0].Zone.Drain(zone.Drain{Window: time.Second}, s.guards[0].Logger)
		s.settle()
		require.Zero(t, s.holders(1))
	}, all(tended, func(g *Config) { g.Zone.Name = "outer" }), all(tended, rejecting, keyedBy("shop"), func(g *Config) { g.Reserve = 3 * time.Second }))
}
