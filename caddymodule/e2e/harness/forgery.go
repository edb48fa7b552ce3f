package harness

import (
	"crypto/elliptic"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Tampered returns the token with another sub and its signature as it was.
func Tampered(t testing.TB, token, sub string) string {
	t.Helper()
	segments := strings.Split(token, ".")
	payload, err := base64.RawURLEncoding.DecodeString(segments[1])
	require.NoError(t, err)
	var claims map[string]any
	require.NoError(t, json.Unmarshal(payload, &claims))
	require.NotEqual(t, sub, claims["sub"])
	claims["sub"] = sub
	payload, err = json.Marshal(claims)
	require.NoError(t, err)
	segments[1] = base64.RawURLEncoding.EncodeToString(payload)
	return strings.Join(segments, ".")
}

// Padded returns the token with its signature filled up with "=", which decoders may
// take (PyJWT does) or not.
func Padded(t testing.TB, token string) string {
	t.Helper()
	signature := token[strings.LastIndexByte(token, '.')+1:]
	require.NotZero(t, len(signature)%4, "this signature, as those of ES384, needs no padding")
	return token + strings.Repeat("=", 4-len(signature)%4)
}

// Respelled returns the token with another last character, of which decoders that
// are not strict make the same signature (golang-jwt does, PyJWT no longer):
// some of its bits stand for nothing.
func Respelled(t testing.TB, token string) string {
	t.Helper()
	segments := strings.Split(token, ".")
	signature := segments[len(segments)-1]
	want, err := base64.RawURLEncoding.Strict().DecodeString(signature)
	require.NoError(t, err)
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	last := strings.IndexByte(alphabet, signature[len(signature)-1])
	other := signature[:len(signature)-1] + alphabet[last^1:][:1]
	got, err := base64.RawURLEncoding.DecodeString(other)
	require.NoError(t, err)
	require.Equal(t, want, got, "every bit of this signature's last character counts, as those of ES384 do")
	segments[len(segments)-1] = other
	return strings.Join(segments, ".")
}

// Twin returns an ES256 token with the other signature that its text has, (r, n-s),
// which everybody can compute and every library accepts.
func Twin(t testing.TB, token string) string {
	t.Helper()
	dot := strings.LastIndexByte(token, '.')
	signature, err := base64.RawURLEncoding.DecodeString(token[dot+1:])
	require.NoError(t, err)
	require.Len(t, signature, 64)
	s := new(big.Int).SetBytes(signature[32:])
	s.Sub(elliptic.P256().Params().N, s).FillBytes(signature[32:])
	return token[:dot+1] + base64.RawURLEncoding.EncodeToString(signature)
}
