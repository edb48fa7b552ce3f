package verify

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/identity"
)

// pass lets time pass, within a bubble of synctest.
func pass(d time.Duration) { <-time.After(d) }

func TestVerify_LooksAtTheClaims(t *testing.T) {
	s := signerOf("HS256")
	now := time.Now().Unix()
	for name, test := range map[string]struct {
		config Config
		claims string
		why    error // nil: accepted
	}{
		"nothing but a subject":   {claims: ``},
		"issued in the future":    {claims: fmt.Sprintf(`"iat":%d`, now+1e6)},
		"valid since now":         {claims: fmt.Sprintf(`"nbf":%d`, now)},
		"valid since ever":        {claims: `"nbf":-1e400`},
		"valid in an hour":        {claims: fmt.Sprintf(`"nbf":%d`, now+3600), why: errNotYet},
		"valid within the leeway": {claims: fmt.Sprintf(`"nbf":%d`, now+3600), config: Config{Leeway: 2 * time.Hour}},
		"never valid":             {claims: `"nbf":1e400`, why: errNotYet},
		"valid in another age":    {claims: `"nbf":253402300800`, why: errNotYet},
		"not valid, and expired":  {claims: `"nbf":99999999999,"exp":1`, why: errNotYet},

		"exp in an hour":            {claims: fmt.Sprintf(`"exp":%d`, now+3600)},
		"exp in an hour, fraction":  {claims: fmt.Sprintf(`"exp":%d.75`, now+3600)},
		"exp in an hour, exponent":  {claims: fmt.Sprintf(`"exp":%de-1`, (now+3600)*10)},
		"exp in another age":        {claims: `"exp":253402300800`},
		"exp never":                 {claims: `"exp":1e400`},
		"exp past an int64":         {claims: `"exp":1e30`},
		"exp past":                  {claims: fmt.Sprintf(`"exp":%d`, now-1), why: identity.ErrExpired},
		"exp past, in the leeway":   {claims: fmt.Sprintf(`"exp":%d`, now-1), config: Config{Leeway: time.Minute}},
		"exp 0":                     {claims: `"exp":0`, why: identity.ErrExpired},
		"exp before time":           {claims: `"exp":-1e400`, why: identity.ErrExpired},
		"exp as text":               {claims: fmt.Sprintf(`"exp":"%d"`, now+3600), why: wrongType("exp")},
		"exp null":                  {claims: `"exp":null`, why: wrongType("exp")},
		"exp true":                  {claims: `"exp":true`, why: wrongType("exp")},
		"exp twice, the last valid": {claims: fmt.Sprintf(`"exp":1,"exp":%d`, now+3600)},
		"EXP is another claim":      {claims: `"EXP":1`},
		"nbf as text":               {claims: `"nbf":"1"`, why: wrongType("nbf")},
		"iat as text":               {claims: `"iat":"1"`, why: wrongType("iat")},
		"iss as number":             {claims: `"iss":1`, why: wrongType("iss")},
		"sub as array":              {claims: `"sub":["a"]`, why: wrongType("sub")},
		"jti as number":             {claims: `"jti":1`},
		"jti as object":             {claims: `"jti":{}`, why: wrongType("jti")},
		"aud as number":             {claims: `"aud":1`, why: wrongType("aud")},
		"aud as object":             {claims: `"aud":{"a":"a"}`, why: wrongType("aud")},
		"aud with a number":         {claims: `"aud":["a",1]`, why: wrongType("aud")},

		"one of the issuers":         {claims: `"iss":"b"`, config: Config{Issuers: []string{"a", "b"}}},
		"another issuer":             {claims: `"iss":"c"`, config: Config{Issuers: []string{"a", "b"}}, why: errIssuer},
		"an issuer with a slash":     {claims: `"iss":"a/"`, config: Config{Issuers: []string{"a"}}, why: errIssuer},
		"no issuer":                  {claims: ``, config: Config{Issuers: []string{"a"}}, why: errIssuer},
		"an issuer nobody looks at":  {claims: `"iss":"c"`},
		"the audience":               {claims: `"aud":"b"`, config: Config{Audiences: []string{"a", "b"}}},
		"the audience among others":  {claims: `"aud":["x","b"]`, config: Config{Audiences: []string{"a", "b"}}},
		"another audience":           {claims: `"aud":"c"`, config: Config{Audiences: []string{"a", "b"}}, why: errAudience},
		"other audiences":            {claims: `"aud":["c","d"]`, config: Config{Audiences: []string{"a", "b"}}, why: errAudience},
		"audiences that look joined": {claims: `"aud":["a","b"]`, config: Config{Audiences: []string{"a,b"}}, why: errAudience},
		"no audience":                {claims: ``, config: Config{Audiences: []string{"a"}}, why: errAudience},
		"no audience at all":         {claims: `"aud":[]`, config: Config{Audiences: []string{"a"}}, why: errAudience},

		"all that is required":     {claims: `"sid":"s","a":{"b":0}`, config: Config{Require: []string{"sub", "sid", "a.b"}}},
		"without what is":          {claims: `"a":{}`, config: Config{Require: []string{"a.b"}}, why: invalid("The token lacks the claim a.b")},
		"null for what is":         {claims: `"a":null`, config: Config{Require: []string{"a"}}, why: invalid("The token lacks the claim a")},
		"exp, if it is":            {claims: ``, config: Config{Require: []string{"exp"}}, why: invalid("The token lacks the claim exp")},
		"a name beyond RFC 6750":   {claims: ``, config: Config{Require: []string{"\"é\\\n"}}, why: invalid("The token lacks the claim ????")},
		"expired, and lacking":     {claims: `"exp":1`, config: Config{Require: []string{"sid"}}, why: invalid("The token lacks the claim sid")},
		"expired, and from abroad": {claims: `"exp":1,"iss":"c"`, config: Config{Issuers: []string{"a"}}, why: errIssuer},
	} {
		t.Run(name, func(t *testing.T) {
			test.config.Keys = []Key{s.key("")}
			v := newVerifier(t, test.config)
			payload := `{"sub":"alice"}`
			if test.claims != "" {
				payload = `{"sub":"alice",` + test.claims + `}`
			}
			token := s.signText(`{"alg":"HS256"}`, payload)
			if test.why == nil {
				requireAccepted(t, v, token)
			} else {
				requireRefused(t, v, token, test.why)
			}
		})
	}
}

func TestVerify_ANumberMayNameTheSubject(t *testing.T) {
	s := signerOf("HS256")
	v := newVerifier(t, Config{Keys: []Key{s.key("")}})
	claims, err := v.Verify(t.Context(), s.signText(`{"alg":"HS256"}`, `{"sub":42}`))
	require.NoError(t, err)
	require.Equal(t, "42", claims.Sub)
}

// wrongType returns why a registered claim of the wrong type is refused.
func wrongType(name string) error {
	for _, claim := range registered {
		if claim.name == name {
			return claim.wrong
		}
	}
	panic(name)
}

func TestVerify_APayloadThatIsNoObjectIsRefused(t *testing.T) {
	s := signerOf("HS256")
	v := newVerifier(t, Config{Keys: []Key{s.key("")}})
	for _, payload := range []string{``, `[]`, `"alice"`, `1`, `{"sub":"alice"`, `alice`} {
		t.Run(payload, func(t *testing.T) {
			requireRefused(t, v, s.signText(`{"alg":"HS256"}`, payload), errMalformed)
		})
	}
}

func TestVerify_ATokenEndsWithItsTime(t *testing.T) {
	for _, leeway := range []time.Duration{0, 5 * time.Second, 10 * time.Minute} {
		t.Run(leeway.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := signerOf("HS256")
				v := newVerifier(t, Config{Keys: []Key{s.key("")}, Leeway: leeway})
				token := s.sign(jwt.MapClaims{"sub": "alice", "exp": time.Now().Add(30 * time.Second).Unix()}, nil)

				requireAccepted(t, v, token) // from now on it is in the cache
				pass(30*time.Second + leeway - time.Nanosecond)
				requireAccepted(t, v, token)
				pass(time.Nanosecond)
				claims, err := v.VerifyNow(token)
				require.Equal(t, identity.ErrExpired, err)
				require.Equal(t, "alice", claims.Sub)
				requireRefused(t, v, token, identity.ErrExpired)
			})
		})
	}
}

func TestVerify_ATokenBeginsWithItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := signerOf("HS256")
		v := newVerifier(t, Config{Keys: []Key{s.key("")}, Leeway: 5 * time.Second})
		token := s.sign(jwt.MapClaims{"sub": "alice", "nbf": time.Now().Add(30 * time.Second).Unix()}, nil)

		requireRefused(t, v, token, errNotYet)
		pass(25*time.Second - time.Millisecond)
		requireRefused(t, v, token, errNotYet)
		pass(time.Millisecond)
		requireAccepted(t, v, token)
	})
}
