package e2e

import (
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// supersede opens a stream, has it superseded by another, and returns the id
// that the first one carries away, and the second one.
func supersede(t testing.TB, url, token string) (tombstone string, newer *sseStream) {
	t.Helper()
	older := newSSEClient(t, http1).open(t, url, withBearer(token))
	older.next(t)
	newer = newSSEClient(t, http1).open(t, url, withBearer(token))
	newer.next(t)
	return requireEnded(t, older, duplicated, "superseded").ID, newer
}

// TestTombstone_Answers204 is problem P2: the ended client's own reconnect is
// told to stay away, and the newer stream does not notice.
func TestTombstone_Answers204(t *testing.T) {
	app := startFastAPI(t)
	server := startCaddy(t, "sse_guard\nreverse_proxy "+app.URL)
	tombstone, newer := supersede(t, server.URL+"/raw", "alice")

	client := newSSEClient(t, http1)
	for name, open := range map[string]func() *sseStream{
		"header": func() *sseStream {
			return client.open(t, server.URL+"/raw", withBearer("alice"), withHeader("Last-Event-ID", tombstone))
		},
		"query": func() *sseStream {
			return client.open(t, server.URL+"/raw?lastEventId="+tombstone, withBearer("alice"))
		},
	} {
		answer := open()
		assert.Equal(t, 204, answer.Status, name)
		assert.Equal(t, "no-store", answer.Header.Get("Cache-Control"), name)
	}
	newer.next(t)
	assert.False(t, newer.ended())
	assert.Equal(t, 2, app.stats(t).Opened)
	assertNoTombstoneSeen(t, app)
}

// TestTombstone_OthersAreNotAccepted presents ids that are no tombstone of the
// stream that is asked for: they open it, and never reach the backend.
func TestTombstone_OthersAreNotAccepted(t *testing.T) {
	app := startFastAPI(t)
	server := startCaddy(t, `
		@other path /sse
		sse_guard @other {
			zone other
		}
		@here path /raw /cors
		sse_guard @here
		reverse_proxy `+app.URL)
	tombstone, newer := supersede(t, server.URL+"/raw", "alice")
	newer.close()
	foreignZone, other := supersede(t, server.URL+"/sse", "alice")
	other.close()
	foreignPath, other := supersede(t, server.URL+"/cors", "alice")
	other.close()
	foreignToken, other := supersede(t, server.URL+"/raw", "bob")
	other.close()

	forged := []byte(tombstone)
	forged[len(forged)/2] ^= 1
	for name, id := range map[string]string{
		"forged":        string(forged),
		"truncated":     tombstone[:len(tombstone)-2],
		"prefix only":   tombstone[:strings.LastIndexByte(tombstone, '.')+1],
		"extended":      tombstone + "A",
		"foreign zone":  foreignZone,
		"foreign path":  foreignPath,
		"foreign token": foreignToken,
	} {
		t.Run(name, func(t *testing.T) {
			for _, query := range []string{"", "?lastEventId=" + id} {
				s := newSSEClient(t, http1).open(t, server.URL+"/raw"+query, withBearer("alice"), withHeader("Last-Event-ID", id))
				assert.Equal(t, 200, s.Status)
				assert.Equal(t, "1", s.next(t).ID)
				s.close()
			}
		})
	}
	assertNoTombstoneSeen(t, app)
}

// TestLastEventID_OfTheApplicationPasses: ids that are not the guard's are the
// backend's business.
func TestLastEventID_OfTheApplicationPasses(t *testing.T) {
	app := startFastAPI(t)
	server := startCaddy(t, "sse_guard\nreverse_proxy "+app.URL)
	s := newSSEClient(t, http1).open(t, server.URL+"/raw?a=1&lastEventId=7&b=%zz", withBearer("alice"), withHeader("Last-Event-ID", "41"))
	assert.Equal(t, "42", s.next(t).ID)
	request := app.requests(t)[0]
	assert.Equal(t, "a=1&lastEventId=7&b=%zz", request.Query)
}

func assertNoTombstoneSeen(t testing.TB, app *fastAPI) {
	t.Helper()
	for _, request := range app.requests(t) {
		assert.NotContains(t, request.Query, "sse-guard")
		for _, header := range request.Headers {
			assert.NotContains(t, header[1], "sse-guard", header[0])
		}
	}
}

// TestEventSources_SettleToOneStream has 100 clients that behave like the
// browser's EventSource share one token: each is superseded at most once, comes
// back once with its tombstone, and stays away.
func TestEventSources_SettleToOneStream(t *testing.T) {
	const clients = 100
	app := startFastAPI(t)
	server := startCaddy(t, "sse_guard\nreverse_proxy "+app.URL)
	sources := make([]*eventSourceLike, clients)
	var start sync.WaitGroup
	for i := range sources {
		client := newSSEClient(t, http1)
		start.Go(func() { sources[i] = newEventSource(t, client, server.URL+"/sse", withBearer("alice")) })
	}
	start.Wait()

	var live []*eventSourceLike
	require.Eventually(t, func() bool {
		live = nil
		for _, s := range sources {
			if s.readyState() != "CLOSED" {
				live = append(live, s)
			}
		}
		return len(live) == 1
	}, patience, patience/100, "they do not come to rest")
	app.waitOpen(t, 1)

	for _, s := range sources {
		if s == live[0] {
			assert.Equal(t, []int{200}, s.answers())
			continue
		}
		assert.Equal(t, []int{200, 204}, s.answers())
	}
	connects := app.stats(t).Opened
	live[0].next(t)
	assert.Equal(t, connects, app.stats(t).Opened, "somebody still reconnects")
}
