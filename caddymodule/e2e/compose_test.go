package e2e

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

// TestTwoGuards_EachWithItsOwnLimit: two devices per store, one stream per user.
func TestTwoGuards_EachWithItsOwnLimit(t *testing.T) {
	app := startFastAPI(t)
	server := startCaddy(t, `route {
		sse_guard {
			key store {query.store}
			limit 2
		}
		sse_guard {
			key user {sse_guard.token}
		}
		reverse_proxy `+app.URL+`
	}`)
	client := newSSEClient(t, http1)
	open := func(user string) *sseStream {
		s := client.open(t, server.URL+"/raw?store=7", withBearer(user))
		s.next(t)
		return s
	}
	alice, bob := open("alice"), open("bob")
	alice2 := open("alice") // her own older stream goes, not the store's oldest only
	requireEnded(t, alice, duplicated, "superseded")
	bob.next(t)
	carol := open("carol")
	requireEnded(t, bob, duplicated, "superseded")
	alice2.next(t)
	carol.next(t)
	app.waitOpen(t, 2)
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
				app := startFastAPI(t)
				server := startCaddy(t, "route {\n"+guards+"reverse_proxy "+app.URL+"\n}")
				client := newSSEClient(t, http1)
				alice := client.open(t, server.URL+"/raw", withBearer("alice"))
				alice.next(t)
				bob := client.open(t, server.URL+"/raw", withBearer("bob"))
				bob.next(t)

				if takeover == "early" {
					refused := client.open(t, server.URL+"/raw", withBearer("alice"))
					requireEnded(t, refused, duplicateSession, "rejected")
				} else {
					response, _ := get(t, server.URL+"/raw", withBearer("alice"))
					assert.Equal(t, 409, response.StatusCode)
				}
				alice.next(t)
				bob.next(t)
				app.waitOpen(t, 2)
				alice.next(t)
			})
		}
	}
}

// TestZones do not see each other; neither do two paths with one token.
func TestZones(t *testing.T) {
	app := startFastAPI(t)
	server := startCaddy(t, `
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
	client := newSSEClient(t, http1)
	open := func(path string) *sseStream {
		s := client.open(t, server.URL+path, withBearer("alice"))
		s.next(t)
		return s
	}
	a, b, sse, raw := open("/a/raw"), open("/b/raw"), open("/sse"), open("/raw")
	app.waitOpen(t, 4)
	open("/c/raw") // zone a again
	requireEnded(t, a, duplicated, "superseded")
	for _, s := range []*sseStream{b, sse, raw} {
		s.next(t)
	}
}

// TestReload_KeepsHolders: a stream of the old configuration is superseded by
// one under the new.
func TestReload_KeepsHolders(t *testing.T) {
	app := startFastAPI(t)
	server := startCaddy(t, "sse_guard\nreverse_proxy "+app.URL)
	client := newSSEClient(t, http1)
	older := client.open(t, server.URL+"/raw", withBearer("alice"))
	older.next(t)
	server.reload(t, "sse_guard {\nend_timeout 2s\n}\nreverse_proxy "+app.URL)
	older.next(t)
	newSSEClient(t, http1).open(t, server.URL+"/raw", withBearer("alice")).next(t)
	notice := requireEnded(t, older, duplicated, "superseded")
	again := newSSEClient(t, http1).open(t, server.URL+"/raw", withBearer("alice"), withHeader("Last-Event-ID", notice.ID))
	assert.Equal(t, 204, again.Status)
}

// TestKey_FromAResponseHeader is known only when the backend has answered.
func TestKey_FromAResponseHeader(t *testing.T) {
	app := startFastAPI(t)
	server := startCaddy(t, "sse_guard {\nkey {rp.header.X-User}\n}\nreverse_proxy "+app.URL)
	client := newSSEClient(t, http1)
	open := func(options ...requestOption) *sseStream {
		return client.open(t, server.URL+"/user-header", options...)
	}
	older := open(withBearer("alice"))
	older.next(t)
	bob := open(withBearer("bob"))
	bob.next(t)
	newer := open(withHeader("Cookie", "access_token=alice"))
	newer.next(t)
	notice := requireEnded(t, older, duplicated, "superseded")
	assert.Equal(t, 204, open(withBearer("alice"), withHeader("Last-Event-ID", notice.ID)).Status)
	bob.next(t)
	newer.next(t)
	assertNoTombstoneSeen(t, app)
}

// TestKey_WithAnEmptyPart is untracked, or refused.
func TestKey_WithAnEmptyPart(t *testing.T) {
	app := startFastAPI(t)
	server := startCaddy(t, `
		@strict query strict=1
		sse_guard @strict {
			missing_key deny
		}
		@lax not query strict=1
		sse_guard @lax
		reverse_proxy `+app.URL)
	client := newSSEClient(t, http1)
	one, two := client.open(t, server.URL+"/raw"), client.open(t, server.URL+"/raw")
	one.next(t)
	two.next(t)
	one.next(t)
	assert.Equal(t, 403, client.open(t, server.URL+"/raw?strict=1").Status)
	response, _ := get(t, server.URL+"/raw?strict=1")
	assert.Equal(t, 403, response.StatusCode)
}

// TestEventNames can be changed.
func TestEventNames(t *testing.T) {
	app := startFastAPI(t)
	server := startCaddy(t, "sse_guard {\nevent superseded kicked\n}\nreverse_proxy "+app.URL)
	client := newSSEClient(t, http1)
	older := client.open(t, server.URL+"/raw", withBearer("alice"))
	older.next(t)
	client.open(t, server.URL+"/raw", withBearer("alice")).next(t)
	notice := requireEnded(t, older, "kicked", "superseded")
	assert.Equal(t, duplicated, noticeOf(t, notice).Code)
}

// TestTwoGuards_OfOneKeyAreOne: a guard in the site and again in a block.
func TestTwoGuards_OfOneKeyAreOne(t *testing.T) {
	app := startFastAPI(t)
	server := startCaddy(t, "sse_guard\nhandle {\nsse_guard\nreverse_proxy "+app.URL+"\n}")
	client := newSSEClient(t, http1)
	older := client.open(t, server.URL+"/raw", withBearer("alice"))
	older.next(t)
	older.next(t)
	newer := client.open(t, server.URL+"/raw", withBearer("alice"))
	newer.next(t)
	requireEnded(t, older, duplicated, "superseded")
	newer.next(t)
	app.waitOpen(t, 1)
}
