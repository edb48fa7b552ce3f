package verify

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/identity"
)

func nth(n int) (id [sha256.Size]byte) {
	binary.BigEndian.PutUint64(id[:], uint64(n))
	return id
}

func TestCache_SharesClaims(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := signerOf("HS256")
		v := newVerifier(t, Config{Keys: []Key{s.key("")}})
		token := s.sign(jwt.MapClaims{"sub": "alice"}, nil)
		first, err := v.VerifyNow(token)
		require.NoError(t, err)

		pass(cacheTime - time.Nanosecond)
		again, err := v.Verify(t.Context(), token)
		require.NoError(t, err)
		require.Same(t, first, again)

		pass(time.Nanosecond)
		again, err = v.VerifyNow(token)
		require.NoError(t, err)
		require.NotSame(t, first, again, "it is remembered for a minute from when it was verified")
	})
}

func TestCache_RemembersOnlyWhatWasAccepted(t *testing.T) {
	s := signerOf("HS256")
	v := newVerifier(t, Config{Keys: []Key{s.key("")}})
	token := s.sign(alice(), nil)
	requireRefused(t, v, s.sign(jwt.MapClaims{"exp": 1}, nil), identity.ErrExpired)
	requireRefused(t, v, token+"AAAA", errSignature)
	requireRefused(t, v, "", errNoJWT)
	require.Empty(t, v.cache.accepted)
	requireAccepted(t, v, token)
	require.Len(t, v.cache.accepted, 1)
}

func TestCache_IsBounded(t *testing.T) {
	var c cache
	now := time.Now()
	for n := range 3 * cacheSize {
		c.put(nth(n), 0, identity.NewClaims(nil), now, 0)
		require.NotNil(t, c.get(nth(n), 0, now))
	}
	require.Equal(t, cacheSize, len(c.accepted))
	c.put(nth(3*cacheSize-1), 0, identity.NewClaims(nil), now, 0)
	require.Equal(t, cacheSize, len(c.accepted), "one that is there takes no other's place")
}

func TestCache_ForgetsWithTheKeys(t *testing.T) {
	var c cache
	now := time.Now()
	claims := identity.NewClaims(nil)
	c.put(nth(1), 7, claims, now, 0)
	require.Same(t, claims, c.get(nth(1), 7, now))
	require.Nil(t, c.get(nth(1), 8, now))
	require.Nil(t, c.get(nth(2), 7, now))
}

// The figures that the cache is justified with: without it, with it, and with it
// for tokens that are refused.
func BenchmarkVerify(b *testing.B) {
	for _, algorithm := range []string{"HS256", "ES256", "RS256", "EdDSA", "PS256", "ES384"} {
		s := signerOf(algorithm)
		token := s.sign(jwt.MapClaims{
			"iss": "https://issuer.example/realms/example", "aud": []string{"api", "account"},
			"sub": "0b0f2b3c-7a52-4c1e-9a52-5a0c2f0f5c11", "sid": "5a0c2f0f-7a52-4c1e-9a52-0b0f2b3c5c11",
			"iat": time.Now().Unix(), "exp": inAnHour(), "jti": "5a0c2f0f5c11", "azp": "web",
			"realm_access": map[string]any{"roles": []string{"user", "editor", "offline_access"}},
			"email":        "alice@example.com", "preferred_username": "alice", "scope": "openid email profile",
		}, named("1"))
		config := Config{
			Keys:      []Key{s.key("1")},
			Issuers:   []string{"https://issuer.example/realms/example"},
			Audiences: []string{"api"},
		}
		run := func(name string, verify func(*Verifier)) {
			b.Run(fmt.Sprintf("%s/%s", algorithm, name), func(b *testing.B) {
				v := newVerifier(b, config)
				b.ReportAllocs()
				for b.Loop() {
					verify(v)
				}
			})
		}
		run("cached", func(v *Verifier) {
			if _, err := v.VerifyNow(token); err != nil {
				b.Fatal(err)
			}
		})
		run("uncached", func(v *Verifier) {
			clear(v.cache.accepted)
			if _, err := v.VerifyNow(token); err != nil {
				b.Fatal(err)
			}
		})
		forged := token[:len(token)-8] + "AAAAAAAA"
		run("forged", func(v *Verifier) {
			if _, err := v.VerifyNow(forged); err == nil {
				b.Fatal("accepted")
			}
		})
	}
}

func BenchmarkVerify_AtOnce(b *testing.B) {
	s := signerOf("ES256")
	v := newVerifier(b, Config{Keys: []Key{s.key("")}})
	token := s.sign(alice(), nil)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := v.VerifyNow(token); err != nil {
				b.Error(err)
			}
		}
	})
}

// Tokens that come once each: what it costs to make room for them.
func BenchmarkCache_Full(b *testing.B) {
	var c cache
	claims := identity.NewClaims(nil)
	now := time.Now()
	n := 0
	b.ReportAllocs()
	for b.Loop() {
		n++
		c.put(nth(n), 0, claims, now, 0)
	}
}
