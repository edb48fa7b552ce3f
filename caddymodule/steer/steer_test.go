package steer

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/identity"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
	"github.com/sse-guard/sse-guard/caddymodule/registry/memory"
	"github.com/sse-guard/sse-guard/caddymodule/zone"
)

// Edits of a stream.

func labelled(room string) func(*guest) {
	return func(g *guest) {
		g.about.Labels = registry.Labels{Names: []string{"plan", "room"}, Values: []string{"", registry.LabelValue(room)}}
	}
}

func verified(sub string) func(*guest) {
	return func(g *guest) {
		g.holder.Subject, g.about.Sub = registry.ID(identity.HashOfSubject("", sub)), sub
	}
}

func opened(ago time.Duration) func(*guest) {
	return func(g *guest) { g.holder.Since = time.Now().Add(-ago) }
}

func untracked(g *guest) { g.untracked = true }

func TestStreams_ShowsWhatIsKnown(t *testing.T) {
	s := newSite(t, "default")
	z := s.zones[0]
	g := s.open(z, "a", labelled("one"), verified("alice"), opened(time.Minute), func(g *guest) {
		g.about.Protocol, g.about.Path = "HTTP/2.0", "/events"
		g.holder.Client = hash("client")
	})
	page := s.list("")
	require.Len(t, page.Streams, 1)
	require.Empty(t, page.Next)
	got := page.Streams[0]
	require.InDelta(t, 60, got.AgeSeconds, 30)
	require.WithinDuration(t, time.Now().Add(-time.Minute), got.Since, 30*time.Second)
	require.WithinDuration(t, time.Now(), got.LastEventAt, time.Minute)
	require.NotEmpty(t, got.Node)
	got.AgeSeconds, got.Since, got.LastEventAt, got.Node = 0, time.Time{}, time.Time{}, ""
	require.Equal(t, Stream{
		ID: g.id(), Zone: "default", State: registry.StateLive,
		Key: identity.Hash(g.holder.Key).Short(), Token: identity.Hash(g.holder.Token).Short(), Client: identity.Hash(g.holder.Client).Short(),
		Subject: "alice", Events: 1, Bytes: 13, RemoteIP: "192.0.2.1", Protocol: "HTTP/2.0", Path: "/events",
		Labels: map[string]string{"room": "one"},
	}, got)
}

// The members of a stream are those that are documented.
func TestStreams_SchemaIsWhatIsDocumented(t *testing.T) {
	s := newSite(t, "default")
	s.open(s.zones[0], "", untracked)
	body := s.do(http.MethodGet, "streams", "").body
	for _, member := range []string{`{"streams":[{"id":"`, `"zone":"default"`, `"state":"untracked"`, `"since":"`, `"age_seconds":`, `"events":`, `"bytes":`, `"remote_ip":`, `"node":"`, `"protocol":`, `"path":`, `"labels":{}`} {
		require.Contains(t, body, member)
	}
	require.NotContains(t, body, `"token"`)
	require.NotContains(t, body, `"subject"`)
	require.Equal(t, "{\"streams\":[]}\n", newSite(t).do(http.MethodGet, "streams", "").body)
	require.Equal(t, "{\"streams\":[]}\n", s.do(http.MethodGet, "streams?state=live", "").body)
}

func TestStreams_Filters(t *testing.T) {
	s := newSite(t, "default", "shop")
	z := s.zones[0]
	long := strings.Repeat("long", 30)
	a := s.open(z, "a", labelled("one"), opened(time.Hour))
	b := s.open(z, "b", labelled(long), verified("bob"))
	c := s.open(z, "", untracked, labelled("one"))
	d := s.open(s.zones[1], "d", func(g *guest) { g.holder.Client = hash("client d") })
	for query, want := range map[string][]*guest{
		"":                               {a, b, c, d},
		"zone=default":                   {a, b, c},
		"state=live":                     {a, b, d},
		"state=untracked":                {c},
		"state=parked":                   {},
		"subject=bob":                    {b},
		"subject=alice":                  {},
		"label.room=one":                 {a, c},
		"label.room=one&state=live":      {a},
		"label.room=" + long:             {b},
		"label.plan=one":                 {},
		"older_than=10m":                 {a},
		"id=" + a.id():                   {a},
		"id=" + a.id() + "&zone=shop":    {},
		"key=" + short(b.holder.Key):     {b},
		"token=" + short(a.holder.Token): {a},
		"token=" + identity.HashPart(identity.Hash(a.holder.Token)): {a},
		"client=" + short(d.holder.Client):                          {d},
		"client=" + strings.Repeat("00", 8):                         {a, b, c},
	} {
		require.ElementsMatch(t, idsOf(want...), ids(s.list(query)), query)
	}
}

func TestStreams_PagesListEachStreamOnce(t *testing.T) {
	s := newSite(t, "default", "shop")
	var want []*guest
	for i := range 25 {
		want = append(want, s.open(s.zones[i%2], fmt.Sprint(i)))
	}
	require.Len(t, s.list("zone=default&limit=13").Streams, 13)
	require.Empty(t, s.list("zone=default&limit=13").Next)
	require.NotEmpty(t, s.list("zone=default&limit=12").Next)
	var got []string
	cursor, pages := "", 0
	for ; ; pages++ {
		page := s.list("limit=4&cursor=" + cursor)
		require.LessOrEqual(t, len(page.Streams), 4)
		got = append(got, ids(page)...)
		if pages == 2 { // of those that come and go meanwhile, any may be listed
			s.open(s.zones[0], "late")
		}
		if cursor = page.Next; cursor == "" {
			break
		}
	}
	require.GreaterOrEqual(t, pages, 6)
	require.True(t, slices.IsSorted(got))
	require.Len(t, slices.Compact(slices.Clone(got)), len(got))
	for _, g := range want {
		require.Contains(t, got, g.id())
	}
}

// elsewhere makes the first zone one of two nodes, and returns the zone of the other.
func (s *site) elsewhere(more ...registry.Node) *zone.Zone {
	other := s.newZone("default", func(n registry.Node) registry.Registry { return memory.New(n) })
	s.zones[0] = s.newZone("default", func(n registry.Node) registry.Registry {
		return &nodes{Registry: memory.New(n), others: append([]registry.Node{other.Streams}, more...)}
	})
	return other
}

func TestNodes_AreAllAsked(t *testing.T) {
	s := newSite(t, "default")
	other := s.elsewhere()
	here, there := s.open(s.zones[0], "a", labelled("one")), s.open(other, "b", labelled("one"))
	require.ElementsMatch(t, idsOf(here, there), ids(s.list("")))
	first := s.list("limit=1")
	require.Len(t, first.Streams, 1)
	require.NotEqual(t, first.Streams, s.list("limit=1&cursor="+first.Next).Streams)

	var stats Stats
	s.ask(http.MethodGet, "stats", "", &stats)
	require.Equal(t, 2, stats.Streams.Live)
	require.Len(t, stats.Zones[0].Nodes, 2)
	require.Equal(t, map[string]LabelStats{"room": {Values: map[string]int{"one": 2}}}, stats.Zones[0].Labels)

	require.Equal(t, 2, s.notify(`{"select":{"zone":"default"},"event":"HI","data":"you"}`).Notified)
	here.reads(t, "event: HI\ndata: you\n\n")
	there.reads(t, "event: HI\ndata: you\n\n")

	require.Equal(t, 2, s.end(`{"select":{},"all":true}`).Ended)
	here.ends(t)
	there.ends(t)
}

// What a node does not answer is not passed over in silence.
func TestNodes_ThatDoNotAnswerAreNamed(t *testing.T) {
	s := newSite(t, "default")
	s.elsewhere(mute{})
	g := s.open(s.zones[0], "a")
	page := s.list("")
	require.Equal(t, idsOf(g), ids(page))
	require.Equal(t, `zone "default": node n: it has not answered in time`, page.Incomplete)
	var stats Stats
	s.ask(http.MethodGet, "stats", "", &stats)
	require.Equal(t, 1, stats.Streams.Live)
	require.Contains(t, stats.Zones[0].Incomplete, "node n")

	p := s.problem(http.StatusBadGateway, http.MethodPost, "notify", `{"select":{},"all":true,"data":"x"}`)
	require.Equal(t, 1, *p.Notified)
	require.Contains(t, p.Detail, "node n")
	p = s.problem(http.StatusBadGateway, http.MethodPost, "end", `{"select":{},"all":true}`)
	require.Equal(t, 1, *p.Ended)
	require.Contains(t, p.Detail, "node n")
	g.ends(t)
}

// A node may stop to answer between two questions.
func TestNodes_ThatDoNotEndStreamsAreNamed(t *testing.T) {
	s := newSite(t, "default")
	other := s.newZone("default", func(n registry.Node) registry.Registry { return memory.New(n) })
	s.elsewhere(lame{other.Streams})
	here, there := s.open(s.zones[0], "a"), s.open(other, "b")
	p := s.problem(http.StatusBadGateway, http.MethodPost, "end", `{"select":{},"all":true}`)
	require.Equal(t, 1, *p.Ended)
	require.Contains(t, p.Detail, "node n")
	here.ends(t)
	require.NotContains(t, there.text(), "revoked")
}

// While the registry is away nobody knows what other nodes there are.
func TestNodes_ThatCannotBeKnownAreMissed(t *testing.T) {
	s := newSite(t, "default")
	s.zones[0] = s.newZone("default", func(n registry.Node) registry.Registry {
		return &nodes{Registry: memory.New(n), away: registry.ErrAway}
	})
	g := s.open(s.zones[0], "a")
	page := s.list("")
	require.Equal(t, idsOf(g), ids(page))
	require.Contains(t, page.Incomplete, registry.ErrAway.Error())
	p := s.problem(http.StatusBadGateway, http.MethodPost, "end", `{"select":{},"all":true}`)
	require.Equal(t, 1, *p.Ended)
	g.ends(t)
}

func TestEnd_EndsWhoIsSelected(t *testing.T) {
	for name, test := range map[string]struct {
		body string
		ends []string
	}{
		"one":                {`{"select":{"zone":"default","token":"TOKEN-OF-a"}}`, []string{"a"}},
		"all of a zone":      {`{"select":{"zone":"shop"}}`, []string{"d"}},
		"all":                {`{"select":{},"all":true}`, []string{"a", "b", "c", "d"}},
		"a raw token":        {`{"select":{"raw_token":"b"}}`, []string{"b"}},
		"as in a header":     {`{"select":{"raw_token":" Bearer  b "}}`, []string{"b"}},
		"a token and more":   {`{"select":{"raw_token":"b","subject":"alice"}}`, nil},
		"a user":             {`{"select":{"subject":"alice"}}`, []string{"a"}},
		"a raw client":       {`{"select":{"raw_client":"phone"}}`, []string{"a", "b"}},
		"a client, a token":  {`{"select":{"raw_client":"phone","raw_token":"b"}}`, []string{"b"}},
		"a client, a user":   {`{"select":{"raw_client":"phone","subject":"alice"}}`, []string{"a"}},
		"no such client":     {`{"select":{"raw_client":"phones"}}`, nil},
		"a key":              {`{"select":{"key_parts":["room","one"]}}`, []string{"c"}},
		"a key's beginning":  {`{"select":{"key_parts":["room"]}}`, nil},
		"a user's key":       {`{"select":{"key_parts":[{"sub":"dan","iss":"https://i"}]}}`, []string{"d"}},
		"the user of no one": {`{"select":{"key_parts":[{"sub":"dan"}]}}`, nil},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, "default", "shop")
			phone := func(scope registry.ID) registry.ID {
				c := http.Request{Header: http.Header{"X-Client-Id": {"phone"}}, URL: new(url.URL)}
				x, err := identity.NewExtractor(nil, nil)
				require.NoError(t, err)
				id, _ := x.Client(&c, identity.Hash(scope))
				return registry.ID(id)
			}
			keyOf := func(parts ...string) registry.ID {
				key, _ := identity.Key(parts...)
				return registry.ID(key)
			}
			guests := map[string]*guest{
				"a": s.open(s.zones[0], "a", verified("alice"), func(g *guest) { g.holder.Client = phone(g.holder.Subject) }),
				"b": s.open(s.zones[0], "b", func(g *guest) { g.holder.Client = phone(g.holder.Token) }),
				"c": s.open(s.zones[0], "c", func(g *guest) { g.holder.Key = keyOf("room", "one") }),
				"d": s.open(s.zones[1], "d", func(g *guest) {
					g.holder.Key = keyOf(identity.SubjectPart(identity.HashOfSubject("https://i", "dan")))
				}),
			}
			body := strings.ReplaceAll(test.body, "TOKEN-OF-a", short(guests["a"].holder.Token))
			require.Equal(t, len(test.ends), s.end(body).Ended)
			for name, g := range guests {
				if slices.Contains(test.ends, name) {
					g.ends(t)
					require.Contains(t, g.text(), "event: revoked\n")
				} else {
					require.NotContains(t, g.text(), "revoked")
				}
			}
			require.Len(t, s.list("").Streams, 4-len(test.ends))
			require.Len(t, s.logs.FilterMessage("streams ended by an administrator").All(), 1)
			for _, line := range s.logs.All() {
				require.NotContains(t, fmt.Sprint(line.ContextMap()), "phone")
			}
		})
	}
}

func TestEnd_SaysWhy(t *testing.T) {
	s := newSite(t, "default")
	g := s.open(s.zones[0], "a")
	require.Equal(t, 1, s.end(`{"select":{"state":"live"},"reason":"expired","message":" Log in again "}`).Ended)
	g.ends(t)
	require.Contains(t, g.text(), "event: expired\ndata: Log in again\n\n")
}

func TestEnd_AtMost(t *testing.T) {
	s := newSite(t, "default", "shop")
	for i := range 10 {
		s.open(s.zones[i%2], fmt.Sprint(i))
	}
	require.Equal(t, 3, s.end(`{"select":{},"all":true,"limit":3}`).Ended)
	require.Eventually(t, func() bool { return len(s.list("state=live").Streams) == 7 }, time.Minute, time.Millisecond)
	require.Equal(t, 7, s.end(`{"select":{},"all":true,"limit":1000}`).Ended)
}

func TestEnd_DeniesTokensAndUsers(t *testing.T) {
	s := newSite(t, "default", "shop")
	z := s.zones[0]
	a := s.open(z, "a", verified("alice"), labelled("one"))
	sameToken := s.open(z, "a", func(g *guest) { g.holder.Key = hash("another") })
	sameUser := s.open(z, "a2", verified("alice"))
	other := s.open(z, "b")
	elsewhere := s.open(s.zones[1], "a")
	require.Equal(t, 3, s.end(`{"select":{"labels":{"room":"one"}},"deny":"10m"}`).Ended)
	for _, g := range []*guest{a, sameToken, sameUser} {
		g.ends(t)
	}
	require.True(t, z.Registry.Denied(a.holder))
	require.True(t, z.Registry.Denied(&registry.Holder{Token: a.holder.Token}))
	require.True(t, z.Registry.Denied(&registry.Holder{Token: hash("a new one"), Subject: a.holder.Subject}))
	require.True(t, z.Registry.Denied(&registry.Holder{Subject: a.holder.Subject, IssuedAt: time.Now().Add(time.Minute)}))
	require.False(t, z.Registry.Denied(other.holder))
	require.False(t, s.zones[1].Registry.Denied(elsewhere.holder))
	require.ElementsMatch(t, idsOf(other, elsewhere), ids(s.list("")))
}

// TestEnd_TheLimitSparesNoZoneTheDenial of a raw token.
func TestEnd_TheLimitSparesNoZoneTheDenial(t *testing.T) {
	s := newSite(t, "default", "shop")
	s.open(s.zones[0], "a", untracked) // which the denial does not end by itself
	require.Equal(t, 1, s.end(`{"select":{"raw_token":"a"},"deny":"10m","limit":1}`).Ended)
	for _, z := range s.zones {
		require.True(t, z.Registry.Denied(&registry.Holder{Token: s.tokenOf("a")}))
	}
}

// together ends streams once several are to be ended at the same time.
type together struct {
	registry.Registry
	asked atomic.Int32
	all   chan struct{} // closed when there are as many
}

const manyTogether = 20

func (r *together) End(ctx context.Context, sel registry.Selector, e registry.Ending) (registry.Ended, error) {
	if r.asked.Add(1) == manyTogether {
		close(r.all)
	}
	select {
	case <-r.all:
		return r.Registry.End(ctx, sel, e)
	case <-time.After(10 * time.Second):
		return registry.Ended{}, errMute
	}
}

// TestEnd_ManyAreDeniedAtOnce: each may be a question to all nodes.
func TestEnd_ManyAreDeniedAtOnce(t *testing.T) {
	s := newSite(t)
	s.zones = append(s.zones, s.newZone("default", func(n registry.Node) registry.Registry {
		return &together{Registry: memory.New(n), all: make(chan struct{})}
	}))
	for i := range manyTogether {
		s.open(s.zones[0], fmt.Sprint("token ", i))
	}
	require.Equal(t, manyTogether, s.end(`{"select":{},"all":true,"deny":"1h"}`).Ended)
}

// TestAudit_SaysWhoDidWhatToWhom in a line for each end and notify.
func TestAudit_SaysWhoDidWhatToWhom(t *testing.T) {
	s := newSite(t, "default")
	s.api.User = func(*http.Request) string { return "ann" }
	line := func(what string) map[string]any {
		t.Helper()
		lines := s.logs.TakeAll()
		require.Len(t, lines, 1)
		require.Equal(t, "streams "+what+" by an administrator", lines[0].Message)
		return lines[0].ContextMap()
	}
	key, ok := identity.Key("shop", "alice")
	require.True(t, ok)
	s.end(`{"select":{"raw_token":"secret-token","raw_client":"secret-client","key_parts":["shop","alice"],"subject":"alice","labels":{"room":"one"},"state":"live","zone":"default"}}`)
	fields := line("ended")
	require.Equal(t, "ann", fields["user"])
	require.Equal(t, "127.0.0.1", fields["remote_ip"])
	require.Equal(t, map[string]any{
		"zone": "default", "state": "live", "key": short(registry.ID(key)), "token": short(s.tokenOf("secret-token")),
		"raw_client": true, "sub": "alice", "label.room": "one",
	}, fields["select"])
	require.NotContains(t, fmt.Sprint(fields), "secret")

	id := registry.NewStreamID().String()
	s.notify(`{"select":{"id":"` + id + `","client":"0123456789abcdef"},"event":"HI","data":"you"}`)
	fields = line("notified")
	require.Equal(t, "ann", fields["user"])
	require.Equal(t, map[string]any{"id": id, "client": "0123456789abcdef"}, fields["select"])
	s.end(`{"select":{},"all":true}`)
	require.Equal(t, map[string]any{"all": true}, line("ended")["select"])
}

// A token that no stream has is denied as well.
func TestEnd_DeniesARawToken(t *testing.T) {
	s := newSite(t, "default", "shop")
	g := s.open(s.zones[0], "b")
	require.Zero(t, s.end(`{"select":{"raw_token":"a"},"deny":"10m"}`).Ended)
	for _, z := range s.zones {
		require.True(t, z.Registry.Denied(&registry.Holder{Token: s.tokenOf("a")}))
	}
	require.Equal(t, 1, s.end(`{"select":{"raw_token":"b","zone":"default"},"deny":"10m"}`).Ended)
	g.ends(t)
	require.True(t, s.zones[0].Registry.Denied(g.holder))
	require.False(t, s.zones[1].Registry.Denied(g.holder))
	require.Zero(t, s.end(`{"select":{"raw_token":"c"}}`).Ended)
	require.False(t, s.zones[0].Registry.Denied(&registry.Holder{Token: s.tokenOf("c")}), "nobody said so")
}

func TestNotify_ReachesWhoIsSelected(t *testing.T) {
	s := newSite(t, "default")
	a, b := s.open(s.zones[0], "a", labelled("one")), s.open(s.zones[0], "b")
	s.open(s.zones[0], "", untracked, labelled("one"))
	require.Equal(t, 1, s.notify(`{"select":{"labels":{"room":"one"}},"event":"MAINTENANCE","data":"at\r\nnoon\n"}`).Notified)
	a.reads(t, "event: MAINTENANCE\ndata: at\ndata: noon\ndata:\n\n")
	require.Equal(t, 2, s.notify(`{"select":{},"all":true,"data":"`+strings.Repeat(`\n`, mostData)+`"}`).Notified)
	b.reads(t, strings.Repeat("data:\n", mostData)+"data:\n\n")
	require.NotContains(t, b.text(), "MAINTENANCE")
}

func TestNotify_ByRawClient(t *testing.T) {
	s := newSite(t, "default")
	x, err := identity.NewExtractor(nil, []identity.ClientSource{{From: identity.Query, Name: "tab", Scope: identity.Tab}})
	require.NoError(t, err)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "/?tab=t1", nil)
	require.NoError(t, err)
	mine := func(g *guest) {
		id, _ := x.Client(r, identity.Hash(g.holder.Token))
		g.holder.Client, g.holder.Tab = registry.ID(id), true
	}
	a, b := s.open(s.zones[0], "a", mine), s.open(s.zones[0], "b")
	require.Equal(t, 1, s.notify(`{"select":{"raw_client":"t1"},"data":"x"}`).Notified)
	a.reads(t, "data: x\n\n")
	require.NotContains(t, b.text(), "data: x")
}

func TestHealth_IsThatOfTheZones(t *testing.T) {
	s := newSite(t, "default")
	var h Health
	s.ask(http.MethodGet, "health", "", &h)
	require.Equal(t, Health{Status: "ok", Zones: []ZoneHealth{{Zone: "default", RegistryUp: true}}}, h)
	require.Equal(t, http.StatusOK, s.do(http.MethodHead, "health", "").status)

	lost := &nodes{away: errMute}
	s.zones = append(s.zones, s.newZone("shop", func(n registry.Node) registry.Registry {
		lost.Registry = memory.New(n)
		return lost
	}))
	p := s.problem(http.StatusServiceUnavailable, http.MethodGet, "health", "")
	require.Equal(t, []ZoneHealth{{Zone: "default", RegistryUp: true}, {Zone: "shop"}}, p.Zones)
	require.Contains(t, p.Detail, "registry_up is false")
	lost.away = nil
	s.ask(http.MethodGet, "health", "", &h)

	s.zones[0].Drain(zone.Drain{Window: time.Millisecond}, s.api.Logger)
	p = s.problem(http.StatusServiceUnavailable, http.MethodGet, "health", "")
	require.True(t, p.Zones[0].Draining)
	require.Contains(t, p.Detail, "draining")
}

func TestRoutes_AreTheseOnly(t *testing.T) {
	s := newSite(t, "default")
	for _, path := range []string{"", "stream", "streams/", "end/now", "metrics"} {
		p := s.problem(http.StatusNotFound, http.MethodGet, path, "")
		require.Contains(t, p.Detail, "end, events, health, notify, stats, streams")
	}
	for path, allowed := range map[string]string{
		"streams": "GET", "stats": "GET", "events": "GET", "health": "GET", "end": "POST", "notify": "POST",
	} {
		for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodDelete} {
			if method != allowed {
				s.problem(http.StatusMethodNotAllowed, method, path, "")
			}
		}
		a := s.do(http.MethodOptions, path, "")
		require.Equal(t, http.StatusNoContent, a.status, "a preflight that got that far")
		require.Equal(t, allowed, a.header.Get("Allow"))
	}
	s.problem(http.StatusNotFound, http.MethodGet, "streams?zone=nowhere", "")
	p := s.problem(http.StatusNotFound, http.MethodPost, "end", `{"select":{"zone":"nowhere"}}`)
	require.Equal(t, "There are: default.", p.Detail)
}

// A request that its client gives up does not do half of what it was to do.
func TestEnd_IsDoneToTheEnd(t *testing.T) {
	s := newSite(t, "default")
	s.elsewhere()
	g := s.open(s.zones[0], "a")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, Prefix+"end", strings.NewReader(`{"select":{},"all":true}`))
	require.NoError(t, err)
	r.Header.Set("Content-Type", "application/json")
	s.api.ServeHTTP(new(nowhere), r)
	g.ends(t)
}

// nowhere is the response to who has left.
type nowhere struct{ header http.Header }

func (n *nowhere) Header() http.Header {
	if n.header == nil {
		n.header = make(http.Header)
	}
	return n.header
}
func (*nowhere) WriteHeader(int)             {}
func (*nowhere) Write(p []byte) (int, error) { return len(p), nil }

// A node that does not answer keeps none of the others' streams alive.
func TestEnd_DeniesWhereANodeDoesNotAnswer(t *testing.T) {
	s := newSite(t, "default")
	s.zones[0] = s.newZone("default", func(n registry.Node) registry.Registry {
		return endsHereOnly{memory.New(n)}
	})
	var guests []*guest
	for i := range 2 * mostFailures {
		guests = append(guests, s.open(s.zones[0], fmt.Sprint("token ", i)))
	}
	p := s.problem(http.StatusBadGateway, http.MethodPost, "end", `{"select":{},"all":true,"deny":"1h"}`)
	require.Equal(t, len(guests), *p.Ended)
	for _, g := range guests {
		g.ends(t)
	}
}

// endsHereOnly ends the streams of this process, and hears nothing of others.
type endsHereOnly struct{ registry.Registry }

func (r endsHereOnly) End(ctx context.Context, sel registry.Selector, e registry.Ending) (registry.Ended, error) {
	ended, _ := r.Registry.End(ctx, sel, e)
	return ended, errMute
}

// many is a node with so many streams.
type many struct {
	registry.Node
	n int
}

func (m many) List(_ context.Context, _ registry.Filter, cursor string, limit int) (rows []registry.Row, next string, err error) {
	after, _ := registry.ParseStreamID(cursor)
	for i := int(binary.BigEndian.Uint32(after[:])) + 1; i <= m.n; i++ {
		h := &registry.Holder{}
		binary.BigEndian.PutUint32(h.ID[:], uint32(i))
		if rows = append(rows, registry.Row{Holder: h, State: registry.StateLive}); len(rows) == limit && i < m.n {
			return rows, h.ID.String(), nil
		}
	}
	return rows, "", nil
}

// TestStreams_OfTheOthersAreAllListed where a node does not answer.
func TestStreams_OfTheOthersAreAllListed(t *testing.T) {
	s := newSite(t)
	s.zones = append(s.zones, s.newZone("default", func(n registry.Node) registry.Registry {
		return &nodes{Registry: memory.New(n), others: []registry.Node{mute{}, many{n: 3*mostLimit + 5}}}
	}))
	page := s.api.Streams(t.Context(), 10*mostLimit)
	require.Len(t, page.Streams, 3*mostLimit+5)
	require.True(t, slices.IsSortedFunc(page.Streams, func(a, b Stream) int { return strings.Compare(a.ID, b.ID) }))
	require.Empty(t, page.Next)
	require.Equal(t, `zone "default": `+errMute.Error(), page.Incomplete, "it is asked, and named, once")
}

// stuckWriter is the response to somebody who does not read it.
type stuckWriter struct {
	nowhere
	writes chan struct{} // is told of a write that has begun
	free   chan struct{}
}

func (w *stuckWriter) Write(p []byte) (int, error) {
	select {
	case w.writes <- struct{}{}:
	default:
	}
	<-w.free
	return len(p), nil
}

// TestStreams_AListThatNobodyReadsHoldsUpNothing.
func TestStreams_AListThatNobodyReadsHoldsUpNothing(t *testing.T) {
	s := newSite(t, "default")
	g := s.open(s.zones[0], "a")
	w := &stuckWriter{writes: make(chan struct{}, 1), free: make(chan struct{})}
	var lists sync.WaitGroup
	for _, path := range []string{"streams", "stats", "health"} {
		lists.Go(func() { s.api.ServeHTTP(w, httptest.NewRequest(http.MethodGet, Prefix+path, nil)) })
		<-w.writes
	}
	g.say()
	s.open(s.zones[0], "b")
	require.Len(t, s.list("").Streams, 2)
	require.Equal(t, 2, s.end(`{"select":{},"all":true}`).Ended)
	g.ends(t)
	close(w.free)
	lists.Wait()
}

// TestStreams_OfManyHoldUpNoEvent: events pass while all streams are listed, not in
// between.
func TestStreams_OfManyHoldUpNoEvent(t *testing.T) {
	const enough = 10
	s := newSite(t, "default")
	for i := range crowd {
		s.open(s.zones[0], fmt.Sprint(i))
	}
	g := s.open(s.zones[0], "the one")
	require.Eventually(t, func() bool {
		listed := make(chan Page)
		go func() { listed <- s.api.Streams(t.Context(), 2*crowd) }()
		for passed := 0; ; passed++ {
			select {
			case page := <-listed:
				require.Len(t, page.Streams, crowd+1)
				return passed >= enough
			default:
				g.say()
			}
		}
	}, time.Minute, time.Millisecond, "fewer than %d events pass while streams are listed", enough)
}

// TestStatesHere_CostsLittle: the live page asks every few seconds, also while nobody looks
// at it. Streams are counted in place, neither sorted nor by their labels.
func TestStatesHere_CostsLittle(t *testing.T) {
	s := newSite(t, "default")
	const streams = 500
	for i := range streams {
		s.open(s.zones[0], strconv.Itoa(i), labelled(strconv.Itoa(i)))
	}
	here, others := s.api.StatesHere(t.Context())
	require.Equal(t, States{Live: streams}, here)
	require.False(t, others)
	require.Less(t, testing.AllocsPerRun(10, func() { s.api.StatesHere(t.Context()) }), 50.0)
}
