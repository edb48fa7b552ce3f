package identity

import (
	"encoding/base64"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

var (
	jwtHeader  = base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"HS256","typ":"JWT"}`))
	jwtPayload = base64.RawURLEncoding.EncodeToString([]byte(`{"sub":"1234567890","name":"Jo"}`))
	// Both alphabets differ in these bytes, and the last digit has spare bits.
	jwtSignature = []byte("\xfb\xff\xfe0123456789abcdef0123456789\xfb\xff\xfe")
	jwt          = jwtWith(base64.RawURLEncoding.EncodeToString(jwtSignature))
)

// jwtWith returns the token with its signature spelled as given.
func jwtWith(signature string) string { return jwtHeader + "." + jwtPayload + "." + signature }

// mustHash hashes a token on whose meaning decoders agree.
func mustHash(t require.TestingT, token string) Hash {
	h, agreed := hashToken(token)
	require.True(t, agreed, "decoders disagree about %q", token)
	require.False(t, h.IsZero())
	return h
}

// encodings are the spellings of RFC 4648 for bytes of any length.
var encodings = map[string]*base64.Encoding{
	"StdEncoding":    base64.StdEncoding,
	"URLEncoding":    base64.URLEncoding,
	"RawStdEncoding": base64.RawStdEncoding,
	"RawURLEncoding": base64.RawURLEncoding,
}

func TestTokenHash_StandardEncodingsOfASignatureAreOneToken(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		signature := rapid.SliceOfN(rapid.Byte(), 0, 600).Draw(t, "signature")
		want := mustHash(t, jwtWith(base64.RawURLEncoding.EncodeToString(signature)))
		for name, encoding := range encodings {
			require.Equal(t, want, mustHash(t, jwtWith(encoding.EncodeToString(signature))), name)
		}
	})
}

func TestTokenHash_SpellingsOfASignatureAreOneToken(t *testing.T) {
	url := base64.RawURLEncoding.EncodeToString(jwtSignature)
	std := base64.RawStdEncoding.EncodeToString(jwtSignature)
	require.Equal(t, byte('-'), url[0])
	require.Equal(t, 43, len(url))

	for name, spelling := range map[string]string{
		"standard alphabet":           std,
		"both alphabets":              std[:20] + url[20:],
		"padded":                      url + "=",
		"line feed inside":            url[:10] + "\n" + url[10:],
		"CR LF inside":                url[:10] + "\r\n" + url[10:],
		"line feed at the end":        url + "\n",
		"spaces":                      " " + url[:5] + "   " + url[5:] + " ",
		"bytes that are not base64":   "!" + url[:5] + "\x00\xff~" + url[5:] + "*",
		"garbage behind the padding":  url + "=\n!",
		"garbage before the padding":  url + "\n=",
		"last digit with spare bit 1": url[:42] + next(url[42], 1),
		"last digit with spare bit 2": url[:42] + next(url[42], 2),
		"last digit with both":        url[:42] + next(url[42], 3),
	} {
		t.Run(name, func(t *testing.T) {
			require.NotEqual(t, url, spelling)
			require.Equal(t, mustHash(t, jwt), mustHash(t, jwtWith(spelling)))
		})
	}
}

// next returns the URL-safe digit that is n after c.
func next(c byte, n int) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	i := strings.IndexByte(alphabet, c) + n
	return alphabet[i : i+1]
}

func TestTokenHash_SignatureThatDecodersReadDifferentlyIsReported(t *testing.T) {
	url := base64.RawURLEncoding.EncodeToString(jwtSignature)
	long := strings.Repeat("A", 86)
	for name, spelling := range map[string]string{
		"padding first":                        "=" + url,
		"padding inside":                       url[:2] + "==" + url[2:],
		"stray padding inside":                 url[:1] + "=" + url[1:],
		"digits behind the padding":            url + "=AAAA",
		"more padding than the quantum needs":  url + "==",
		"padding without need":                 url + "A=",
		"padding after a single digit":         url + "AA===",
		"CR where MIME would end a line":       long[:76] + "\r\n" + long[76:],
		"CR there, and a digit to jump over":   long[:76] + "\rA" + long[76:],
		"padding behind garbage behind digits": url[:4] + "=!" + url[4:],
	} {
		t.Run(name, func(t *testing.T) {
			_, agreed := hashToken(jwtWith(spelling))
			require.False(t, agreed)
		})
	}
}

func TestTokenHash_DifferentTokensDiffer(t *testing.T) {
	url := base64.RawURLEncoding.EncodeToString(jwtSignature)
	moved := jwtHeader + jwtPayload[:1] + "." + jwtPayload[1:] + "." + url
	tokens := map[string]string{
		"the token":                        jwt,
		"another signature":                jwtWith("A" + url[1:]),
		"a longer signature":               jwtWith(url + "AA"),
		"no signature":                     jwtWith(""),
		"another header":                   jwtHeader + "A." + jwtPayload + "." + url,
		"another payload":                  jwtHeader + "." + jwtPayload + "A." + url,
		"padded payload":                   jwtHeader + "." + jwtPayload + "=." + url,
		"segment border moved":             moved,
		"two segments":                     jwtHeader + "." + jwtPayload,
		"four segments":                    jwt + ".",
		"encrypted":                        jwt + "..",
		"opaque":                           "opaque",
		"opaque in capitals":               "OPAQUE",
		"opaque with a padding":            "opaque=",
		"three segments, no JSON":          "opaque." + jwtPayload + "." + url,
		"three segments, no JSON, padded":  "opaque." + jwtPayload + "." + url + "=",
		"three segments, a JSON array":     "W10." + jwtPayload + "." + url,
		"same, padded":                     "W10." + jwtPayload + "." + url + "=",
		"three segments, broken JSON":      "e30x." + jwtPayload + "." + url,
		"same, with the standard alphabet": "e30x." + jwtPayload + "." + base64.RawStdEncoding.EncodeToString(jwtSignature),
		"the bytes a JWT is hashed as":     string(encodedJWT(jwt)),
		"dots only":                        "..",
	}
	seen := map[Hash]string{}
	for name, token := range tokens {
		h := mustHash(t, token)
		require.Emptyf(t, seen[h], "%s and %s have the same hash", name, seen[h])
		seen[h] = name
	}
}

func encodedJWT(token string) []byte {
	_, header := jwtVerbatim(nil, token)
	encoded, _ := appendJWT([]byte(jwtDomain), token, 2, header)
	return encoded
}

func TestTokenHash_JWTWithSpaceBeforeItsObjectIsAJWT(t *testing.T) {
	header := base64.URLEncoding.EncodeToString([]byte(" \r\n\t{\"alg\":\"none\"}"))
	require.Equal(t, mustHash(t, header+".e30.QQ"), mustHash(t, header+".e30.QQ=="))
}

func TestTokenHash_EncryptedTokenCountsDecodedExceptItsHeader(t *testing.T) {
	header := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"dir","enc":"A256GCM"}`))
	want := mustHash(t, header+"..AAAAAAAAAAAAAAAA.Zm9vYg.AAAAAAAAAAAAAAAAAAAAAA")

	require.Equal(t, want, mustHash(t, header+"..AAAAAAAAAAAAAAAA.Zm9vYg==.AAAAAAAAAAAAAAAAAAAAAP"))
	require.NotEqual(t, want, mustHash(t, header+"..AAAAAAAAAAAAAAAA.Zm9vYw.AAAAAAAAAAAAAAAAAAAAAA"))
	require.NotEqual(t, want, mustHash(t, header+"=..AAAAAAAAAAAAAAAA.Zm9vYg.AAAAAAAAAAAAAAAAAAAAAA"))

	wrapped := mustHash(t, header+".QQ.AAAAAAAAAAAAAAAA.Zm9vYg.AAAAAAAAAAAAAAAAAAAAAA")
	require.Equal(t, wrapped, mustHash(t, header+".QR==.AAAAAAAAAAAAAAAA.Zm9vYg.AAAAAAAAAAAAAAAAAAAAAA"))
	require.NotEqual(t, wrapped, want)

	_, agreed := hashToken(header + "..=AAAAAAAAAAAAAAAA.Zm9vYg.AAAAAAAAAAAAAAAAAAAAAA")
	require.False(t, agreed)
}

func TestTokenHash_LongTokenIsHashedLikeAShortOne(t *testing.T) {
	payload := strings.Repeat("A", 3*commonToken)
	require.Equal(t, mustHash(t, jwtHeader+"."+payload+".QUJD"), mustHash(t, jwtHeader+"."+payload+".QU\nJD"))
	require.NotEqual(t, mustHash(t, payload), mustHash(t, payload+"A"))
}

func FuzzTokenHash(f *testing.F) {
	url := base64.RawURLEncoding.EncodeToString(jwtSignature)
	f.Add(jwt, jwtSignature, 0, byte('\n'))
	f.Add(jwtWith(url+"="), []byte{}, 3, byte('='))
	f.Add(jwtWith("="+url), []byte{0}, -1, byte('!'))
	f.Add(jwtHeader+"....", []byte("ab"), 7, byte('\r'))
	f.Add("opaque", []byte("abc"), 1, byte(0))
	f.Add("", []byte{0xff}, 1, byte('A'))

	f.Fuzz(func(t *testing.T, token string, signature []byte, at int, noise byte) {
		h, _ := hashToken(token)
		again, _ := hashToken(token)
		require.Equal(t, h, again)

		// Spellings of one signature are one token.
		url := base64.RawURLEncoding.EncodeToString(signature)
		want := mustHash(t, jwtWith(url))
		for name, encoding := range encodings {
			require.Equal(t, want, mustHash(t, jwtWith(encoding.EncodeToString(signature))), name)
		}
		if digits[noise] == skip && noise != '.' && noise != '\r' {
			at = max(0, min(at, len(url)))
			require.Equal(t, want, mustHash(t, jwtWith(url[:at]+string([]byte{noise})+url[at:])))
		}

		// Header and payload count as they are written.
		segments := strings.Split(token, ".")
		if len(segments) == jwsSegments {
			for i := range 2 {
				changed := append([]string(nil), segments...)
				changed[i] += "A"
				other, _ := hashToken(strings.Join(changed, "."))
				require.NotEqual(t, h, other)
			}
		}
	})
}

func BenchmarkTokenHash(b *testing.B) {
	rs256 := jwtWith(strings.Repeat("_-9A", 85) + "_w")
	for name, token := range map[string]string{
		"HS256":  jwt,
		"RS256":  rs256,
		"opaque": "0123456789abcdef0123456789abcdef",
		"4KiB":   jwtHeader + "." + strings.Repeat("A", 4096) + "." + strings.Repeat("A", 43),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(token)))
			for b.Loop() {
				hashToken(token)
			}
		})
	}
}
