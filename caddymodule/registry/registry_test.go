package registry_test

import (
	"encoding/json"
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

// TestHolder_InJSONHasItsHashesAsText: nodes tell each other of thousands.
func TestHolder_InJSONHasItsHashesAsText(t *testing.T) {
	h := registry.Holder{ID: registry.NewStreamID(), Addr: "192.0.2.1"}
	for i := range h.Key {
		h.Key[i], h.Token[i] = byte(i), 0xff
	}
	text, err := json.Marshal(&h)
	require.NoError(t, err)
	require.Contains(t, string(text), h.ID.String())
	require.NotContains(t, string(text), "[")
	var read registry.Holder
	require.NoError(t, json.Unmarshal(text, &read))
	require.Equal(t, h, read)

	var id registry.ID
	require.Error(t, json.Unmarshal([]byte(`"AAAA"`), &id), "what is cut off")
	require.Error(t, json.Unmarshal([]byte(`"`+strings.Repeat("?", 43)+`"`), &id))
	require.Error(t, json.Unmarshal([]byte(`"00"`), &h.ID))
}
