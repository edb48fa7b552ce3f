package verify

import (
	"errors"
	"slices"
	"strings"

	"github.com/golang-jwt/jwt/v5"

	"github.com/sse-guard/sse-guard/caddymodule/identity"
)

// maxToken is the number of bytes in the largest token that is looked at. What
// comes in a header is smaller with most servers.
const maxToken = 16 << 10

// Why tokens are refused. Each is a whole sentence, so that nothing of a token
// gets into one.
var (
	errTooLong      = invalid("The token is too long")
	errNoJWT        = invalid("The token is not a JWT")
	errEncrypted    = invalid("The token is encrypted, and only signed ones are accepted")
	errMalformed    = invalid("The token is not a well-formed JWT")
	errCritical     = invalid("The token depends on a header extension (crit) that is not known here")
	errKID          = invalid("The token's key id (kid) is not a string")
	errAlgorithm    = invalid("The token's algorithm (alg) is not accepted here")
	errUnknownKey   = invalid("The token is not signed with a key that is known here")
	errAlgorithmKey = invalid("The token's algorithm (alg) does not fit its key")
	errSignature    = invalid("The token's signature is wrong")
)

func invalid(why string) error { return &identity.InvalidTokenError{Why: why} }

// signedToken is a JWT in the compact serialisation (RFC 7515 section 7.1), taken apart
// and not yet believed.
type signedToken struct {
	// algorithm is alg, which may be one that nobody knows.
	algorithm string
	// method is nil if golang-jwt does not know the algorithm.
	method jwt.SigningMethod
	// kid is empty if the token does not say.
	kid string
	// signed is what the signature covers.
	signed    string
	signature []byte
	claims    map[string]any
	// issuer is iss, which nobody has signed yet: it decides only which keys may.
	issuer string
}

// Strict, as otherwise four spellings of a signature's last character are one.
var parser = jwt.NewParser(jwt.WithStrictDecoding(), jwt.WithJSONNumber())

// parse takes a token apart.
func parse(text string) (*signedToken, error) {
	if len(text) > maxToken {
		return nil, errTooLong
	}
	switch strings.Count(text, ".") {
	case 2:
	case 4:
		return nil, errEncrypted
	default:
		return nil, errNoJWT
	}
	if strings.ContainsAny(text, "\r\n") {
		return nil, errMalformed // decoders of encoding/base64 skip them, also strict ones
	}
	claims := jwt.MapClaims{}
	parsed, _, err := parser.ParseUnverified(text, claims)
	if err != nil && !errors.Is(err, jwt.ErrTokenUnverifiable) {
		return nil, errMalformed
	}
	t := &signedToken{
		method:    parsed.Method,
		signed:    text[:strings.LastIndexByte(text, '.')],
		signature: parsed.Signature,
		claims:    claims,
	}
	t.issuer, _ = claims["iss"].(string)
	if err := t.readHeader(parsed.Header); err != nil {
		return nil, err
	}
	return t, nil
}

func (t *signedToken) readHeader(header map[string]any) error {
	if _, ok := header["crit"]; ok {
		// Who does not understand an extension must refuse it (RFC 7515 section
		// 4.1.11), and golang-jwt understands none.
		return errCritical
	}
	var ok bool
	if t.algorithm, ok = header["alg"].(string); !ok {
		return errMalformed
	}
	if kid, given := header["kid"]; given {
		if t.kid, ok = kid.(string); !ok {
			return errKID
		}
	}
	return nil
}

// isOf reports whether a key of these issuers may vouch for t.
func (t *signedToken) isOf(issuers []string) bool {
	return len(issuers) == 0 || slices.Contains(issuers, t.issuer)
}

// isSignedWith reports whether key is one that t may be signed with, and is.
func (t *signedToken) isSignedWith(key Key) bool {
	return key.fits(t.algorithm) && t.method != nil && t.method.Verify(t.signed, t.signature, key.material) == nil
}
