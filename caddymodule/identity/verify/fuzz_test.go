package verify

import (
	"slices"
	"testing"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/sse-guard/sse-guard/caddymodule/identity"
)

// genuine are tokens that a Verifier of everyKey accepts.
func genuine() (tokens []string) {
	for _, algorithm := range slices.Concat(publicAlgorithms, hmacAlgorithms) {
		tokens = append(tokens,
			signerOf(algorithm).sign(jwt.MapClaims{"sub": "alice", "aud": []string{"a"}}, nil),
			signerOf(algorithm).sign(jwt.MapClaims{"sub": "alice", "exp": 1e12}, named("1")))
	}
	return tokens
}

func everyKey() (keys []Key) {
	for _, algorithm := range []string{"RS256", "ES256", "ES384", "ES512", "EdDSA", "HS256"} {
		keys = append(keys, signerOf(algorithm).key("1"))
	}
	return keys
}

// requireForged checks that nobody believes a token that was not issued.
func requireForged(t require.TestingT, v identity.Verifier, token string) {
	claims, err := v.VerifyNow(token)
	requirePromises(t, token, claims, err)
	require.Error(t, err)
	require.NotErrorIs(t, err, identity.ErrExpired)
	require.Nil(t, claims)
}

func FuzzVerify(f *testing.F) {
	tokens := genuine()
	for _, token := range tokens {
		f.Add(token)
		f.Add(token[:len(token)-1])
		f.Add(token + "=")
	}
	f.Add("..")
	f.Add(encode(`{"alg":"none"}`) + "." + encode(`{"sub":"alice"}`) + ".")
	f.Add(encode(`{"alg":"HS256","crit":["b64"],"b64":false}`) + ".{}." + encode("x"))
	v := newVerifier(f, Config{Keys: everyKey()})
	f.Fuzz(func(t *testing.T, token string) {
		if slices.Contains(tokens, token) {
			requireAccepted(t, v, token)
		} else {
			requireForged(t, v, token)
		}
		claims, err := Unverified{}.VerifyNow(token)
		requirePromises(t, token, claims, err)
	})
}

// Any change of one byte, and any splice of two tokens, is a forgery.
func TestForged_ByAnyChange(t *testing.T) {
	v := newVerifier(t, Config{Keys: everyKey()})
	tokens := genuine()
	for _, token := range tokens {
		requireAccepted(t, v, token)
	}
	rapid.Check(t, func(t *rapid.T) {
		token := rapid.SampledFrom(tokens).Draw(t, "token")
		other := rapid.SampledFrom(tokens).Draw(t, "other")
		at := rapid.IntRange(0, len(token)-1).Draw(t, "at")
		from := rapid.IntRange(0, len(other)).Draw(t, "from")
		for _, changed := range []string{
			token[:at] + string([]byte{rapid.Byte().Draw(t, "byte")}) + token[at+1:],
			token[:at] + string([]byte{rapid.Byte().Draw(t, "inserted")}) + token[at:],
			token[:at] + token[at+1:],
			token[:at] + other[from:],
		} {
			if !slices.Contains(tokens, changed) {
				requireForged(t, v, changed)
			}
		}
	})
}
