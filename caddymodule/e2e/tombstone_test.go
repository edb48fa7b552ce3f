package e2e

import (
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/e2e/harness"
)

// supersede opens a stream, has it superseded by another, and returns the id
// that the first one carries away, and the second one.
func supersede(t testing.TB, url, token string) (tombstone string, newer *harness.Stream) {
	t.Helper()
	older := harness.NewClient(t, harness.HTTP1).Open(t, url, harness.WithBearer(token))
	older.Next(t)
	newer = harness.NewClient(t, harness.HTTP1).Open(t, url, harness.WithBearer(token))
	newer.Next(t)
	return harness.RequireEnded(t, older, harness.Duplicated, "superseded").ID, newer
}

// TestTombstone_Answers204 is problem P2: the ended client's own reconnect is
// told to stay away, and the newer stream does not notice.
func TestTombstone_Answers204(t *testing.T) {
	app := harness.StartFastAPI(t)
	server := harness.StartCaddy(t, "sse_guard\nreverse_proxy "+app.URL)
	tombstone, newer := supersede(t, server.URL+"/raw", "alice")

	client := harness.NewClient(t, harness.HTTP1)
	for name, open := range map[string]func() *harness.Stream{
		"header": func() *harness.Stream {
			return client.Open(t, server.URL+"/raw", harness.WithBearer("alice"), harness.WithHeader("Last-Event-ID", tombstone))
		},
		"query": func() *harness.Stream {
			return client.Open(t, server.URL+"/raw?lastEventId="+tombstone, harness.WithBearer("alice"))
		},
	} {
		answer := open()
		assert.Equal(t, 204, answer.Status, name)
		assert.Equal(t, "no-store", answer.Header.Get("Cache-Control"), name)
	}
	newer.Next(t)
	assert.False(t, newer.Ended())
	assert.Equal(t, 2, app.Stats(t).Opened)
	harness.RequireNoTombstoneSeen(t, app)
}

// TestTombstone_OthersAreNotAccepted presents ids that are no tombstone of the
// stream that is asked for: they open it, and never reach the backend.
func TestTombstone_OthersAreNotAccepted(t *testing.T) {
	app := harness.StartFastAPI(t)
	server := harness.StartCaddy(t, `
		@other path /sse
		sse_guard @other {
			zone other
		}
		@here path /raw /cors
		sse_guard @here
		reverse_proxy `+app.URL)
	tombstone, newer := supersede(t, server.URL+"/raw", "alice")
	newer.Close()
	foreignZone, other := supersede(t, server.URL+"/sse", "alice")
	other.Close()
	foreignPath, other := supersede(t, server.URL+"/cors", "alice")
	other.Close()
	foreignToken, other := supersede(t, server.URL+"/raw", "bob")
	other.Close()

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
				s := harness.NewClient(t, harness.HTTP1).Open(t, server.URL+"/raw"+query, harness.WithBearer("alice"), harness.WithHeader("Last-Event-ID", id))
				assert.Equal(t, 200, s.Status)
				assert.Equal(t, "1", s.Next(t).ID)
				s.Close()
			}
		})
	}
	harness.RequireNoTombstoneSeen(t, app)
}

// TestLastEventID_OfTheApplicationPasses: ids that are not the guard's are the
// backend's business.
func TestLastEventID_OfTheApplicationPasses(t *testing.T) {
	app := harness.StartFastAPI(t)
	server := harness.StartCaddy(t, "sse_guard\nreverse_proxy "+app.URL)
	s := harness.NewClient(t, harness.HTTP1).Open(t, server.URL+"/raw?a=1&lastEventId=7&b=%zz", harness.WithBearer("alice"), harness.WithHeader("Last-Event-ID", "41"))
	assert.Equal(t, "42", s.Next(t).ID)
	request := app.Requests(t)[0]
	assert.Equal(t, "a=1&lastEventId=7&b=%zz", request.Query)
}

// TestEventSources_SettleToOneStream has 100 clients that behave like the
// browser's EventSource share one token: each is superseded at most once, comes
// back once with its tombstone, and stays away.
func TestEventSources_SettleToOneStream(t *testing.T) {
	const clients = 100
	app := harness.StartFastAPI(t)
	server := harness.StartCaddy(t, "sse_guard\nreverse_proxy "+app.URL)
	sources := make([]*harness.EventSource, clients)
	var start sync.WaitGroup
	for i := range sources {
		client := harness.NewClient(t, harness.HTTP1)
		start.Go(func() { sources[i] = harness.NewEventSource(t, client, server.URL+"/sse", harness.WithBearer("alice")) })
	}
	start.Wait()

	var live []*harness.EventSource
	require.Eventually(t, func() bool {
		live = nil
		for _, s := range sources {
			if s.ReadyState() != "CLOSED" {
				live = append(live, s)
			}
		}
		return len(live) == 1
	}, harness.Patience, harness.Patience/100, "they do not come to rest")
	app.WaitOpen(t, 1)

	for _, s := range sources {
		if s == live[0] {
			assert.Equal(t, []int{200}, s.Answers())
			continue
		}
		assert.Equal(t, []int{200, 204}, s.Answers())
	}
	connects := app.Stats(t).Opened
	live[0].Next(t)
	assert.Equal(t, connects, app.Stats(t).Opened, "somebody still reconnects")
}
