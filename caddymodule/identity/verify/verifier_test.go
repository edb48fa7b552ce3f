package verify

import (
	"context"
	"encoding/base64"
	"slices"
	"testing"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/identity"
)

var background = context.Background()

func TestVerify_AcceptsWhatItsKeySigned(t *testing.T) {
	for _, algorithm := range slices.Concat(publicAlgorithms, hmacAlgorithms) {
		t.Run(algorithm, func(t *testing.T) {
			s := signerOf(algorithm)
			for name, header := range map[string]map[string]any{
				"without kid":      nil,
				"with its kid":     {"kid": "1"},
				"with other typ":   {"typ": "at+jwt"},
				"with more header": {"x5u": "https://example.com", "jku": "https://example.com", "b": []int{1}},
			} {
				t.Run(name, func(t *testing.T) {
					requireAccepted(t, newVerifier(t, Config{Keys: []Key{s.key("1")}}), s.sign(alice(), header))
					requireAccepted(t, newVerifier(t, Config{Keys: []Key{s.key("")}}), s.sign(alice(), header))
				})
			}
		})
	}
}

// The examples of RFC 7515 appendices A.1 and A.3. Their exp was in 2011.
func TestVerify_KnowsTheTokensOfTheStandard(t *testing.T) {
	const payload = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"
	hmac := must(HMACSecret(must(base64.RawURLEncoding.DecodeString(
		"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow")), ""))
	ec := must(parseKey([]byte(`{"kty":"EC","crv":"P-256",
		"x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
		"y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}`)))
	v := newVerifier(t, Config{Keys: []Key{hmac, ec}})
	for name, token := range map[string]string{
		"A.1": "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9." + payload + ".dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk",
		"A.3": "eyJhbGciOiJFUzI1NiJ9." + payload +
			".DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
	} {
		t.Run(name, func(t *testing.T) {
			claims, err := v.VerifyNow(token)
			require.ErrorIs(t, err, identity.ErrExpired)
			require.Equal(t, "joe", claims.Text("iss"))
			require.Equal(t, "true", claims.Text("http://example.com/is_root"))
		})
	}
}

func TestVerify_ChoosesKeysByKID(t *testing.T) {
	one, two, three := signerOf("RS256"), signer{jwt.SigningMethodRS256, otherRSAKey()}, signerOf("HS256")
	v := newVerifier(t, Config{Keys: []Key{one.key("1"), two.key("2"), three.key("")}})
	kid := func(kid string) map[string]any { return map[string]any{"kid": kid} }

	for name, token := range map[string]string{
		"its own":                       one.sign(alice(), kid("1")),
		"its own, the other key":        two.sign(alice(), kid("2")),
		"none: every key of the kind":   two.sign(alice(), nil),
		"an empty one: likewise":        two.sign(alice(), kid("")),
		"any, of a key without":         three.sign(alice(), kid("9")),
		"a taken one, of a key without": three.sign(alice(), kid("1")),
	} {
		t.Run("accepted: "+name, func(t *testing.T) { requireAccepted(t, v, token) })
	}
	for name, refused := range map[string]struct {
		token string
		why   error
	}{
		"another key's": {one.sign(alice(), kid("2")), errSignature},
		"nobody's, RSA": {one.sign(alice(), kid("9")), errAlgorithmKey},
		"a number":      {one.sign(alice(), map[string]any{"kid": 1}), errKID},
		"null":          {one.sign(alice(), map[string]any{"kid": nil}), errKID},
		"an array":      {one.sign(alice(), map[string]any{"kid": []string{"1"}}), errKID},
		"a path":        {one.sign(alice(), kid("../../dev/null")), errAlgorithmKey},
	} {
		t.Run("refused: "+name, func(t *testing.T) { requireRefused(t, v, refused.token, refused.why) })
	}
	t.Run("refused: nobody's, and every key has one", func(t *testing.T) {
		v := newVerifier(t, Config{Keys: []Key{one.key("1")}})
		requireRefused(t, v, one.sign(alice(), kid("9")), errUnknownKey)
	})
}

func TestVerify_KeepsToTheConfiguredAlgorithms(t *testing.T) {
	v := newVerifier(t, Config{
		Keys:       []Key{signerOf("RS256").key(""), signerOf("HS256").key("")},
		Algorithms: []string{"PS256", "HS512"},
	})
	requireAccepted(t, v, signerOf("PS256").sign(alice(), nil))
	requireAccepted(t, v, signerOf("HS512").sign(alice(), nil))
	for _, algorithm := range []string{"RS256", "PS384", "HS256", "ES256"} {
		requireRefused(t, v, signerOf(algorithm).sign(alice(), nil), errAlgorithm)
	}
}

func TestNew_RefusesWhatMakesNoSense(t *testing.T) {
	rsaOnly := []Key{signerOf("RS256").key("")}
	for name, refused := range map[string]struct {
		config Config
		want   string
	}{
		"no key":               {Config{}, "needs a key"},
		"an unknown algorithm": {Config{Keys: rsaOnly, Algorithms: []string{"RS265"}}, `unknown JWT algorithm "RS265"`},
		"no algorithm":         {Config{Keys: rsaOnly, Algorithms: []string{"none"}}, `unknown JWT algorithm "none"`},
		"in small letters":     {Config{Keys: rsaOnly, Algorithms: []string{"rs256"}}, "expected one of PS256, PS384, PS512, RS256"},
		"for no key":           {Config{Keys: rsaOnly, Algorithms: []string{"RS256", "HS256"}}, "HS256 fits none of the configured keys"},
		"for no such curve":    {Config{Keys: []Key{signerOf("ES256").key("")}, Algorithms: []string{"ES384"}}, "ES384 fits none"},
		"HMAC and a JWKS":      {Config{JWKS: []*JWKS{{}}, Algorithms: []string{"HS256"}}, "HS256 fits none"},
		"a negative leeway":    {Config{Keys: rsaOnly, Leeway: -1}, "negative"},
		"an empty issuer":      {Config{Keys: rsaOnly, Issuers: []string{"a", ""}}, "issuer is empty"},
		"an empty audience":    {Config{Keys: rsaOnly, Audiences: []string{""}}, "audience is empty"},
		"an empty claim":       {Config{Keys: rsaOnly, Require: []string{""}}, "claim is empty"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := New(refused.config)
			require.ErrorContains(t, err, refused.want)
		})
	}
}
