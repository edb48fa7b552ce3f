package nodes

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/e2e/harness"
)

// adminNodes starts so many Caddy processes, each with an admin endpoint and the live page,
// that share a Redis, and returns them once they know each other.
func adminNodes(t *testing.T, n int) []*harness.AdminCaddy {
	redis := harness.StartRedis(t)
	site := harness.RoomSite(fmt.Sprintf("registry redis {\naddress %s\nlease 60s\ntimeout 3s\n}", redis.Addr), harness.StartTickingBackend(t)) + livePage
	all := make([]*harness.AdminCaddy, n)
	for i := range all {
		all[i] = harness.StartAdminCaddy(t, site)
	}
	for _, node := range all {
		require.Eventually(t, func() bool {
			return len(node.Stats(t).Zones[0].Nodes) == n
		}, harness.Patience, 20*time.Millisecond, "the nodes hear of each other")
	}
	return all
}

const livePage = `
basic_auth /status* {
	# see and steer
	admin $2a$04$AeT0N1W8qfraLCdrdQ53FusEb849D5hnOWzwWuh7C.VfM.4C.eZ1y
}
sse_guard_status /status*`

// TestAdmin_CoversAllNodes asks one of three nodes about streams of all.
func TestAdmin_CoversAllNodes(t *testing.T) {
	servers := adminNodes(t, 3)
	admin := servers[0]
	open := func(i int, user, room string) *harness.Stream {
		s := harness.NewClient(t, harness.HTTP1).Open(t, servers[i].URL+"/events?room="+room+"&user="+user, harness.WithBearer("token-of-"+user))
		harness.RequireLive(t, s)
		return s
	}
	ann, bob, cat, dan := open(0, "ann", "one"), open(1, "bob", "one"), open(2, "cat", "two"), open(2, "dan", "one")

	rows := admin.Streams(t, "")
	require.Len(t, rows, 4)
	require.True(t, slices.IsSortedFunc(rows, func(a, b harness.Listed) int { return strings.Compare(a.ID, b.ID) }))
	nodes := make(map[string]int)
	for _, row := range rows {
		nodes[row.Node]++
		require.Equal(t, "/events", row.Path)
		require.NotZero(t, row.Bytes)
	}
	require.Len(t, nodes, 3)
	require.Len(t, admin.Streams(t, "label.room=one"), 3)
	require.Empty(t, admin.Streams(t, "older_than=1h"))
	require.Len(t, admin.Streams(t, "older_than=1ms&label.room=two"), 1)
	require.Len(t, admin.Streams(t, "id="+rows[3].ID), 1)

	stats := admin.Stats(t)
	require.Equal(t, 4, stats.Streams.Live)
	require.Len(t, stats.Zones, 1)
	require.Empty(t, stats.Zones[0].Incomplete)
	for _, node := range stats.Zones[0].Nodes {
		require.Equal(t, nodes[node.Node], node.Streams.Live)
	}
	require.Equal(t, map[string]int{"one": 3, "two": 1}, stats.Zones[0].Labels["room"].Values)

	require.Equal(t, 3, admin.Notify(t, `{"select":{"labels":{"room":"one"}},"event":"MAINTENANCE","data":"at\nnoon"}`))
	for _, s := range []*harness.Stream{ann, bob, dan} {
		require.Equal(t, "at\nnoon", s.NextOfType(t, "MAINTENANCE").Data)
	}

	require.Equal(t, 1, admin.End(t, `{"select":{"labels":{"room":"two"},"older_than":"1ms"},"message":"Call us."}`))
	notice := harness.RequireEnded(t, cat, harness.Revoked, "revoked")
	require.Equal(t, "Call us.", harness.NoticeOf(t, notice).Message)

	// Who is denied is refused by every node, and ended by it: the streams of the same
	// token too.
	require.Equal(t, 1, admin.End(t, `{"select":{"raw_token":"token-of-bob"},"message":"Not you.","deny":"10m"}`))
	notice = harness.RequireEnded(t, bob, harness.Revoked, "revoked")
	require.Equal(t, "Not you.", harness.NoticeOf(t, notice).Message)
	harness.RequireDenied(t, servers[0].URL+"/events?user=bob", harness.WithBearer("token-of-bob"))
	for _, server := range servers[1:] {
		require.Eventually(t, func() bool {
			s := harness.NewClient(t, harness.HTTP1).Open(t, server.URL+"/events?user=bob", harness.WithBearer("token-of-bob"))
			defer s.Close()
			return s.Status == http.StatusUnauthorized
		}, harness.Patience, 20*time.Millisecond, "it has not heard of the denial")
	}
	harness.RequireLive(t, ann)
	harness.RequireLive(t, dan)
}

// TestAdmin_SaysWhichNodesDoNotAnswer where a process of three hangs.
func TestAdmin_SaysWhichNodesDoNotAnswer(t *testing.T) {
	servers := adminNodes(t, 3)
	admin := servers[0]
	streams := make([]*harness.Stream, len(servers))
	for i, server := range servers {
		streams[i] = harness.NewClient(t, harness.HTTP1).Open(t, fmt.Sprintf("%s/events?user=%d", server.URL, i))
		harness.RequireLive(t, streams[i])
	}
	servers[2].Pause(t)
	var page struct {
		Streams    []harness.Listed
		Incomplete string
	}
	admin.Ask(t, http.MethodGet, "streams", "", &page)
	require.Len(t, page.Streams, 2)
	require.Regexp(t, `node [0-9a-f]{16}: the node has not answered in time`, page.Incomplete)
	stats := admin.Stats(t)
	require.Equal(t, 2, stats.Streams.Live)
	require.Len(t, stats.Zones[0].Nodes, 2)
	require.Equal(t, page.Incomplete, stats.Zones[0].Incomplete)

	everybody := `{"select":{},"all":true`
	problem := admin.Refused(t, http.StatusBadGateway, "notify", everybody+`,"event":"HI","data":"you"}`)
	require.Equal(t, 2, *problem.Notified)
	require.Contains(t, problem.Detail, page.Incomplete)
	problem = admin.Refused(t, http.StatusBadGateway, "end", everybody+`,"message":"Bye."}`)
	require.Equal(t, 2, *problem.Ended)
	require.Contains(t, problem.Detail, page.Incomplete)
	for _, s := range streams[:2] {
		require.Equal(t, "you", s.NextOfType(t, "HI").Data)
		notice := harness.RequireEnded(t, s, harness.Revoked, "revoked")
		require.Equal(t, "Bye.", harness.NoticeOf(t, notice).Message)
	}
	servers[2].Resume(t)
	require.Eventually(t, func() bool {
		return admin.Stats(t).Zones[0].Incomplete == ""
	}, harness.Patience, 20*time.Millisecond)
}

// TestAdmin_TheFeedCoversAllNodes reads what happens on one node at the other.
func TestAdmin_TheFeedCoversAllNodes(t *testing.T) {
	servers := adminNodes(t, 2)
	admin := servers[0]
	other := admin.Stats(t).Zones[0].Nodes[1].Node
	feed := harness.NewClient(t, harness.HTTP1).Open(t, servers[0].Admin+"/sse_guard/events")
	require.Equal(t, http.StatusOK, feed.Status)
	var seen []harness.Event
	told := func(parts ...string) bool {
		for range len(feed.Events()) {
			seen = append(seen, feed.Next(t))
		}
		return slices.ContainsFunc(seen, func(e harness.Event) bool {
			return !slices.ContainsFunc(parts, func(part string) bool { return !strings.Contains(e.Data, part) })
		})
	}
	open := func(user string) *harness.Stream {
		s := harness.NewClient(t, harness.HTTP1).Open(t, servers[1].URL+"/events?room="+user+"&user="+user)
		harness.RequireLive(t, s)
		return s
	}
	require.Eventually(t, func() bool {
		open("somebody").Close()
		return told(`"event":"admitted"`, other)
	}, harness.Patience, 50*time.Millisecond, "the other node hears soon that somebody listens")

	ann := open("ann")
	id := admin.Streams(t, "label.room=ann")[0].ID
	newer := open("ann")
	require.Equal(t, 1, admin.End(t, `{"select":{},"all":true}`))
	harness.RequireEnded(t, newer, harness.Revoked, "revoked")
	ann.Wait(t)
	for _, want := range [][]string{
		{`"event":"admitted"`, id, other}, {`"event":"superseded"`, id, other}, {`"event":"ended"`, id, `"reason":"superseded"`, other},
		{`"event":"ended"`, `"reason":"revoked"`, other},
	} {
		require.Eventually(t, func() bool { return told(want...) }, harness.Patience, 20*time.Millisecond, "%s", want)
	}
}

// table is what a live page knows of the streams, by their IDs.
type table map[string]harness.Listed

// apply does what an event "streams" of the feed says.
func (tb table) apply(t *testing.T, e harness.Event) {
	t.Helper()
	var change struct {
		Reset      bool
		Put        []harness.Listed
		Gone       []string
		Incomplete string
	}
	require.NoError(t, json.Unmarshal([]byte(e.Data), &change))
	require.Empty(t, change.Incomplete)
	if change.Reset {
		clear(tb)
	}
	for _, row := range change.Put {
		tb[row.ID] = row
	}
	for _, id := range change.Gone {
		delete(tb, id)
	}
}

// TestStatus_CoversAllNodes: the page of one of three nodes shows, notifies and ends the
// streams of all.
func TestStatus_CoversAllNodes(t *testing.T) {
	servers := adminNodes(t, 3)
	page := servers[0].URL + "/status/"
	asAdmin := func(r *http.Request) { r.SetBasicAuth("admin", "see and steer") }
	open := func(i int, user string) *harness.Stream {
		s := harness.NewClient(t, harness.HTTP1).Open(t, servers[i].URL+"/events?room="+user+"&user="+user, harness.WithBearer("token-of-"+user))
		harness.RequireLive(t, s)
		return s
	}
	open(0, "ann")
	bob, cat := open(1, "bob"), open(2, "cat")
	response, _ := harness.Get(t, page)
	require.Equal(t, http.StatusUnauthorized, response.StatusCode)
	feed := harness.NewClient(t, harness.HTTP1).Open(t, page+"feed", asAdmin)
	require.Equal(t, http.StatusOK, feed.Status)
	rows := make(table)
	reads := func(name string, until func(harness.Event) bool) {
		t.Helper()
		for done := false; !done; {
			e := feed.Next(t)
			if e.Type == "streams" {
				rows.apply(t, e)
			}
			done = e.Type == name && until(e)
		}
	}
	reads("streams", func(harness.Event) bool { return len(rows) == 3 })
	nodes := make(map[string]bool)
	for _, row := range rows {
		nodes[row.Node] = true
	}
	require.Len(t, nodes, 3)
	reads("stats", func(e harness.Event) bool { return strings.Contains(e.Data, `"streams":{"live":3,`) })

	post := func(name, body string) string {
		t.Helper()
		response, answer := harness.Send(t, http.MethodPost, page+name, harness.WithPost(body), asAdmin,
			harness.WithHeader("Content-Type", "application/json"), harness.WithHeader("Sec-Fetch-Site", "same-origin"))
		require.Equal(t, http.StatusOK, response.StatusCode, answer)
		return answer
	}
	require.JSONEq(t, `{"notified":3}`, post("notify", `{"select":{},"all":true,"event":"HI","data":"you"}`))
	require.Equal(t, "you", cat.NextOfType(t, "HI").Data)

	// A takeover on one of the others is told, with the node.
	of := servers[0].Streams(t, "label.room=bob")[0]
	newer := open(1, "bob")
	bob.Wait(t)
	reads("lines", func(e harness.Event) bool {
		return strings.Contains(e.Data, `"event":"superseded"`) && strings.Contains(e.Data, of.ID) && strings.Contains(e.Data, of.Node)
	})
	id := servers[0].Streams(t, "label.room=bob&state=live")[0].ID
	require.JSONEq(t, `{"ended":1}`, post("end", `{"select":{"id":"`+id+`"},"message":"Call us."}`))
	notice := harness.RequireEnded(t, newer, harness.Revoked, "revoked")
	require.Equal(t, "Call us.", harness.NoticeOf(t, notice).Message)
	reads("streams", func(harness.Event) bool { _, there := rows[id]; return !there && len(rows) == 2 })
	require.True(t, slices.ContainsFunc(servers[0].HandlerLogs(t), func(l harness.LogLine) bool {
		return strings.Contains(l.Raw, `"user":"admin"`) && strings.Contains(l.Raw, `"select":{"id":"`+id+`"}`)
	}), "the log says who has ended it")
}
