package harness

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
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"
)

// Issuer makes JWTs of one algorithm with a key of its own.
type Issuer struct {
	// Alg names the algorithm as RFC 7518 and RFC 8037 do.
	Alg string
	// KID names the key in its tokens and in its JWK, unless it is empty.
	KID string

	private any // what golang-jwt signs with
	public  any // nil for a secret
}

// NewIssuer makes an issuer with a new key for RS256, PS256, ES256, ES384, EdDSA
// or HS256.
func NewIssuer(t testing.TB, alg string) *Issuer {
	t.Helper()
	i := &Issuer{Alg: alg}
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

// tokensMade numbers the tokens of this process.
var tokensMade atomic.Int64

// Token makes a token for alice that lives an hour, unless the options say
// otherwise. No two are equal, as they have a jti.
func (i *Issuer) Token(t testing.TB, options ...TokenOption) string {
	t.Helper()
	return i.tokenSignedBy(t, jwt.GetSigningMethod(i.Alg), i.private, options)
}

// tokenSignedBy makes a token whose header names the method's algorithm.
func (i *Issuer) tokenSignedBy(t testing.TB, method jwt.SigningMethod, key any, options []TokenOption) string {
	t.Helper()
	now := time.Now()
	d := TokenDraft{
		Header: map[string]any{"typ": "JWT", "alg": method.Alg()},
		Claims: jwt.MapClaims{
			"sub": "alice",
			"iat": now.Unix(),
			"exp": now.Add(time.Hour).Unix(),
			"jti": fmt.Sprint(tokensMade.Add(1)),
		},
	}
	options = append([]TokenOption{WithKID(i.KID)}, options...)
	for _, option := range options {
		option(&d)
	}
	token := jwt.Token{Method: method, Header: d.Header, Claims: d.Claims}
	signed, err := token.SignedString(key)
	require.NoError(t, err)
	return signed
}

// publicPEM returns the key that tokens are verified with, as PEM.
func (i *Issuer) publicPEM(t testing.TB) string {
	t.Helper()
	require.NotNil(t, i.public, "%s has no public key", i.Alg)
	der, err := x509.MarshalPKIXPublicKey(i.public)
	require.NoError(t, err)
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

// verificationKey returns publicPEM, or the secret of HS256.
func (i *Issuer) verificationKey(t testing.TB) string {
	t.Helper()
	if secret, ok := i.private.([]byte); ok {
		return string(secret)
	}
	return i.publicPEM(t)
}

// keyFile writes the verificationKey to a file of the test's and returns its path.
func (i *Issuer) keyFile(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), i.Alg+".key")
	require.NoError(t, os.WriteFile(path, []byte(i.verificationKey(t)), 0o600))
	return path
}

// jwk returns the key that tokens are verified with as a JWK (RFC 7517, RFC 7518
// section 6, RFC 8037 section 2).
func (i *Issuer) jwk(t testing.TB) map[string]any {
	t.Helper()
	encode := base64.RawURLEncoding.EncodeToString
	jwk := map[string]any{"alg": i.Alg, "use": "sig"}
	if i.KID != "" {
		jwk["kid"] = i.KID
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

// JWKS returns the JWK Set of the issuers' keys (RFC 7517 section 5).
func JWKS(t testing.TB, issuers ...*Issuer) string {
	t.Helper()
	keys := []map[string]any{}
	for _, i := range issuers {
		keys = append(keys, i.jwk(t))
	}
	set, err := json.Marshal(map[string]any{"keys": keys})
	require.NoError(t, err)
	return string(set)
}

// ConfusedToken forges a token without the private key: its header says HS256,
// and the public key's PEM is the secret (RFC 8725 section 2.1).
func (i *Issuer) ConfusedToken(t testing.TB, options ...TokenOption) string {
	t.Helper()
	return i.tokenSignedBy(t, jwt.SigningMethodHS256, []byte(i.publicPEM(t)), options)
}

// UnsignedToken forges a token of the algorithm none.
func (i *Issuer) UnsignedToken(t testing.TB, options ...TokenOption) string {
	t.Helper()
	return i.tokenSignedBy(t, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, options)
}

// KeyOption returns the line of a jwt block with which the issuer's tokens are
// verified. It names a file that goes with the test.
func (i *Issuer) KeyOption(t testing.TB) string {
	t.Helper()
	option := "hmac_secret"
	if i.public != nil {
		option = "public_key"
	}
	return fmt.Sprintf("%s %q %s", option, i.keyFile(t), i.KID)
}
