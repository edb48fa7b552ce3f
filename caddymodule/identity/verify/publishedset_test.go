package verify

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func members(more ...any) map[string]any {
	m := map[string]any{}
	for i := 0; i < len(more); i += 2 {
		m[more[i].(string)] = more[i+1]
	}
	return m
}

func TestPublishedSet_KeysAreUsedForWhatTheyAreMeant(t *testing.T) {
	rs, es, ed := signerOf("RS256"), signerOf("ES256"), signerOf("EdDSA")
	for name, test := range map[string]struct {
		key  json.RawMessage
		want []string // algorithms; nil: not used
	}{
		"RSA":                      {rs.jwk("1", nil), rsaAlgorithms},
		"RSA for one algorithm":    {rs.jwk("1", members("alg", "PS384")), []string{"PS384"}},
		"RSA for encryption":       {rs.jwk("1", members("alg", "RSA-OAEP")), nil},
		"RSA for a secret's":       {rs.jwk("1", members("alg", "HS256")), nil},
		"RSA for nothing":          {rs.jwk("1", members("alg", "none")), nil},
		"EC":                       {es.jwk("1", nil), []string{"ES256"}},
		"EC, P-384":                {signerOf("ES384").jwk("1", nil), []string{"ES384"}},
		"EC, P-521":                {signerOf("ES512").jwk("1", nil), []string{"ES512"}},
		"EC of another curve":      {es.jwk("1", members("alg", "ES384")), nil},
		"EC, secp256k1":            {es.jwk("1", members("crv", "secp256k1")), nil},
		"EC beside the curve":      {es.jwk("1", members("x", "AQ")), nil},
		"Ed25519":                  {ed.jwk("1", nil), []string{"EdDSA"}},
		"Ed25519 without alg":      {ed.jwk("1", members("alg", nil)), []string{"EdDSA"}},
		"X25519":                   {ed.jwk("1", members("crv", "X25519", "alg", nil)), nil},
		"Ed448":                    {ed.jwk("1", members("crv", "Ed448")), nil},
		"for signatures":           {rs.jwk("1", members("use", "sig")), rsaAlgorithms},
		"for encryption":           {rs.jwk("1", members("use", "enc")), nil},
		"for something else":       {rs.jwk("1", members("use", "tls")), nil},
		"to verify":                {rs.jwk("1", members("key_ops", []string{"x", "verify"})), rsaAlgorithms},
		"to encrypt":               {rs.jwk("1", members("key_ops", []string{"encrypt"})), nil},
		"to sign":                  {rs.jwk("1", members("key_ops", []string{"sign"})), nil},
		"a secret":                 {signerOf("HS256").jwk("1", nil), nil},
		"a secret for signatures":  {signerOf("HS256").jwk("1", members("use", "sig", "alg", "HS256")), nil},
		"RSA with a short modulus": {rs.jwk("1", members("n", strings.Repeat("_", 171))), nil},
		"RSA with exponent 1":      {rs.jwk("1", members("e", "AQ")), nil},
		"RSA without modulus":      {rs.jwk("1", members("n", nil)), nil},
		"RSA in other letters":     {rs.jwk("1", members("kty", "rsa")), nil},
		"with a bad certificate":   {rs.jwk("1", members("x5c", []string{"AAAA"}, "x5t", "x")), rsaAlgorithms},
		"with a certificate's URL": {rs.jwk("1", members("x5u", "http://192.0.2.1/")), rsaAlgorithms},
		"with a private half":      {es.jwk("1", members("d", "AQ")), []string{"ES256"}},
		"with unknown members":     {es.jwk("1", members("iat", 1, "exp", "x")), []string{"ES256"}},
		"with a number as kid":     {es.jwk("1", members("kid", 1)), nil},
		"no object":                {json.RawMessage(`"key"`), nil},
		"null":                     {json.RawMessage(`null`), nil},
	} {
		t.Run(name, func(t *testing.T) {
			other := signerOf("ES512").jwk("other", nil)
			keys, unused, err := parseSet([]byte(set(test.key, other)))
			require.NoError(t, err)
			if test.want == nil {
				require.Len(t, keys, 1)
				require.Len(t, unused, 1)
				require.ErrorContains(t, unused[0], "key 1: ")

				_, _, err := parseSet([]byte(set(test.key)))
				require.ErrorContains(t, err, "a JWK set without a usable key: key 1: ")
				return
			}
			require.Empty(t, unused)
			require.Len(t, keys, 2)
			require.Equal(t, test.want, keys[0].algorithms)
			require.Equal(t, "1", keys[0].kid)
		})
	}
}

func TestPublishedSet_WhatIsNoneIsAnError(t *testing.T) {
	for text, want := range map[string]string{
		"":                                 "no JWK set",
		"<!doctype html><title>Login":      "no JWK set",
		`[]`:                               "no JWK set",
		`null`:                             "without keys",
		`{}`:                               "without keys",
		`{"keys":null}`:                    "without keys",
		`{"keys":[]}`:                      "without keys",
		`{"keys":{}}`:                      "no JWK set",
		`{"error":"not found"}`:            "without keys",
		`{"keys":[{}]}`:                    "without a usable key",
		`{"keys":[{"kty":"oct","k":"a"}]}`: "which is none once it is published",
		set(signerOf("ES256").jwk("1", nil)) + "x": "no JWK set",
	} {
		t.Run(text[:min(len(text), 20)], func(t *testing.T) {
			keys, _, err := parseSet([]byte(text))
			require.ErrorContains(t, err, want)
			require.Nil(t, keys)
		})
	}
}

func FuzzParseSet(f *testing.F) {
	for _, algorithm := range []string{"RS256", "ES256", "ES512", "EdDSA", "HS256"} {
		f.Add(set(signerOf(algorithm).jwk("1", members("use", "sig"))))
	}
	f.Add(`{"keys":[{"kty":"RSA","n":"AA","e":"AA"},{"kty":"OKP","crv":"X25519","x":"AA"},null,1]}`)
	tokens := map[string]*signedToken{}
	for _, algorithm := range slices.Concat(publicAlgorithms, hmacAlgorithms) {
		tokens[algorithm] = must(parse(signerOf(algorithm).sign(alice(), nil)))
	}
	f.Fuzz(func(t *testing.T, text string) {
		keys, _, err := parseSet([]byte(text))
		require.Equal(t, err != nil, len(keys) == 0)
		for _, key := range keys {
			for algorithm := range maps.Keys(tokens) {
				// A key that somebody made up must not bring the process down.
				tokens[algorithm].isSignedWith(key)
				require.False(t, strings.HasPrefix(algorithm, "HS") && key.fits(algorithm))
			}
		}
	})
}
