package verify

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
	"errors"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/identity"
)

// signer issues tokens with one key.
type signer struct {
	method  jwt.SigningMethod
	private any
}

var secret = []byte("0123456789abcdef0123456789abcdef")

// The keys take a while to make, and no test changes them.
var (
	rsaKey      = sync.OnceValue(func() *rsa.PrivateKey { return must(rsa.GenerateKey(rand.Reader, 2048)) })
	otherRSAKey = sync.OnceValue(func() *rsa.PrivateKey { return must(rsa.GenerateKey(rand.Reader, 2048)) })
	p256Key     = sync.OnceValue(newP256Key)
	p384Key     = sync.OnceValue(func() *ecdsa.PrivateKey { return must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader)) })
	p521Key     = sync.OnceValue(func() *ecdsa.PrivateKey { return must(ecdsa.GenerateKey(elliptic.P521(), rand.Reader)) })
	ed25519Key  = sync.OnceValue(func() ed25519.PrivateKey { return ed25519.NewKeyFromSeed(secret) })
)

func newP256Key() *ecdsa.PrivateKey { return must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)) }

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

// signerOf returns a signer for an algorithm, with a key that all tests share.
func signerOf(algorithm string) signer {
	s := signer{method: jwt.GetSigningMethod(algorithm)}
	switch algorithm {
	case "HS256", "HS384", "HS512":
		s.private = secret
	case "ES256":
		s.private = p256Key()
	case "ES384":
		s.private = p384Key()
	case "ES512":
		s.private = p521Key()
	case "EdDSA":
		s.private = ed25519Key()
	default:
		s.private = rsaKey()
	}
	return s
}

// sign returns a token with a header of alg and typ and what else is given.
func (s signer) sign(claims jwt.MapClaims, header map[string]any) string {
	token := jwt.NewWithClaims(s.method, claims)
	maps.Copy(token.Header, header)
	return must(token.SignedString(s.private))
}

// signText signs segments that no library would write.
func (s signer) signText(header, payload string) string {
	signed := encode(header) + "." + encode(payload)
	return signed + "." + base64.RawURLEncoding.EncodeToString(must(s.method.Sign(signed, s.private)))
}

func encode(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }

func (s signer) public() any {
	if private, ok := s.private.(crypto.Signer); ok {
		return private.Public()
	}
	return nil
}

// key returns the static Key that verifies what s signs.
func (s signer) key(kid string) Key {
	public := s.public()
	if public == nil {
		return must(HMACSecret(s.private.([]byte), kid))
	}
	keys := must(PublicKeys(pemOf(public), kid))
	return keys[0]
}

// jwk returns the JSON of the key, with what else is given.
func (s signer) jwk(kid string, members map[string]any) json.RawMessage {
	key := s.public()
	if key == nil {
		key = s.private
	}
	options := jwkset.JWKOptions{Marshal: jwkset.JWKMarshalOptions{Private: true}}
	options.Metadata.KID = kid
	jwk := must(jwkset.NewJWKFromKey(key, options))
	var all map[string]any
	if err := json.Unmarshal(must(json.Marshal(jwk.Marshal())), &all); err != nil {
		panic(err)
	}
	maps.Copy(all, members)
	return must(json.Marshal(all))
}

func pemOf(public any) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: must(x509.MarshalPKIXPublicKey(public))})
}

func set(keys ...json.RawMessage) string {
	return string(must(json.Marshal(map[string]any{"keys": keys})))
}

func newVerifier(t require.TestingT, config Config) *Verifier {
	v, err := New(config)
	require.NoError(t, err)
	return v
}

func inAnHour() int64 { return time.Now().Add(time.Hour).Unix() }

// alice is what a token says that nothing is wrong with.
func alice() jwt.MapClaims { return jwt.MapClaims{"sub": "alice", "exp": inAnHour()} }

// requireAccepted checks that both ways to verify accept a token of alice.
func requireAccepted(t require.TestingT, v identity.Verifier, token string) {
	claims, err := v.VerifyNow(token)
	requirePromises(t, token, claims, err)
	require.NoError(t, err)
	require.Equal(t, "alice", claims.Sub)
	claims, err = v.Verify(background, token)
	requirePromises(t, token, claims, err)
	require.NoError(t, err)
	require.Equal(t, "alice", claims.Sub)
}

// requireRefused checks that both ways to verify refuse a token for that reason.
func requireRefused(t require.TestingT, v identity.Verifier, token string, why error) {
	claims, err := v.VerifyNow(token)
	requirePromises(t, token, claims, err)
	require.Equal(t, why, err)
	claims, err = v.Verify(background, token)
	requirePromises(t, token, claims, err)
	require.Equal(t, why, err)
}

// requirePromises checks what identity.Verifier promises of every answer.
func requirePromises(t require.TestingT, token string, claims *identity.Claims, err error) {
	if err == nil {
		require.NotNil(t, claims)
		return
	}
	require.Equal(t, errors.Is(err, identity.ErrExpired), claims != nil)
	text := err.Error()
	for i := 0; i+8 <= len(text); i++ {
		require.NotContains(t, token, text[i:i+8], "an error holds a part of the token")
	}
	if why, ok := errors.AsType[*identity.InvalidTokenError](err); ok {
		require.NotEmpty(t, why.Why)
		require.False(t, strings.ContainsFunc(why.Why, func(c rune) bool {
			return c < ' ' || c > '~' || c == '"' || c == '\\'
		}), "RFC 6750 section 3 forbids it: %q", why.Why)
	} else {
		require.ErrorIs(t, err, identity.ErrNoKeys)
	}
}
