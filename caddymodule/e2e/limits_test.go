package e2e

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/e2e/harness"
)

// TestLimit_OfStreams lets the newest n live.
func TestLimit_OfStreams(t *testing.T) {
	for _, limit := range []int{1, 2, 5} {
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			app := harness.StartFastAPI(t)
			server := harness.StartCaddy(t, fmt.Sprintf("sse_guard {\nlimit %d\n}\nreverse_proxy %s", limit, app.URL))
			client := harness.NewClient(t, harness.HTTP1)
			var streams []*harness.Stream
			for range limit + 2 {
				s := client.Open(t, server.URL+"/raw", harness.WithBearer("alice"))
				s.Next(t)
				streams = append(streams, s)
			}
			for _, s := range streams[:2] {
				harness.RequireEnded(t, s, harness.Duplicated, "superseded")
			}
			app.WaitOpen(t, limit)
			for _, s := range streams[2:] {
				s.Next(t)
			}
		})
	}
}

// TestLimit_UnderReject refuses the newcomer beyond it.
func TestLimit_UnderReject(t *testing.T) {
	for _, limit := range []int{1, 2, 5} {
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			app := harness.StartFastAPI(t)
			server := harness.StartCaddy(t, fmt.Sprintf("sse_guard {\nlimit %d\npolicy reject\n}\nreverse_proxy %s", limit, app.URL))
			client := harness.NewClient(t, harness.HTTP1)
			var streams []*harness.Stream
			for range limit {
				s := client.Open(t, server.URL+"/raw", harness.WithBearer("alice"))
				s.Next(t)
				streams = append(streams, s)
			}
			harness.RequireRejected(t, client.Open(t, server.URL+"/raw", harness.WithBearer("alice")))
			for _, s := range streams {
				s.Next(t)
			}
		})
	}
}

// TestLimit_Zero only tracks.
func TestLimit_Zero(t *testing.T) {
	app := harness.StartFastAPI(t)
	server := harness.StartCaddy(t, "sse_guard {\nlimit 0\n}\nreverse_proxy "+app.URL)
	for _, s := range harness.OpenAtOnce(t, 10, server.URL+"/raw", harness.WithBearer("alice")) {
		s.Next(t)
	}
	app.WaitOpen(t, 10)
}

// TestLimit_OfClients counts a device's tabs once.
func TestLimit_OfClients(t *testing.T) {
	app := harness.StartFastAPI(t)
	server := harness.StartCaddy(t, "sse_guard {\nlimit 2 clients\n}\nreverse_proxy "+app.URL)
	client := harness.NewClient(t, harness.HTTP1)
	open := func(device string) *harness.Stream {
		s := client.Open(t, server.URL+"/raw", harness.WithBearer("alice"), harness.WithHeader("X-Client-Id", device))
		s.Next(t)
		return s
	}
	phone, laptop := open("phone"), open("laptop")
	laptop2, laptop3 := open("laptop"), open("laptop")
	app.WaitOpen(t, 4)
	open("tablet")
	harness.RequireEnded(t, phone, harness.Duplicated, "superseded")
	for _, s := range []*harness.Stream{laptop, laptop2, laptop3} {
		s.Next(t)
	}
	app.WaitOpen(t, 4)
}

// TestClientID_Device replaces the device's own stream before another's, but
// only where the key is full.
func TestClientID_Device(t *testing.T) {
	app := harness.StartFastAPI(t)
	server := harness.StartCaddy(t, "sse_guard {\nlimit 2\n}\nreverse_proxy "+app.URL)
	client := harness.NewClient(t, harness.HTTP1)
	open := func(device string) *harness.Stream {
		s := client.Open(t, server.URL+"/raw?client_id="+device+"&lang=en", harness.WithBearer("alice"))
		s.Next(t)
		return s
	}
	phone := open("phone")
	laptop := open("laptop")
	open("laptop")
	harness.RequireEnded(t, laptop, harness.Duplicated, "replaced")
	phone.Next(t)

	for _, line := range server.WaitLogs(t, 1) {
		assert.NotEqual(t, harness.SecurityLogger, line.Logger, "one's own reconnect is no security event")
	}
}

// TestClientID_DeviceUnderReject: a second tab of the same browser is a
// newcomer like any other.
func TestClientID_DeviceUnderReject(t *testing.T) {
	app := harness.StartFastAPI(t)
	server := harness.StartCaddy(t, "sse_guard {\npolicy reject\n}\nreverse_proxy "+app.URL)
	client := harness.NewClient(t, harness.HTTP1)
	phone := harness.WithHeader("X-Client-Id", "phone")
	holder := client.Open(t, server.URL+"/raw", harness.WithBearer("alice"), phone)
	holder.Next(t)
	harness.RequireRejected(t, client.Open(t, server.URL+"/raw", harness.WithBearer("alice"), phone))
	holder.Next(t)
}

// TestClientID_Tab replaces its own older stream always, under both policies.
func TestClientID_Tab(t *testing.T) {
	for _, policy := range []string{"supersede", "reject"} {
		for _, limit := range []int{1, 3} {
			t.Run(fmt.Sprint(policy, limit), func(t *testing.T) {
				app := harness.StartFastAPI(t)
				server := harness.StartCaddy(t, fmt.Sprintf("sse_guard {\nclient query tab tab\npolicy %s\nlimit %d\n}\nreverse_proxy %s", policy, limit, app.URL))
				client := harness.NewClient(t, harness.HTTP1)
				older := client.Open(t, server.URL+"/raw?tab=1", harness.WithBearer("alice"))
				older.Next(t)
				newer := client.Open(t, server.URL+"/raw?tab=1", harness.WithBearer("alice"))
				newer.Next(t)
				harness.RequireEnded(t, older, harness.Duplicated, "replaced")
				stranger := client.Open(t, server.URL+"/raw?tab=1", harness.WithBearer("mallory"))
				stranger.Next(t)
				newer.Next(t)
				app.WaitOpen(t, 2)
			})
		}
	}
}

// TestEmitterPerUser has a backend that keeps one emitter per user in a map:
// put on open, remove-by-user on close. After a takeover, and after a rejected
// newcomer, the surviving stream still gets its events.
func TestEmitterPerUser(t *testing.T) {
	for _, policy := range []string{"supersede", "reject"} {
		for _, protocol := range []harness.Protocol{harness.HTTP1, harness.HTTP2} {
			t.Run(policy+" "+string(protocol), func(t *testing.T) {
				app := harness.StartFastAPI(t)
				server := harness.StartCaddyTLS(t, "sse_guard {\npolicy "+policy+"\n}\nreverse_proxy "+app.URL)
				for round := range 20 {
					user := fmt.Sprint("user", round)
					open := func() *harness.Stream {
						return harness.NewClient(t, protocol).Open(t, server.URL+"/emitter", harness.WithBearer(user))
					}
					first := open()
					require.True(t, app.Emit(t, user, "one"))
					first.Next(t)
					second := open()
					survivor := second
					if policy == "reject" {
						survivor = first
						harness.RequireRejected(t, second)
					} else {
						harness.RequireEnded(t, first, harness.Duplicated, "superseded")
					}
					require.True(t, app.Emit(t, user, "two"), "the survivor's emitter is gone")
					assert.Contains(t, survivor.Next(t).Data, "two")
					survivor.Close()
				}
			})
		}
	}
}
