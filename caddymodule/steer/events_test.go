package steer

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/event"
	"github.com/sse-guard/sse-guard/caddymodule/reason"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// feed is a reader of GET events.
type feed struct {
	lines *bufio.Scanner
	close func()
}

func (s *site) feed(t *testing.T, query string) *feed {
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+"events"+query, nil)
	require.NoError(t, err)
	response, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	t.Cleanup(func() { response.Body.Close() })
	require.Equal(t, http.StatusOK, response.StatusCode)
	require.Equal(t, "text/event-stream", response.Header.Get("Content-Type"))
	return &feed{bufio.NewScanner(response.Body), cancel}
}

// next reads an event.
func (f *feed) next(t *testing.T) (name string, h Happened) {
	t.Helper()
	for f.lines.Scan() {
		field, value, _ := strings.Cut(f.lines.Text(), ": ")
		switch field {
		case "event":
			name = value
		case "data":
			d := json.NewDecoder(strings.NewReader(value))
			d.DisallowUnknownFields()
			require.NoError(t, d.Decode(&h), value)
		case "":
			return name, h
		}
	}
	require.NoError(t, f.lines.Err())
	return "", h
}

func TestEvents_TellWhatHappens(t *testing.T) {
	s := newSite(t, "default", "shop")
	all, shop := s.feed(t, ""), s.feed(t, "?zone=shop")
	holder := func(addr string) *registry.Holder {
		return &registry.Holder{ID: registry.NewStreamID(), Key: hash("key"), Token: hash("token"), Addr: addr}
	}
	a, b := holder("192.0.2.1"), holder("192.0.2.2")
	ann := event.Who{Holder: a, Sub: "ann"}
	party := Party{ID: a.ID.String(), Key: short(a.Key), Token: short(a.Token), RemoteIP: "192.0.2.1"}
	age, events, bytes, three := 1.5, uint64(7), int64(70), 3
	for _, test := range []struct {
		event event.Event
		want  Happened
	}{
		{event.Admitted{Stream: ann}, Happened{Event: "admitted", Party: party, Subject: "ann"}},
		{event.Untracked{Stream: a, Cause: event.UntrackedToken}, Happened{Event: "untracked", Party: party, Cause: "token"}},
		{event.Superseded{Loser: a, Newcomer: event.Who{Holder: b}}, Happened{Event: "superseded", Party: party,
			By: &Party{ID: b.ID.String(), Key: short(b.Key), Token: short(b.Token), RemoteIP: "192.0.2.2"}}},
		{event.Refused{Client: ann, Outcome: event.OutcomeRejected}, Happened{Event: "refused", Party: party, Subject: "ann", Outcome: "rejected"}},
		{event.Ended{Stream: event.Who{Holder: a}, Reason: reason.Revoked, Age: 1500 * time.Millisecond, Events: 7, Bytes: 70},
			Happened{Event: "ended", Party: party, Reason: "revoked", AgeSeconds: &age, Events: &events, Bytes: &bytes}},
		{event.Ended{Stream: event.Who{Holder: a}, Reason: event.Left, Age: 1500 * time.Millisecond, Events: 7, Bytes: 70},
			Happened{Event: "ended", Party: party, Reason: "left", AgeSeconds: &age, Events: &events, Bytes: &bytes}},
		{event.LoggedOut{By: ann, Streams: 3}, Happened{Event: "logout", Party: party, Subject: "ann", Streams: &three}},
	} {
		s.zones[0].Feed.Observe(test.event)
		name, got := all.next(t)
		require.Equal(t, string(test.want.Event), name)
		require.WithinDuration(t, time.Now(), got.Time, time.Minute)
		require.NotEmpty(t, got.Node)
		test.want.Time, test.want.Zone, test.want.Node = got.Time, "default", got.Node
		require.Equal(t, test.want, got)
	}
	s.zones[1].Feed.Observe(event.Admitted{Stream: ann})
	_, got := shop.next(t)
	require.Equal(t, "shop", got.Zone, "and nothing of the other zone")
}

// A reader that never reads changes nothing for others, and is dropped.
func TestEvents_AReaderThatNeverReadsIsDropped(t *testing.T) {
	s := newSite(t, "default")
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", strings.TrimSuffix(strings.TrimPrefix(s.url, "http://"), Prefix))
	require.NoError(t, err)
	defer conn.Close()
	_, err = conn.Write([]byte("GET " + Prefix + "events HTTP/1.1\r\nHost: localhost\r\n\r\n"))
	require.NoError(t, err)
	require.Eventually(t, func() bool { return s.api.readers.Load() == 1 }, time.Minute, time.Millisecond)
	require.Eventually(t, func() bool {
		began := time.Now()
		for range 1000 {
			s.zones[0].Feed.Observe(event.Admitted{Stream: event.Who{Holder: &registry.Holder{Addr: strings.Repeat("x", 1000)}}})
		}
		require.Less(t, time.Since(began), 10*time.Second, "nobody waits for it")
		return s.api.readers.Load() == 0
	}, 5*time.Minute, 10*time.Millisecond)
}

func TestEvents_HasSoManyReadersAtMost(t *testing.T) {
	s := newSite(t, "default")
	var feeds []*feed
	for range mostReaders {
		feeds = append(feeds, s.feed(t, ""))
	}
	s.problem(http.StatusServiceUnavailable, http.MethodGet, "events", "")
	feeds[0].close()
	require.Eventually(t, func() bool { return s.api.readers.Load() < mostReaders }, time.Minute, time.Millisecond)
	s.feed(t, "")
}

// A server waits for its requests when it stops, as Caddy's does when its
// configuration is reloaded.
func TestEvents_EndWhenTheServerStops(t *testing.T) {
	s := newSite(t, "default")
	server := httptest.NewServer(s.api)
	s.url = server.URL + Prefix
	one, other := s.feed(t, ""), s.feed(t, "")
	require.NoError(t, server.Config.Shutdown(t.Context()))
	for _, f := range []*feed{one, other} {
		name, _ := f.next(t)
		require.Empty(t, name, "it is over")
	}
	require.Zero(t, s.api.readers.Load())
}

// Caddy shuts the server of its admin endpoint down again where that was switched off.
func TestEvents_TheirServerMayStopTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := new(http.Server)
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r = r.WithContext(context.WithValue(r.Context(), http.ServerContextKey, server))
		stops := new(API).stopping(r)
		for range 2 {
			require.NoError(t, server.Shutdown(t.Context()))
			synctest.Wait()
			select {
			case <-stops:
			default:
				t.Fatal("its readers do not hear that it stops")
			}
		}
	})
}

// TestFeedWriter_APauseIsNoSlowReader: on HTTP/2, a write deadline that passes ends the
// stream although there is nothing to write.
func TestFeedWriter_APauseIsNoSlowReader(t *testing.T) {
	const timeout = 20 * time.Millisecond
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f := NewFeedWriter(w, timeout)
		defer f.End()
		for i := range 3 {
			if err := f.Event("tick", i); err != nil {
				t.Error(err)
				return
			}
			select {
			case <-time.After(5 * timeout):
			case <-r.Context().Done():
				t.Error("the stream was reset")
				return
			}
		}
	}))
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL, nil)
	require.NoError(t, err)
	response, err := server.Client().Do(r)
	require.NoError(t, err)
	defer response.Body.Close()
	require.Equal(t, 2, response.ProtoMajor)
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	require.Equal(t, 3, strings.Count(string(body), "event: tick"))
}
