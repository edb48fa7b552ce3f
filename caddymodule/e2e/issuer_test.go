package e2e

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"
)

// issuer makes JWTs of one algorithm with a key of its own.
type issuer struct {
	alg string
	// kid names the key in its tokens and in its JWK, unless it is empty.
	kid string

	private any // what golang-jwt signs with
	public  any // nil for a secret
}

// newIssuer makes an issuer with a new key for RS256, PS256, ES256, ES384, EdDSA
// or HS256.
func newIssuer(t testing.TB, alg string) *issuer {
	t.Helper()
	i := &issuer{alg: alg}
	var err error
	switch alg {
	case "RS256", "PS256":
		i.private, err = rsa.GenerateKey(rand.Reader, 2048)
	case "ES256":
		i.private, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "ES384":
		i.private, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "EdDSA":
		_, i.private, err = ed25519.GenerateKey(rand.Reader)
	case "HS256":
		// Text, since Caddyfiles and environments hold nothing else.
		i.private = []byte(rand.Text() + rand.Text())
	default:
		require.FailNow(t, "no issuer for this algorithm", alg)
	}
	require.NoError(t, err)
	if signer, ok := i.private.(crypto.Signer); ok {
		i.public = signer.Public()
	}
	return i
}

// tokenDraft is a token before it is signed.
type tokenDraft struct {
	header map[string]any
	claims jwt.MapClaims
}

// tokenOption changes a token before it is signed.
type tokenOption func(*tokenDraft)

// withClaim sets a claim to anything that encoding/json can write; nil leaves
// the claim out.
func withClaim(name string, value any) tokenOption {
	return func(d *tokenDraft) { setOrDelete(d.claims, name, value) }
}

func withSub(sub string) tokenOption { return withClaim("sub", sub) }

// withExp sets the end of the token's life, in whole seconds as issuers do: the
// token ends up to a second before.
func withExp(at time.Time) tokenOption { return withClaim("exp", at.Unix()) }

// withKid names another key in the header than the one that signs; "" names none.
func withKid(kid string) tokenOption {
	return func(d *tokenDraft) {
		if kid == "" {
			delete(d.header, "kid")
		} else {
			d.header["kid"] = kid
		}
	}
}

func setOrDelete(m map[string]any, name string, value any) {
	if value == nil {
		delete(m, name)
	} else {
		m[name] = value
	}
}

var tokensMade atomic.Int64

// token makes a token for alice that lives an hour, unless the options say
// otherwise. No two are equal, as they have a jti.
func (i *issuer) token(t testing.TB, options ...tokenOption) string {
	t.Helper()
	return i.tokenSignedBy(t, jwt.GetSigningMethod(i.alg), i.private, options)
}

func (i *issuer) tokenSignedBy(t testing.TB, method jwt.SigningMethod, key any, options []tokenOption) string {
	t.Helper()
	now := time.Now()
	d := tokenDraft{
		header: map[string]any{"typ": "JWT", "alg": method.Alg()},
		claims: jwt.MapClaims{
			"sub": "alice",
			"iat": now.Unix(),
			"exp": now.Add(time.Hour).Unix(),
			"jti": fmt.Sprint(tokensMade.Add(1)),
		},
	}
	options = append([]tokenOption{withKid(i.kid)}, options...)
	for _, option := range options {
		option(&d)
	}
	token := jwt.Token{Method: method, Header: d.header, Claims: d.claims}
	signed, err := token.SignedString(key)
	require.NoError(t, err)
	return signed
}

// publicPEM is the key that tokens are verified with, as PEM.
func (i *issuer) publicPEM(t testing.TB) string {
	t.Helper()
	require.NotNil(t, i.public, "%s has no public key", i.alg)
	der, err := x509.MarshalPKIXPublicKey(i.public)
	require.NoError(t, err)
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

// verificationKey is publicPEM, or the secret of HS256.
func (i *issuer) verificationKey(t testing.TB) string {
	t.Helper()
	if secret, ok := i.private.([]byte); ok {
		return string(secret)
	}
	return i.publicPEM(t)
}

// keyFile writes the verificationKey to a file of the test's and returns its path.
func (i *issuer) keyFile(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), i.alg+".key")
	require.NoError(t, os.WriteFile(path, []byte(i.verificationKey(t)), 0o600))
	return path
}

// jwk is the key that tokens are verified with as a JWK (RFC 7517, RFC 7518
// section 6, RFC 8037 section 2).
func (i *issuer) jwk(t testing.TB) map[string]any {
	t.Helper()
	encode := base64.RawURLEncoding.EncodeToString
	jwk := map[string]any{"alg": i.alg, "use": "sig"}
	if i.kid != "" {
		jwk["kid"] = i.kid
	}
	switch key := i.public.(type) {
	case *rsa.PublicKey:
		maps.Copy(jwk, map[string]any{
			"kty": "RSA", "n": encode(key.N.Bytes()), "e": encode(big.NewInt(int64(key.E)).Bytes()),
		})
	case *ecdsa.PublicKey:
		point, err := key.Bytes()
		require.NoError(t, err)
		point = point[1:] // behind the mark of an uncompressed point
		maps.Copy(jwk, map[string]any{
			"kty": "EC", "crv": key.Params().Name, "x": encode(point[:len(point)/2]), "y": encode(point[len(point)/2:]),
		})
	case ed25519.PublicKey:
		maps.Copy(jwk, map[string]any{"kty": "OKP", "crv": "Ed25519", "x": encode(key)})
	default:
		maps.Copy(jwk, map[string]any{"kty": "oct", "k": encode(i.private.([]byte))})
	}
	return jwk
}

// jwks is the JWK Set of the issuers' keys.
func jwks(t testing.TB, issuers ...*issuer) string {
	t.Helper()
	keys := []map[string]any{}
	for _, i := range issuers {
		keys = append(keys, i.jwk(t))
	}
	set, err := json.Marshal(map[string]any{"keys": keys})
	require.NoError(t, err)
	return string(set)
}

// confusedToken forges a token without the private key: its header says HS256,
// and the public key's PEM is the secret (RFC 8725 section 2.1).
func (i *issuer) confusedToken(t testing.TB, options ...tokenOption) string {
	t.Helper()
	return i.tokenSignedBy(t, jwt.SigningMethodHS256, []byte(i.publicPEM(t)), options)
}

// unsignedToken forges a token of the algorithm none.
func (i *issuer) unsignedToken(t testing.TB, options ...tokenOption) string {
	t.Helper()
	return i.tokenSignedBy(t, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, options)
}

// tampered puts another sub into a token and leaves its signature as it was.
func tampered(t testing.TB, token, sub string) string {
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

// padded is the token with its signature filled up with "=", which decoders may
// take (PyJWT does) or not.
func padded(t testing.TB, token string) string {
	t.Helper()
	signature := token[strings.LastIndexByte(token, '.')+1:]
	require.NotZero(t, len(signature)%4, "this signature, as those of ES384, needs no padding")
	return token + strings.Repeat("=", 4-len(signature)%4)
}

// respelled is the token with another last character, of which decoders that
// are not strict make the same signature (golang-jwt does, PyJWT no longer):
// some of its bits stand for nothing.
func respelled(t testing.TB, token string) string {
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
