package e2e

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/e2e/harness"
)

// TestTwoGuards_EachWithItsOwnLimit: two devices per store, one stream per user.
func TestTwoGuards_EachWithItsOwnLimit(t *testing.T) {
	app := harness.StartFastAPI(t)
	server := harness.StartCaddy(t, `route {
		sse_guard {
			key store {query.store}
			limit 2
		}
		sse_guard {
			key user {sse_guard.token}
		}
		reverse_proxy `+app.URL+`
	}`)
	client := harness.NewClient(t, harness.HTTP1)
	open := func(user string) *harness.Stream {
		s := client.Open(t, server.URL+"/raw?store=7", harness.WithBearer(user))
		s.Next(t)
		return s
	}
	alice, bob := open("alice"), open("bob")
	alice2 := open("alice") // her own older stream goes, not the store's oldest only
	harness.RequireEnded(t, alice, harness.Duplicated, "superseded")
	bob.Next(t)
	carol := open("carol")
	harness.RequireEnded(t, bob, harness.Duplicated, "superseded")
	alice2.Next(t)
	carol.Next(t)
	app.WaitOpen(t, 2)
}

// TestTwoGuards_WhatOneRefusesChangesNothingForTheOther, either way round.
func TestTwoGuards_WhatOneRefusesChangesNothingForTheOther(t *testing.T) {
	const protects = "sse_guard {\nkey user {sse_guard.token}\npolicy reject\n}\n"
	const supersedes = "sse_guard {\nkey path {path}\nlimit 2\n}\n"
	for name, guards := range map[string]string{
		"inner refuses": supersedes + protects,
		"outer refuses": protects + supersedes,
	} {
		for _, takeover := range []string{"early", "at the header"} {
			t.Run(name+" "+takeover, func(t *testing.T) {
				app := harness.StartFastAPI(t)
				server := harness.StartCaddy(t, "route {\n"+guards+"reverse_proxy "+app.URL+"\n}")
				client := harness.NewClient(t, harness.HTTP1)
				alice := client.Open(t, server.URL+"/raw", harness.WithBearer("alice"))
				alice.Next(t)
				bob := client.Open(t, server.URL+"/raw", harness.WithBearer("bob"))
				bob.Next(t)

				if takeover == "early" {
					refused := client.Open(t, server.URL+"/raw", harness.WithBearer("alice"))
					harness.RequireRejected(t, refused)
				} else {
					response, _ := harness.Get(t, server.URL+"/raw", harness.WithBearer("alice"))
					assert.Equal(t, 409, response.StatusCode)
				}
				alice.Next(t)
				bob.Next(t)
				app.WaitOpen(t, 2)
				alice.Next(t)
			})
		}
	}
}

// TestZones do not see each other; neither do two paths with one token.
func TestZones(t *testing.T) {
	app := harness.StartFastAPI(t)
	server := harness.StartCaddy(t, `
		handle_path /a/* {
			sse_guard {
				zone a
				key {sse_guard.token}
			}
			reverse_proxy `+app.URL+`
		}
		handle_path /b/* {
			sse_guard {
				zone b
				key {sse_guard.token}
			}
			reverse_proxy `+app.URL+`
		}
		handle_path /c/* {
			sse_guard {
				zone a
				key {sse_guard.token}
			}
			reverse_proxy `+app.URL+`
		}
		handle {
			sse_guard
			reverse_proxy `+app.URL+`
		}`)
	client := harness.NewClient(t, harness.HTTP1)
	open := func(path string) *harness.Stream {
		s := client.Open(t, server.URL+path, harness.WithBearer("alice"))
		s.Next(t)
		return s
	}
	a, b, sse, raw := open("/a/raw"), open("/b/raw"), open("/sse"), open("/raw")
	app.WaitOpen(t, 4)
	open("/c/raw") // zone a again
	harness.RequireEnded(t, a, harness.Duplicated, "superseded")
	for _, s := range []*harness.Stream{b, sse, raw} {
		s.Next(t)
	}
}

// TestReload_KeepsHolders: a stream of the old configuration is superseded by
// one under the new.
func TestReload_KeepsHolders(t *testing.T) {
	app := harness.StartFastAPI(t)
	server := harness.StartCaddy(t, "sse_guard\nreverse_proxy "+app.URL)
	client := harness.NewClient(t, harness.HTTP1)
	older := client.Open(t, server.URL+"/raw", harness.WithBearer("alice"))
	older.Next(t)
	server.Reload(t, "sse_guard {\nend_timeout 2s\n}\nreverse_proxy "+app.URL)
	older.Next(t)
	harness.NewClient(t, harness.HTTP1).Open(t, server.URL+"/raw", harness.WithBearer("alice")).Next(t)
	notice := harness.RequireEnded(t, older, harness.Duplicated, "superseded")
	again := harness.NewClient(t, harness.HTTP1).Open(t, server.URL+"/raw", harness.WithBearer("alice"), harness.WithHeader("Last-Event-ID", notice.ID))
	assert.Equal(t, 204, again.Status)
}

// TestKey_FromAResponseHeader is known only when the backend has answered.
func TestKey_FromAResponseHeader(t *testing.T) {
	app := harness.StartFastAPI(t)
	server := harness.StartCaddy(t, "sse_guard {\nkey {rp.header.X-User}\n}\nreverse_proxy "+app.URL)
	client := harness.NewClient(t, harness.HTTP1)
	open := func(options ...harness.RequestOption) *harness.Stream {
		return client.Open(t, server.URL+"/user-header", options...)
	}
	older := open(harness.WithBearer("alice"))
	older.Next(t)
	bob := open(harness.WithBearer("bob"))
	bob.Next(t)
	newer := open(harness.WithHeader("Cookie", "access_token=alice"))
	newer.Next(t)
	notice := harness.RequireEnded(t, older, harness.Duplicated, "superseded")
	assert.Equal(t, 204, open(harness.WithBearer("alice"), harness.WithHeader("Last-Event-ID", notice.ID)).Status)
	bob.Next(t)
	newer.Next(t)
	harness.RequireNoTombstoneSeen(t, app)
}

// TestKey_WithAnEmptyPart is untracked, or refused.
func TestKey_WithAnEmptyPart(t *testing.T) {
	app := harness.StartFastAPI(t)
	server := harness.StartCaddy(t, `
		@strict query strict=1
		sse_guard @strict {
			missing_key deny
		}
		@lax not query strict=1
		sse_guard @lax
		reverse_proxy `+app.URL)
	client := harness.NewClient(t, harness.HTTP1)
	one, two := client.Open(t, server.URL+"/raw"), client.Open(t, server.URL+"/raw")
	one.Next(t)
	two.Next(t)
	one.Next(t)
	assert.Equal(t, 403, client.Open(t, server.URL+"/raw?strict=1").Status)
	response, _ := harness.Get(t, server.URL+"/raw?strict=1")
	assert.Equal(t, 403, response.StatusCode)
}

// TestEventNames can be changed.
func TestEventNames(t *testing.T) {
	app := harness.StartFastAPI(t)
	server := harness.StartCaddy(t, "sse_guard {\nevent superseded kicked\n}\nreverse_proxy "+app.URL)
	client := harness.NewClient(t, harness.HTTP1)
	older := client.Open(t, server.URL+"/raw", harness.WithBearer("alice"))
	older.Next(t)
	client.Open(t, server.URL+"/raw", harness.WithBearer("alice")).Next(t)
	notice := harness.RequireEnded(t, older, "kicked", "superseded")
	assert.Equal(t, harness.Duplicated, harness.NoticeOf(t, notice).Code)
}

// TestTwoGuards_OfOneKeyAreOne: a guard in the site and again in a block.
func TestTwoGuards_OfOneKeyAreOne(t *testing.T) {
	app := harness.StartFastAPI(t)
	server := harness.StartCaddy(t, "sse_guard\nhandle {\nsse_guard\nreverse_proxy "+app.URL+"\n}")
	client := harness.NewClient(t, harness.HTTP1)
	older := client.Open(t, server.URL+"/raw", harness.WithBearer("alice"))
	older.Next(t)
	older.Next(t)
	newer := client.Open(t, server.URL+"/raw", harness.WithBearer("alice"))
	newer.Next(t)
	harness.RequireEnded(t, older, harness.Duplicated, "superseded")
	newer.Next(t)
	app.WaitOpen(t, 1)
}

// TestTwoGuards_AnOuterOneThatRefusesLateLeavesTheUserTheStream: the outer guard can
// decide only when the backend has answered, so the inner one ends nobody before that.
func TestTwoGuards_AnOuterOneThatRefusesLateLeavesTheUserTheStream(t *testing.T) {
	for name, outer := range map[string]string{
		"key from the answer":        "key {rp.header.X-User}\npolicy reject",
		"takeover response":          "key user {sse_guard.token}\npolicy reject\ntakeover response",
		"key missing in the answer":  "key {rp.header.X-Nothing}\nmissing_key deny",
		"key missing in the request": "key {header.X-Nothing}\nmissing_key deny",
	} {
		t.Run(name, func(t *testing.T) {
			app := harness.StartFastAPI(t)
			server := harness.StartCaddy(t, "@guarded not query outer=no\nroute {\nsse_guard @guarded {\n"+outer+"\n}\nsse_guard\nreverse_proxy "+app.URL+"\n}")
			client := harness.NewClient(t, harness.HTTP1)
			open := func(query string) *harness.Stream {
				return client.Open(t, server.URL+"/user-header"+query, harness.WithBearer("alice"))
			}
			// The stream is held first where nothing refuses it, and the guards are no
			// strangers to each other.
			alice := open("")
			if alice.Status != 200 {
				alice = open("?outer=no")
			}
			harness.RequireAdmitted(t, alice)
			for range 2 {
				refused := open("")
				harness.RequireLive(t, alice)
				if refused.Status == 200 {
					harness.RequireRejected(t, refused)
				} else {
					assert.Equal(t, 403, refused.Status)
				}
			}
			harness.RequireLive(t, alice)
			app.WaitOpen(t, 1)
		})
	}
}

// TestTwoGuards_NobodyEndsForRoomThatIsMadeAnyway, whichever guard is further inside: the
// store is full, and the user's own older stream goes.
func TestTwoGuards_NobodyEndsForRoomThatIsMadeAnyway(t *testing.T) {
	const store = "sse_guard {\nkey store {query.store}\nlimit 2\n}\n"
	const user = "sse_guard {\nkey user {sse_guard.token}\n}\n"
	for name, guards := range map[string]string{"user inside": store + user, "store inside": user + store} {
		for _, takeover := range []string{"early", "at the header"} {
			t.Run(name+" "+takeover, func(t *testing.T) {
				app := harness.StartFastAPI(t)
				server := harness.StartCaddy(t, "route {\n"+guards+"reverse_proxy "+app.URL+"\n}")
				client := harness.NewClient(t, harness.HTTP1)
				options := []harness.RequestOption{}
				if takeover == "at the header" {
					options = append(options, harness.WithHeader("Accept", "*/*"))
				}
				open := func(user string) *harness.Stream {
					s := client.Open(t, server.URL+"/raw?store=7", append(options, harness.WithBearer(user))...)
					harness.RequireAdmitted(t, s)
					return s
				}
				bob, alice := open("bob"), open("alice")
				alice2 := open("alice")
				harness.RequireLive(t, bob)
				harness.RequireLive(t, alice2)
				harness.RequireEnded(t, alice, harness.Duplicated, "superseded")
				app.WaitOpen(t, 2)
			})
		}
	}
}

// TestTwoGuards_EndEarlyTogether: a backend that keeps one emitter per user sees the
// older stream leave first.
func TestTwoGuards_EndEarlyTogether(t *testing.T) {
	app := harness.StartFastAPI(t)
	server := harness.StartCaddy(t, "route {\nsse_guard {\nkey store {query.store}\nlimit 9\n}\nsse_guard\nreverse_proxy "+app.URL+"\n}")
	client := harness.NewClient(t, harness.HTTP1)
	open := func() *harness.Stream {
		s := client.Open(t, server.URL+"/emitter?store=7", harness.WithBearer("alice"))
		assert.Equal(t, 200, s.Status)
		return s
	}
	streams := []*harness.Stream{open()}
	for range 3 {
		streams = append(streams, open())
		app.WaitOpen(t, 1)
		assert.True(t, app.Emit(t, "alice", "news"), "the newer stream's emitter is there")
		streams[len(streams)-1].Next(t)
	}
}

// TestLateAnswer_DoesNotTakeTheKey: the key goes to who asked last.
func TestLateAnswer_DoesNotTakeTheKey(t *testing.T) {
	for _, protocol := range []harness.Protocol{harness.HTTP1, harness.H2C} {
		t.Run(string(protocol), func(t *testing.T) {
			app := harness.StartFastAPI(t)
			server := harness.StartCaddy(t, "sse_guard {\nkey {sse_guard.token}\n}\nreverse_proxy "+app.URL)
			client := harness.NewClient(t, protocol)
			late := make(chan *harness.Stream)
			go func() {
				s, _ := client.Connect(t.Context(), server.URL+"/slow-header?delay=1.5", "", harness.WithBearer("alice"))
				late <- s
			}()
			app.WaitStats(t, func(s harness.AppStats) bool { return len(app.Requests(t)) == 1 })
			newer := harness.NewClient(t, protocol).Open(t, server.URL+"/raw", harness.WithBearer("alice"))
			harness.RequireAdmitted(t, newer)
			older := <-late
			harness.RequireLive(t, newer)
			if assert.NotNil(t, older) {
				notice := harness.RequireEnded(t, older, harness.Duplicated, "superseded")
				assert.Contains(t, notice.ID, "sse-guard")
				again := client.Open(t, server.URL+"/raw", harness.WithBearer("alice"), harness.WithHeader("Last-Event-ID", notice.ID))
				assert.Equal(t, 204, again.Status)
			}
			harness.RequireLive(t, newer)
			app.WaitOpen(t, 1)
		})
	}
}

// A guard behind what answers every request guards nothing: somebody has to be told.
func TestStart_WarnsOfAGuardThatSeesNothing(t *testing.T) {
	log, err := harness.LoadSites(t, "order sse_guard after reverse_proxy",
		fmt.Sprintf("http://localhost:%d {\nreverse_proxy localhost:1\nsse_guard\n}", harness.FreePort(t)))
	require.NoError(t, err)
	line := log.WaitLogs(t, 1)[0]
	require.Equal(t, "warn", line.Level)
	require.Contains(t, line.Msg, "reverse_proxy answers all of them before")
	require.Contains(t, line.Raw, "Caddyfile:")
}
