package zone

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

func TestRecentTokens_AreBounded(t *testing.T) {
	var r RecentTokens
	now := time.Now()
	known := func(i int) (subject, token registry.ID) {
		return registry.ID{byte(i), byte(i >> 8), 1}, registry.ID{byte(i), byte(i >> 8), 2}
	}
	for i := range maxRecent + 100 {
		subject, token := known(i)
		r.Saw(subject, token, RecentToken{Until: now.Add(time.Hour)}, now)
	}
	require.Equal(t, maxRecent, r.size)
	subject, token := known(maxRecent + 99)
	require.Contains(t, r.Of(subject), token)
	r.Saw(subject, token, RecentToken{Until: now.Add(3 * time.Hour)}, now.Add(2*time.Hour))
	require.Equal(t, 1, r.size, "the others are out of date")
	require.Len(t, r.bySubject, 1)
}
