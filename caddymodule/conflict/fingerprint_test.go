package conflict_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/conflict"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

func TestFingerprint_TellsWhoAsksApart(t *testing.T) {
	a, b := id("a"), id("b")
	seen := make(map[registry.ID]int)
	for i, p := range []struct {
		holder registry.Holder
		agent  string
	}{
		{},
		{holder: registry.Holder{Token: a}},
		{holder: registry.Holder{Token: b}},
		{holder: registry.Holder{Client: a}},
		{holder: registry.Holder{Subject: a}},
		{holder: registry.Holder{Token: a, Addr: "192.0.2.1"}},
		{holder: registry.Holder{Token: a, Addr: "192.0.2.1"}, agent: "x"},
		{holder: registry.Holder{Token: a, Addr: "192.0.2.1x"}},
		{holder: registry.Holder{Token: a}, agent: "192.0.2.1x"},
	} {
		fingerprint := conflict.Fingerprint(&p.holder, p.agent)
		require.NotContains(t, seen, fingerprint, i)
		seen[fingerprint] = i
	}
}

func TestFingerprint_ClientBeforeSubjectBeforeToken(t *testing.T) {
	fingerprint := func(s registry.Holder) registry.ID { return conflict.Fingerprint(&s, "x") }
	client := registry.Holder{Client: id("client"), Subject: id("subject"), Token: id("token")}
	subject := registry.Holder{Subject: id("subject"), Token: id("token")}
	require.Equal(t, fingerprint(registry.Holder{Client: id("client")}), fingerprint(client))
	require.Equal(t, fingerprint(registry.Holder{Subject: id("subject")}), fingerprint(subject))
}
