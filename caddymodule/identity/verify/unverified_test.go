package verify

import (
	"fmt"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/identity"
)

func TestUnverified_BelievesWhatATokenSays(t *testing.T) {
	for _, algorithm := range []string{"HS256", "RS256", "ES256", "EdDSA"} {
		requireAccepted(t, Unverified{}, signerOf(algorithm).sign(alice(), named("1")))
	}
	payload := encode(`{"sub":"alice"}`)
	for _, header := range []string{`{"alg":"none"}`, `{"alg":"ES256K"}`, `{"alg":"Ed25519","kid":"1"}`} {
		requireAccepted(t, Unverified{}, encode(header)+"."+payload+".")
	}
}

func TestUnverified_RefusesWhatCannotBeRead(t *testing.T) {
	s := signerOf("HS256")
	for token, why := range map[string]error{
		"":                                       errNoJWT,
		"opaque":                                 errNoJWT,
		"a.b.c":                                  errMalformed,
		"a.b.c.d.e":                              errEncrypted,
		s.signText(`{"alg":"x"}`, `[]`):          errMalformed,
		s.signText(`{}`, `{}`):                   errMalformed,
		s.sign(alice(), nil) + "\n":              errMalformed,
		s.signText(`{"alg":"x"}`, `{"exp":"1"}`): wrongType("exp"),
		s.sign(jwt.MapClaims{"nbf": inAnHour()}, nil): errNotYet,
	} {
		requireRefused(t, Unverified{}, token, why)
	}
}

func TestUnverified_TellsTheExpired(t *testing.T) {
	token := signerOf("HS256").signText(`{"alg":"HS256"}`, fmt.Sprintf(`{"sub":"alice","exp":%d}`, time.Now().Unix()-5))
	claims, err := Unverified{}.VerifyNow(token)
	require.Equal(t, identity.ErrExpired, err)
	require.Equal(t, "alice", claims.Sub)
	requireAccepted(t, Unverified{Leeway: time.Minute}, token)
}
