package fights_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/fights"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

func TestParty_TellsWhoAsksApart(t *testing.T) {
	a, b := id("a"), id("b")
	seen := make(map[registry.ID]int)
	for i, p := range []struct {
		stream registry.Stream
		agent  string
	}{
		{},
		{stream: registry.Stream{Token: a}},
		{stream: registry.Stream{Token: b}},
		{stream: registry.Stream{Client: a}},
		{stream: registry.Stream{Subject: a}},
		{stream: registry.Stream{Token: a, Addr: "192.0.2.1"}},
		{stream: registry.Stream{Token: a, Addr: "192.0.2.1"}, agent: "x"},
		{stream: registry.Stream{Token: a, Addr: "192.0.2.1x"}},
		{stream: registry.Stream{Token: a}, agent: "192.0.2.1x"},
	} {
		party := fights.Party(&p.stream, p.agent)
		require.NotContains(t, seen, party, i)
		seen[party] = i
	}
}

func TestParty_ClientBeforeSubjectBeforeToken(t *testing.T) {
	party := func(s registry.Stream) registry.ID { return fights.Party(&s, "x") }
	client := registry.Stream{Client: id("client"), Subject: id("subject"), Token: id("token")}
	subject := registry.Stream{Subject: id("subject"), Token: id("token")}
	require.Equal(t, party(registry.Stream{Client: id("client")}), party(client))
	require.Equal(t, party(registry.Stream{Subject: id("subject")}), party(subject))
}
