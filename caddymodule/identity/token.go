package identity

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"strings"
)

// Token is a token that a request carries. Its text is for a Verifier only.
type Token struct {
	// Hash stands for the token, however it is spelled; zero: none.
	Hash Hash
	text string
}

// IsZero reports whether there is no token.
func (t Token) IsZero() bool { return t.Hash.IsZero() }

// String keeps the text out of logs and errors.
func (t Token) String() string { return t.Hash.Short() }

// GoString is String, for %#v.
func (t Token) GoString() string { return t.Hash.Short() }

// A JWT is three segments when signed (RFC 7515 section 7.1) and five when
// encrypted (RFC 7516 section 7.1).
const (
	jwsSegments = 3
	jweSegments = 5
)

// commonToken is the encoded size up to which a token is hashed without
// allocating.
const commonToken = 2048

// commonHeader is the same for the decoded header.
const commonHeader = 512

// hashToken returns the hash of a token that is not empty. A token's bytes are
// not its identity: decoders accept many spellings of the same signature, and some
// signatures have twins. So the segments that a JWT's signature covers count as they
// are written, the others count as the bytes they decode to, and a signature as the
// one of its twins that oneSignature chooses. Any other token counts as it is.
//
// agreed is false if decoders are known to disagree about what such a segment
// says; the hash is then that of one reading.
func hashToken(token string) (h Hash, agreed bool) {
	var stack [commonToken]byte
	var inHeader [commonHeader]byte
	buf := stack[:0]
	if verbatim, header := jwtVerbatim(inHeader[:0], token); verbatim > 0 {
		buf, agreed = appendJWT(append(buf, jwtDomain...), token, verbatim, header)
	} else {
		buf, agreed = append(append(buf, opaqueDomain...), token...), true
	}
	return sha256.Sum256(buf), agreed
}

// jwtVerbatim returns the number of leading segments of a JWT-shaped token that
// nobody but its issuer can write differently: header and payload of a signed
// one, the header (the additional data of RFC 7516 section 5.1) of an encrypted
// one. It is 0 if the token is not shaped like a JWT. The decoded header is appended to
// buf.
//
// It looks at nothing that a holder of the token could change.
func jwtVerbatim(buf []byte, token string) (verbatim int, header []byte) {
	switch strings.Count(token, ".") + 1 {
	case jwsSegments:
		verbatim = 2
	case jweSegments:
		verbatim = 1
	default:
		return 0, nil
	}
	segment, _, _ := strings.Cut(token, ".")
	header, _ = appendDecoded(buf, segment)
	if !isJSONObject(header) {
		return 0, nil
	}
	return verbatim, header
}

// isJSONObject reports whether text is a JSON object.
func isJSONObject(text []byte) bool {
	text = bytes.TrimLeft(text, " \t\r\n")
	return len(text) > 0 && text[0] == '{' && json.Valid(text)
}

// appendJWT appends the segments of token, the first ones verbatim and the
// others decoded, each behind its length. header is the token's, decoded.
func appendJWT(dst []byte, token string, verbatim int, header []byte) (out []byte, agreed bool) {
	agreed = true
	signed := verbatim == jwsSegments-1
	for segment := range strings.SplitSeq(token, ".") {
		if verbatim > 0 {
			verbatim--
			dst = appendPart(dst, segment)
			continue
		}
		start := len(dst)
		dst = append(dst, make([]byte, lengthSize)...)
		var segmentAgreed bool
		dst, segmentAgreed = appendDecoded(dst, segment)
		agreed = agreed && segmentAgreed
		if signed {
			var one []byte
			one, segmentAgreed = oneSignature(header, dst[start+lengthSize:])
			dst = append(dst[:start+lengthSize], one...)
			agreed = agreed && segmentAgreed
		}
		binary.BigEndian.PutUint64(dst[start:], uint64(len(dst)-start-lengthSize))
	}
	return dst, agreed
}
