package registry_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

func TestShorten_KeepsApartWhatDiffers(t *testing.T) {
	long := strings.Repeat("한", 100)
	require.Equal(t, "as it is", registry.Shorten("as it is", 8))
	one, other := registry.Shorten(long+"a", 64), registry.Shorten(long+"b", 64)
	require.LessOrEqual(t, len(one), 64)
	require.NotEqual(t, one, other)
	require.Equal(t, one, strings.ToValidUTF8(one, "?"))
	require.Equal(t, one, registry.Shorten(long+"a", 64))
}
