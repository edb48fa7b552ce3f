package redis_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
	"github.com/sse-guard/sse-guard/caddymodule/registry/redis"
)

// What a node spells, another reads; but for a fingerprint beside a client id, which
// does not count.
func TestHolder_IsReadAsItWasSpelled(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		id := func(label string) (id registry.ID) {
			if rapid.Bool().Draw(t, label) {
				copy(id[:], rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, label))
			}
			return id
		}
		moment := func(label string) time.Time {
			if rapid.Bool().Draw(t, label) {
				return time.Unix(0, rapid.Int64Range(1, 1<<62).Draw(t, label))
			}
			return time.Time{}
		}
		h := &registry.Holder{
			ID: registry.NewStreamID(), Key: id("key"), Token: id("token"), Subject: id("subject"), Client: id("client"),
			Session: id("session"), Fingerprint: id("fingerprint"), Tab: rapid.Bool().Draw(t, "tab"), Yields: rapid.Bool().Draw(t, "yields"),
			IssuedAt: moment("issued"), Expires: moment("expires"), Since: moment("since"), Asked: moment("asked"),
			Addr: rapid.StringN(0, 60, 255).Draw(t, "address"),
		}
		spelled := redis.EncodeHolder(h)
		got, err := redis.DecodeHolder(h.Key, spelled)
		require.NoError(t, err)
		want := *h
		if !h.Client.IsZero() {
			want.Fingerprint = registry.ID{}
		}
		require.Equal(t, &want, got)

		// Nothing that is cut off is read as something else.
		cut := rapid.IntRange(0, len(spelled)-1).Draw(t, "cut")
		if got, err := redis.DecodeHolder(h.Key, spelled[:cut]); err == nil {
			require.NotEqual(t, h, got)
		}
		_, err = redis.DecodeHolder(h.Key, "\x02"+spelled[1:])
		require.Error(t, err, "a newer version")
	})
}

func TestEffects_ThatCannotBeReadAreRefused(t *testing.T) {
	whole := redis.SpellEffect("end", "1", "superseded")
	effects, err := redis.ParseEffects(whole + whole)
	require.NoError(t, err)
	require.Equal(t, [][]string{{"end", "1", "superseded"}, {"end", "1", "superseded"}}, effects)
	for cut := 1; cut < len(whole); cut++ {
		_, err := redis.ParseEffects(whole[:cut])
		require.Error(t, err)
	}
	_, err = redis.ParseEffects("\xff\xff\xff\xff\xff\xff\xff\xff")
	require.Error(t, err)
}

// TestAnswer_IsDecodedByWhoHasAsked: the worker that reads messages also ends streams, and
// lists of thousands must not hold it up.
func TestAnswer_IsDecodedByWhoHasAsked(t *testing.T) {
	const unread = `{"Rows":[{"Holder"`
	require.Equal(t, unread, redis.Answered(7, "\x00\x00\x00\x00\x00\x00\x00\x07"+unread))
	require.Empty(t, redis.Answered(8, "\x00\x00\x00\x00\x00\x00\x00\x07"+unread))
	require.Empty(t, redis.Answered(7, "\x00\x07"), "what is cut off")
}
