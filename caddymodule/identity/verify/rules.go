package verify

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/identity"
)

// rules is what the claims of a token must say for it to be accepted. golang-jwt
// has a validator, which knows one issuer only, takes an exp in the far future
// for the past and lets an aud of the wrong type pass.
type rules struct {
	issuers, audiences []string
	leeway             time.Duration
	required           []requirement
}

// requirement is a claim that must be present.
type requirement struct {
	name    string
	lacking error
}

var (
	errNotYet   = invalid("The token is not valid yet")
	errIssuer   = invalid("The token's issuer (iss) is not accepted here")
	errAudience = invalid("The token is meant for another audience (aud)")
)

// registered are the claims of RFC 7519 section 4.1 with the types that section
// gives them, but that applications put numbers into the two that identify.
var registered = []struct {
	name   string
	isType func(any) bool
	wrong  error
}{
	{"iss", isString, invalid("The claim iss is not a string")},
	{"sub", isIdentifier, invalid("The claim sub is neither a string nor a number")},
	{"aud", isAudience, invalid("The claim aud is neither a string nor an array of strings")},
	{"exp", isNumber, invalid("The claim exp is not a number")},
	{"nbf", isNumber, invalid("The claim nbf is not a number")},
	{"iat", isNumber, invalid("The claim iat is not a number")},
	{"jti", isIdentifier, invalid("The claim jti is neither a string nor a number")},
}

func newRules(config Config) (rules, error) {
	switch {
	case config.Leeway < 0:
		return rules{}, fmt.Errorf("JWT leeway %v is negative", config.Leeway)
	case slices.Contains(config.Issuers, ""):
		return rules{}, errors.New("an accepted JWT issuer is empty")
	case slices.Contains(config.Audiences, ""):
		return rules{}, errors.New("an accepted JWT audience is empty")
	case slices.Contains(config.Require, ""):
		return rules{}, errors.New("the name of a required JWT claim is empty")
	}
	r := rules{
		issuers:   slices.Clone(config.Issuers),
		audiences: slices.Clone(config.Audiences),
		leeway:    config.Leeway,
	}
	for _, name := range config.Require {
		r.required = append(r.required, requirement{name, invalid("The token lacks the claim " + quotable(name))})
	}
	return r, nil
}

// quotable is name without what an error_description must not hold (RFC 6750
// section 3).
func quotable(name string) string {
	return strings.Map(func(c rune) rune {
		if c < ' ' || c > '~' || c == '"' || c == '\\' {
			return '?'
		}
		return c
	}, name)
}

// apply returns what values say. The end of a token's life is looked at last,
// since ErrExpired says that nothing else is wrong.
func (r *rules) apply(values map[string]any, now time.Time) (*identity.Claims, error) {
	for _, claim := range registered {
		if value, ok := values[claim.name]; ok && !claim.isType(value) {
			return nil, claim.wrong
		}
	}
	if nbf, ok := values["nbf"]; ok && seconds(nbf) > unix(now.Add(r.leeway)) {
		return nil, errNotYet
	}
	claims := identity.NewClaims(values)
	if len(r.issuers) > 0 && !hasAny(claims, "iss", r.issuers) {
		return nil, errIssuer
	}
	if len(r.audiences) > 0 && !hasAny(claims, "aud", r.audiences) {
		return nil, errAudience
	}
	for _, claim := range r.required {
		if !claims.Present(claim.name) {
			return nil, claim.lacking
		}
	}
	if end := claims.Expires; !end.IsZero() && !now.Before(end.Add(r.leeway)) {
		return claims, identity.ErrExpired
	}
	return claims, nil
}

func hasAny(claims *identity.Claims, name string, values []string) bool {
	return slices.ContainsFunc(values, func(value string) bool { return claims.Has(name, value) })
}

func isString(value any) bool {
	_, ok := value.(string)
	return ok
}

func isIdentifier(value any) bool { return isString(value) || isNumber(value) }

func isNumber(value any) bool {
	_, ok := value.(json.Number)
	return ok
}

func isAudience(value any) bool {
	array, ok := value.([]any)
	if !ok {
		return isString(value)
	}
	return !slices.ContainsFunc(array, func(element any) bool { return !isString(element) })
}

// seconds reads a NumericDate (RFC 7519 section 2), which may be beyond what
// time.Time can hold.
func seconds(value any) float64 {
	number, _ := value.(json.Number)
	f, _ := number.Float64() // out of range is infinite
	return f
}

func unix(t time.Time) float64 { return float64(t.UnixMicro()) / 1e6 }
