package verify

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"
)

func issuedBy(iss any) jwt.MapClaims {
	claims := alice()
	if iss != nil {
		claims["iss"] = iss
	}
	return claims
}

// A key vouches for the issuers that it is bound to, whatever the token says.
func TestIssuers_AKeyIsGoodForItsOwnOnly(t *testing.T) {
	a, b := signerOf("ES256"), signer{jwt.SigningMethodHS256, []byte("the secret of b, which is no secret to b")}
	for name, kid := range map[string]string{"without a kid": "", "with the same kid": "1"} {
		t.Run(name, func(t *testing.T) {
			header := map[string]any{}
			if kid != "" {
				header["kid"] = kid
			}
			for what, config := range map[string]Config{
				"keys only":        {Keys: []Key{a.key(kid).Of("A"), b.key(kid).Of("B", "B2")}},
				"and their names":  {Keys: []Key{a.key(kid).Of("A"), b.key(kid).Of("B", "B2")}, Issuers: []string{"A", "B", "B2"}},
				"algorithms as is": {Keys: []Key{b.key(kid).Of("B", "B2"), a.key(kid).Of("A")}, Algorithms: []string{"ES256", "HS256"}},
			} {
				t.Run(what, func(t *testing.T) {
					v := newVerifier(t, config)
					requireAccepted(t, v, a.sign(issuedBy("A"), header))
					requireAccepted(t, v, b.sign(issuedBy("B"), header))
					requireAccepted(t, v, b.sign(issuedBy("B2"), header))
					requireRefused(t, v, b.sign(issuedBy("A"), header), errAlgorithmKey)
					requireRefused(t, v, a.sign(issuedBy("B"), header), errAlgorithmKey)
					requireRefused(t, v, b.sign(issuedBy("C"), header), errIssuer)
					requireRefused(t, v, b.sign(issuedBy(nil), header), errIssuer)
					requireRefused(t, v, b.sign(issuedBy(7), header), errIssuer)
				})
			}
			other := signer{jwt.SigningMethodES256, newP256Key()}
			v := newVerifier(t, Config{Keys: []Key{a.key(kid).Of("A"), other.key(kid).Of("B")}})
			requireRefused(t, v, other.sign(issuedBy("A"), header), errSignature)
		})
	}
}

// Also a set that is published, and one whose keys have the kid of another's.
func TestIssuers_APublishedSetIsGoodForItsOwnOnly(t *testing.T) {
	one, two := newIssuer(oldKey.jwk("1", nil)), newIssuer(newKey.jwk("1", nil))
	synctest.Test(t, func(t *testing.T) {
		first, _ := one.jwks(t)
		defer first.Close()
		second, _ := two.jwks(t)
		defer second.Close()
		v := newVerifier(t, Config{
			Keys:      []Key{signerOf("RS256").key("1").Of("C")},
			JWKS:      []*JWKS{first, second},
			IssuersOf: map[*JWKS][]string{first: {"A"}, second: {"B"}},
		})
		synctest.Wait()
		requireAccepted(t, v, oldKey.sign(issuedBy("A"), named("1")))
		requireAccepted(t, v, newKey.sign(issuedBy("B"), named("1")))
		requireRefused(t, v, oldKey.sign(issuedBy("B"), named("1")), errSignature)
		requireRefused(t, v, newKey.sign(issuedBy("A"), named("1")), errSignature)
		requireRefused(t, v, newKey.sign(issuedBy("D"), named("1")), errIssuer)

		// What B, or C, calls its key does not keep a new one of A's from being looked for.
		pass(time.Minute)
		rotated := signer{jwt.SigningMethodES256, newP256Key()}
		two.publish(newKey.jwk("2", nil))
		pass(2 * time.Hour)
		require.Positive(t, two.count())
		one.publish(rotated.jwk("2", nil))
		one.count()
		_, err := v.Verify(t.Context(), rotated.sign(issuedBy("A"), named("2")))
		require.NoError(t, err)
		require.Equal(t, 1, one.count())
		require.Zero(t, two.count(), "B's set has no say in it")
	})
}

// With several issuers no key may be anybody's.
func TestIssuers_SeveralNeedKeysThatAreBound(t *testing.T) {
	a, b := signerOf("ES256").key(""), signerOf("RS256").key("")
	set := new(JWKS)
	for name, config := range map[string]Config{
		"two keys":              {Keys: []Key{a, b}, Issuers: []string{"A", "B"}},
		"one of them bound":     {Keys: []Key{a.Of("A"), b}, Issuers: []string{"A", "B"}},
		"one bound, no issuers": {Keys: []Key{a.Of("A"), b}},
		"a key and a set":       {Keys: []Key{a}, JWKS: []*JWKS{set}, Issuers: []string{"A", "B"}},
		"a set that is not":     {Keys: []Key{a.Of("A")}, JWKS: []*JWKS{set}},
	} {
		_, err := New(config)
		require.ErrorContains(t, err, "in the name of every issuer", name)
	}
	for name, config := range map[string]Config{
		"one key of two names":   {Keys: []Key{a}, Issuers: []string{"A", "B"}},
		"two keys of one issuer": {Keys: []Key{a, b}, Issuers: []string{"A"}},
		"two keys of anybody":    {Keys: []Key{a, b}},
		"all bound":              {Keys: []Key{a.Of("A")}, JWKS: []*JWKS{set}, IssuersOf: map[*JWKS][]string{set: {"B"}}},
	} {
		_, err := New(config)
		require.NoError(t, err, name)
	}
}
