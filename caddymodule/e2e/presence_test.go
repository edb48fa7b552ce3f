package e2e

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/e2e/harness"
)

const presenceLines = "label room {query.room}\npresence room PRESENCE 200ms"

// counts are the numbers that a stream was told so far.
func counts(s *harness.Stream) (told []int) {
	for _, m := range regexp.MustCompile(`(?m)^event: PRESENCE\r?\ndata: .*"count":(\d+)}$`).FindAllSubmatch(s.Bytes(), -1) {
		n, _ := strconv.Atoi(string(m[1]))
		told = append(told, n)
	}
	return told
}

// requireCount waits until the last number that a stream was told is n.
func requireCount(t testing.TB, s *harness.Stream, n int) {
	t.Helper()
	require.Eventually(t, func() bool {
		told := counts(s)
		return len(told) > 0 && told[len(told)-1] == n
	}, harness.Patience, 10*time.Millisecond, "not %d", n)
}

// rest waits for as long as it takes to tell a change, several times over.
func rest(t testing.TB) {
	until := time.Now().Add(1500 * time.Millisecond)
	require.Eventually(t, func() bool { return time.Now().After(until) }, harness.Patience, 50*time.Millisecond)
}

// TestPresence_OfARoom: who comes, goes, takes over and reloads its page, over a reload of
// the configuration.
func TestPresence_OfARoom(t *testing.T) {
	app := harness.StartFastAPI(t)
	site := "sse_guard {\n" + presenceLines + "\n%s\n}\nreverse_proxy " + app.URL
	server := harness.StartAdminCaddy(t, fmt.Sprintf(site, ""))
	open := func(user, room string) *harness.Stream {
		return harness.NewClient(t, harness.HTTP1).Open(t, server.URL+"/raw?room="+room, harness.WithBearer(user))
	}
	ann, other := open("ann", "one"), open("cid", "two")
	e := ann.NextOfType(t, "PRESENCE")
	var said struct {
		Label, Value string
		Count        int
	}
	require.NoError(t, json.Unmarshal([]byte(e.Data), &said))
	assert.Equal(t, "room", said.Label)
	assert.Equal(t, "one", said.Value)
	assert.Equal(t, 1, said.Count)
	bob := open("bob", "one")
	requireCount(t, ann, 2)
	requireCount(t, bob, 2)
	newer := open("bob", "one")
	harness.RequireEnded(t, bob, harness.Duplicated, "superseded")
	requireCount(t, newer, 2)

	server.Reload(t, fmt.Sprintf(site, "retry 7s"))
	dan := open("dan", "one")
	requireCount(t, ann, 3)
	requireCount(t, dan, 3)
	dan.Close()
	requireCount(t, ann, 2)
	newer.Close()
	requireCount(t, ann, 1)
	rest(t)
	assert.Equal(t, []int{1, 2, 3, 2, 1}, counts(ann), "nobody counted twice")
	assert.Equal(t, []int{1}, counts(other))
	app.WaitOpen(t, 2)
}

// TestPresence_InABrowser: README's page.
func TestPresence_InABrowser(t *testing.T) {
	app := harness.StartFastAPI(t)
	server := harness.StartCaddy(t, "sse_guard {\n"+presenceLines+"\n}\nreverse_proxy "+app.URL)
	browser := harness.StartBrowser(t)
	page := func(user string) *harness.Tab {
		tab := browser.NewTab(t, server.URL+"/login")
		tab.Eval(t, fmt.Sprintf(`new EventSource("/raw?room=one&token=%s").addEventListener("PRESENCE", (e) => {
			document.body.dataset.state = JSON.parse(e.data).count;
		})`, user))
		return tab
	}
	ann := page("ann")
	ann.WaitState(t, "1")
	bob := page("bob")
	ann.WaitState(t, "2")
	bob.WaitState(t, "2")
	bob.Close()
	ann.WaitState(t, "1")
}

// TestPresence_OverThreeNodes, one of which dies.
func TestPresence_OverThreeNodes(t *testing.T) {
	app := harness.StartFastAPI(t)
	processes, urls := nodes(t, 3, app, harness.StartRedis(t), presenceLines)
	open := func(node int, user string) *harness.Stream {
		s := harness.NewClient(t, harness.HTTP1).Open(t, urls[node]+"/raw?room=one", harness.WithBearer(user))
		s.Next(t)
		return s
	}
	ann := open(0, "ann")
	requireCount(t, ann, 1)
	bob := open(1, "bob")
	requireCount(t, ann, 2)
	requireCount(t, bob, 2)
	cid := open(2, "cid")
	requireCount(t, ann, 3)
	requireCount(t, cid, 3)

	dan := open(0, "dan")
	requireCount(t, ann, 4)
	requireCount(t, dan, 4)
	dan.Close()
	requireCount(t, ann, 3)
	requireCount(t, cid, 3)

	// Who takes over from another node does not count twice, unless the machine is so busy
	// that the nodes hear too late of each other.
	unseen := 0
	for _, node := range []int{2, 1, 2} {
		before := len(counts(ann))
		newer := open(node, "bob")
		harness.RequireEnded(t, bob, harness.Duplicated, "superseded")
		requireCount(t, newer, 3)
		bob = newer
		rest(t)
		requireCount(t, ann, 3)
		if len(counts(ann)) == before {
			unseen++
		}
	}
	assert.NotZero(t, unseen, "takeovers of which nobody else is told")

	processes[2].Kill()
	killed := time.Now()
	requireCount(t, ann, 1)
	assert.Less(t, time.Since(killed), 2*time.Second+2*time.Second, "the lease is 2 seconds, and the machine may be busy")
	requireCount(t, open(1, "bob"), 2)
	requireCount(t, ann, 2)
	processes[1].Stop(t)
	requireCount(t, ann, 1)
}
