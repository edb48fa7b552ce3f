package e2e

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestLimit_OfStreams lets the newest n live.
func TestLimit_OfStreams(t *testing.T) {
	for _, limit := range []int{1, 2, 5} {
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			app := startFastAPI(t)
			server := startCaddy(t, fmt.Sprintf("sse_guard {\nlimit %d\n}\nreverse_proxy %s", limit, app.URL))
			client := newSSEClient(t, http1)
			var streams []*sseStream
			for range limit + 2 {
				s := client.open(t, server.URL+"/raw", withBearer("alice"))
				s.next(t)
				streams = append(streams, s)
			}
			for _, s := range streams[:2] {
				requireEnded(t, s, duplicated, "superseded")
			}
			app.waitOpen(t, limit)
			for _, s := range streams[2:] {
				s.next(t)
			}
		})
	}
}

// TestLimit_UnderReject refuses the newcomer beyond it.
func TestLimit_UnderReject(t *testing.T) {
	for _, limit := range []int{1, 2, 5} {
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			app := startFastAPI(t)
			server := startCaddy(t, fmt.Sprintf("sse_guard {\nlimit %d\npolicy reject\n}\nreverse_proxy %s", limit, app.URL))
			client := newSSEClient(t, http1)
			var streams []*sseStream
			for range limit {
				s := client.open(t, server.URL+"/raw", withBearer("alice"))
				s.next(t)
				streams = append(streams, s)
			}
			requireEnded(t, client.open(t, server.URL+"/raw", withBearer("alice")), duplicateSession, "rejected")
			for _, s := range streams {
				s.next(t)
			}
		})
	}
}

// TestLimit_Zero only tracks.
func TestLimit_Zero(t *testing.T) {
	app := startFastAPI(t)
	server := startCaddy(t, "sse_guard {\nlimit 0\n}\nreverse_proxy "+app.URL)
	for _, s := range openAtOnce(t, 10, server.URL+"/raw") {
		s.next(t)
	}
	app.waitOpen(t, 10)
}

// TestLimit_OfClients counts a device's tabs once.
func TestLimit_OfClients(t *testing.T) {
	app := startFastAPI(t)
	server := startCaddy(t, "sse_guard {\nlimit 2 clients\n}\nreverse_proxy "+app.URL)
	client := newSSEClient(t, http1)
	open := func(device string) *sseStream {
		s := client.open(t, server.URL+"/raw", withBearer("alice"), withHeader("X-Client-Id", device))
		s.next(t)
		return s
	}
	phone, laptop := open("phone"), open("laptop")
	laptop2, laptop3 := open("laptop"), open("laptop")
	app.waitOpen(t, 4)
	open("tablet")
	requireEnded(t, phone, duplicated, "superseded")
	for _, s := range []*sseStream{laptop, laptop2, laptop3} {
		s.next(t)
	}
	app.waitOpen(t, 4)
}

// TestClientID_Device replaces the device's own stream before another's, but
// only where the key is full.
func TestClientID_Device(t *testing.T) {
	app := startFastAPI(t)
	server := startCaddy(t, "sse_guard {\nlimit 2\n}\nreverse_proxy "+app.URL)
	client := newSSEClient(t, http1)
	open := func(device string) *sseStream {
		s := client.open(t, server.URL+"/raw?client_id="+device+"&lang=en", withBearer("alice"))
		s.next(t)
		return s
	}
	phone := open("phone")
	laptop := open("laptop")
	open("laptop")
	requireEnded(t, laptop, duplicated, "replaced")
	phone.next(t)

	for _, line := range server.waitLogs(t, 1) {
		assert.NotEqual(t, securityLogger, line.Logger, "one's own reconnect is no security event")
	}
}

// TestClientID_DeviceUnderReject: a second tab of the same browser is a
// newcomer like any other.
func TestClientID_DeviceUnderReject(t *testing.T) {
	app := startFastAPI(t)
	server := startCaddy(t, "sse_guard {\npolicy reject\n}\nreverse_proxy "+app.URL)
	client := newSSEClient(t, http1)
	phone := withHeader("X-Client-Id", "phone")
	holder := client.open(t, server.URL+"/raw", withBearer("alice"), phone)
	holder.next(t)
	requireEnded(t, client.open(t, server.URL+"/raw", withBearer("alice"), phone), duplicateSession, "rejected")
	holder.next(t)
}

// TestClientID_Tab replaces its own older stream always, under both policies.
func TestClientID_Tab(t *testing.T) {
	for _, policy := range []string{"supersede", "reject"} {
		for _, limit := range []int{1, 3} {
			t.Run(fmt.Sprint(policy, limit), func(t *testing.T) {
				app := startFastAPI(t)
				server := startCaddy(t, fmt.Sprintf("sse_guard {\nclient query tab tab\npolicy %s\nlimit %d\n}\nreverse_proxy %s", policy, limit, app.URL))
				client := newSSEClient(t, http1)
				older := client.open(t, server.URL+"/raw?tab=1", withBearer("alice"))
				older.next(t)
				newer := client.open(t, server.URL+"/raw?tab=1", withBearer("alice"))
				newer.next(t)
				requireEnded(t, older, duplicated, "replaced")
				stranger := client.open(t, server.URL+"/raw?tab=1", withBearer("mallory"))
				stranger.next(t)
				newer.next(t)
				app.waitOpen(t, 2)
			})
		}
	}
}

// TestEmitterPerUser has a backend that keeps one emitter per user in a map:
// put on open, remove-by-user on close. After a takeover, and after a rejected
// newcomer, the surviving stream still gets its events.
func TestEmitterPerUser(t *testing.T) {
	for _, policy := range []string{"supersede", "reject"} {
		for _, protocol := range []protocol{http1, http2} {
			t.Run(policy+" "+string(protocol), func(t *testing.T) {
				app := startFastAPI(t)
				server := startCaddyTLS(t, "sse_guard {\npolicy "+policy+"\n}\nreverse_proxy "+app.URL)
				for round := range 20 {
					user := fmt.Sprint("user", round)
					open := func() *sseStream {
						return newSSEClient(t, protocol).open(t, server.URL+"/emitter", withBearer(user))
					}
					first := open()
					require.True(t, app.emit(t, user, "one"))
					first.next(t)
					second := open()
					survivor := second
					if policy == "reject" {
						survivor = first
						requireEnded(t, second, duplicateSession, "rejected")
					} else {
						requireEnded(t, first, duplicated, "superseded")
					}
					require.True(t, app.emit(t, user, "two"), "the survivor's emitter is gone")
					assert.Contains(t, survivor.next(t).Data, "two")
					survivor.close()
				}
			})
		}
	}
}
