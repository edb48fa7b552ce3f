package identity

import (
	"crypto/sha256"
	"encoding/json"
	"math"
	"strconv"
	"strings"
	"time"
)

// Claims is what a JWT says (RFC 7519 section 4). It is immutable, and safe for
// concurrent use.
type Claims struct {
	// Sub is the claim sub, whom the token was issued to; empty: nobody. A number
	// is taken as its text.
	Sub string
	// Subject stands for sub within iss: two issuers may name different people
	// alike. Zero: none.
	Subject Hash
	// Session stands for sid within Subject; without sid it is the Subject's one
	// session. Zero: no subject.
	Session Hash
	// Expires is exp. Zero: the token does not say, or not in this age.
	Expires time.Time
	// IssuedAt is iat. Zero: the token does not say.
	IssuedAt time.Time

	values map[string]any
}

// NewClaims takes over values, which are of the types that encoding/json makes
// of an object, with json.Number or float64 for numbers.
func NewClaims(values map[string]any) *Claims {
	c := &Claims{
		values:   values,
		Expires:  numericDate(values["exp"]),
		IssuedAt: numericDate(values["iat"]),
	}
	switch sub := values["sub"].(type) {
	case string, json.Number, float64:
		c.Sub = text(sub)
	}
	if c.Sub != "" {
		iss, _ := values["iss"].(string)
		c.Subject = hashParts(subjectDomain, iss, c.Sub)
		c.Session = hashParts(sessionDomain, iss, c.Sub, text(values["sid"]))
	}
	return c
}

func hashParts(domain string, parts ...string) Hash {
	var stack [512]byte
	buf := append(stack[:0], domain...)
	for _, part := range parts {
		buf = appendPart(buf, part)
	}
	return sha256.Sum256(buf)
}

// latest is the end of what numericDate takes for a date, in Unix seconds: the
// year 9999. What is later means never.
const latest = 253402300799

// numericDate reads a NumericDate of RFC 7519 section 2, zero if it is none.
func numericDate(value any) time.Time {
	var seconds float64
	switch v := value.(type) {
	case float64:
		seconds = v
	case json.Number:
		seconds, _ = v.Float64() // out of range is infinite
	default:
		return time.Time{}
	}
	if seconds > latest {
		return time.Time{}
	}
	whole, fraction := math.Modf(max(seconds, 0))
	return time.Unix(int64(whole), int64(fraction*1e9))
}

// Text is the value of the claim name as text, empty if there is none: numbers
// without exponent, the elements of an array joined with commas, an object as
// JSON. A name with dots leads into objects ("realm_access.roles"), unless there
// is a claim of just that name ("https://example.com/role").
func (c *Claims) Text(name string) string { return text(lookUp(c.values, name)) }

// Has reports whether the claim name has the given value as text, or is an array
// with such an element.
func (c *Claims) Has(name, value string) bool {
	found := lookUp(c.values, name)
	array, ok := found.([]any)
	if !ok {
		return found != nil && text(found) == value
	}
	for _, element := range array {
		if element != nil && text(element) == value {
			return true
		}
	}
	return false
}

// Present reports whether there is a claim of that name, and it is not null.
func (c *Claims) Present(name string) bool { return lookUp(c.values, name) != nil }

// lookUp prefers the longest name: claims named by a URL have dots of their own.
func lookUp(values map[string]any, name string) any {
	if value, ok := values[name]; ok {
		return value
	}
	for dot := strings.LastIndexByte(name, '.'); dot > 0; dot = strings.LastIndexByte(name[:dot], '.') {
		if inner, ok := values[name[:dot]].(map[string]any); ok {
			if value := lookUp(inner, name[dot+1:]); value != nil {
				return value
			}
		}
	}
	return nil
}

func text(value any) string {
	switch v := value.(type) {
	case nil:
		return ""
	case string:
		return v
	case bool:
		return strconv.FormatBool(v)
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64)
	case json.Number:
		return decimal(v)
	case []any:
		elements := make([]string, len(v))
		for i, element := range v {
			elements[i] = text(element)
		}
		return strings.Join(elements, ",")
	default:
		b, err := json.Marshal(v)
		if err != nil {
			return "" // no JSON in the first place
		}
		return string(b)
	}
}

// decimal spells n without exponent; integers of any size as they are.
func decimal(n json.Number) string {
	if !strings.ContainsAny(n.String(), "eE") {
		return n.String()
	}
	f, err := n.Float64()
	if err != nil {
		return n.String() // too large to be anything but a name
	}
	return strconv.FormatFloat(f, 'f', -1, 64)
}
