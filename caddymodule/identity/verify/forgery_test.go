package verify

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"
)

// Whoever has the public key must not be able to use it as a secret: it is
// public (RFC 8725 section 2.1).
func TestForged_WithThePublicKeyAsSecret(t *testing.T) {
	public := &rsaKey().PublicKey
	pkcs1 := x509.MarshalPKCS1PublicKey(public)
	secrets := map[string][]byte{
		"PEM":                 pemOf(public),
		"PEM without its end": bytes.TrimSpace(pemOf(public)),
		"DER":                 must(x509.MarshalPKIXPublicKey(public)),
		"PKCS 1 PEM":          pem.EncodeToMemory(&pem.Block{Type: "RSA PUBLIC KEY", Bytes: pkcs1}),
		"PKCS 1 DER":          pkcs1,
		"modulus":             public.N.Bytes(),
		"JWK":                 signerOf("RS256").jwk("1", nil),
		"Ed25519":             ed25519Key().Public().(ed25519.PublicKey),
		"nothing":             {},
	}
	asymmetric := []Key{signerOf("RS256").key("1"), signerOf("EdDSA").key("1")}
	for _, among := range []struct {
		name string
		keys []Key
		why  error
	}{
		{"public keys", asymmetric, errAlgorithm},
		{"a secret for any kid", append(asymmetric, signerOf("HS256").key("")), errSignature},
		{"a secret for another kid", append(asymmetric, signerOf("HS256").key("2")), errAlgorithmKey},
	} {
		v := newVerifier(t, Config{Keys: among.keys})
		for name, secret := range secrets {
			for _, method := range []jwt.SigningMethod{jwt.SigningMethodHS256, jwt.SigningMethodHS384, jwt.SigningMethodHS512} {
				t.Run(fmt.Sprintf("%s/%s/%s", among.name, name, method.Alg()), func(t *testing.T) {
					requireRefused(t, v, signer{method, secret}.sign(alice(), map[string]any{"kid": "1"}), among.why)
				})
			}
		}
	}
}

func TestForged_WithoutSignature(t *testing.T) {
	v := newVerifier(t, Config{Keys: []Key{signerOf("RS256").key(""), signerOf("HS256").key("")}})
	payload := fmt.Sprintf(`{"sub":"alice","exp":%d}`, inAnHour())
	genuine := strings.Split(signerOf("HS256").sign(alice(), nil), ".")[2]
	for _, algorithm := range []string{"none", "None", "NONE", "nOnE", "", " none", "none\u0000"} {
		for name, signature := range map[string]string{"no signature": "", "a genuine one": genuine} {
			t.Run(algorithm+"/"+name, func(t *testing.T) {
				header := fmt.Sprintf(`{"typ":"JWT","alg":%q}`, strings.ReplaceAll(algorithm, "\u0000", ""))
				requireRefused(t, v, encode(header)+"."+encode(payload)+"."+signature, errAlgorithm)
			})
		}
	}
	for _, algorithm := range []string{"HS256", "RS256"} {
		t.Run(algorithm, func(t *testing.T) {
			token := signerOf(algorithm).sign(alice(), nil)
			requireRefused(t, v, token[:strings.LastIndexByte(token, '.')+1], errSignature)
		})
	}
}

// Numbers r = s = 0 satisfied a famous implementation (CVE-2022-21449).
func TestForged_WithAnAllZeroSignature(t *testing.T) {
	for algorithm, size := range map[string]int{"ES256": 64, "ES384": 96, "EdDSA": 64, "RS256": 256, "HS256": 32} {
		t.Run(algorithm, func(t *testing.T) {
			v := newVerifier(t, Config{Keys: []Key{signerOf(algorithm).key("")}})
			header := fmt.Sprintf(`{"alg":%q}`, algorithm)
			signature := base64.RawURLEncoding.EncodeToString(make([]byte, size))
			requireRefused(t, v, encode(header)+"."+encode(`{"sub":"alice"}`)+"."+signature, errSignature)
		})
	}
}

func TestForged_ByChangingASignedToken(t *testing.T) {
	for _, algorithm := range []string{"HS256", "RS256", "ES256", "EdDSA"} {
		s := signerOf(algorithm)
		v := newVerifier(t, Config{Keys: []Key{s.key("")}})
		token := s.sign(alice(), nil)
		requireAccepted(t, v, token) // which puts it in the cache
		segments := strings.Split(token, ".")
		header, payload, signature := segments[0], segments[1], segments[2]
		admin := strings.Replace(string(must(base64.RawURLEncoding.DecodeString(payload))), "alice", "admin", 1)
		bytes := must(base64.RawURLEncoding.DecodeString(signature))
		shorter := base64.RawURLEncoding.EncodeToString(bytes[:len(bytes)-1])
		other := strings.Split(s.sign(jwt.MapClaims{"sub": "bob"}, nil), ".")

		for name, refused := range map[string]struct {
			token string
			why   error
		}{
			"another payload":       {header + "." + encode(admin) + "." + signature, errSignature},
			"another header":        {encode(fmt.Sprintf(`{"alg":%q}`, algorithm)) + "." + payload + "." + signature, errSignature},
			"another's signature":   {header + "." + payload + "." + other[2], errSignature},
			"another's payload":     {header + "." + other[1] + "." + signature, errSignature},
			"a shorter signature":   {header + "." + payload + "." + shorter, errSignature},
			"a longer signature":    {token + "AAAA", errSignature},
			"a spare bit":           {token[:len(token)-1] + next(token[len(token)-1]), errMalformed},
			"padding":               {token + strings.Repeat("=", 4-len(signature)%4), errMalformed},
			"standard alphabet":     {header + "." + payload + ".+/" + signature[2:], errMalformed},
			"line feed at the end":  {token + "\n", errMalformed},
			"line feed inside":      {token[:len(token)-9] + "\n" + token[len(token)-9:], errMalformed},
			"CR in the payload":     {header + "." + payload[:8] + "\r" + payload[8:] + "." + signature, errMalformed},
			"line feed in front":    {"\n" + token, errMalformed},
			"space in front":        {" " + token, errMalformed},
			"NUL at the end":        {token + "\x00", errMalformed},
			"Bearer in front":       {"Bearer " + token, errMalformed},
			"dot in front":          {"." + token, errNoJWT},
			"dot at the end":        {token + ".", errNoJWT},
			"its two segments only": {header + "." + payload, errNoJWT},
			"nothing":               {"", errNoJWT},
			"dots":                  {"..", errMalformed},
			"more dots":             {"....", errEncrypted},
		} {
			t.Run(algorithm+"/"+name, func(t *testing.T) { requireRefused(t, v, refused.token, refused.why) })
		}
	}
}

// next returns the base64url digit after c: at the end of a signature whose
// size is no multiple of three bytes it has the same bits that count.
func next(c byte) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	i := strings.IndexByte(alphabet, c) + 1
	return alphabet[i : i+1]
}

func TestVerify_LooksAtTheHeaderOfASignedToken(t *testing.T) {
	s := signerOf("HS256")
	v := newVerifier(t, Config{Keys: []Key{s.key("")}})
	for name, refused := range map[string]struct {
		header string
		why    error
	}{
		"an extension":             {`{"alg":"HS256","crit":["exp"],"exp":1}`, errCritical},
		"unencoded payload":        {`{"alg":"HS256","crit":["b64"],"b64":false}`, errCritical},
		"an empty list of them":    {`{"alg":"HS256","crit":[]}`, errCritical},
		"a list that is null":      {`{"alg":"HS256","crit":null}`, errCritical},
		"a list, then none":        {`{"alg":"HS256","crit":["exp"],"crit":null}`, errCritical},
		"no algorithm":             {`{"typ":"JWT"}`, errMalformed},
		"an algorithm in capitals": {`{"ALG":"HS256"}`, errMalformed},
		"a number for algorithm":   {`{"alg":256}`, errMalformed},
		"an array of algorithms":   {`{"alg":["HS256"]}`, errMalformed},
		"two, and the last counts": {`{"alg":"HS256","alg":"none"}`, errAlgorithm},
		"an unknown one":           {`{"alg":"HS257"}`, errAlgorithm},
		"in small letters":         {`{"alg":"hs256"}`, errAlgorithm},
		"no object":                {`["HS256"]`, errMalformed},
		"null":                     {`null`, errMalformed},
		"no JSON":                  {`{"alg":"HS256"`, errMalformed},
		"two objects":              {`{"alg":"HS256"}{}`, errMalformed},
		"nothing":                  {``, errMalformed},
	} {
		t.Run("refused: "+name, func(t *testing.T) {
			requireRefused(t, v, s.signText(refused.header, `{"sub":"alice"}`), refused.why)
		})
	}
	for name, header := range map[string]string{
		"fields twice, of which the last counts": `{"alg":"none","alg":"HS256","typ":"a","typ":"b"}`,
		"white space":                            " {\r\n\t\"alg\" : \"HS256\" } ",
		"escapes":                                `{"\u0061lg":"\u0048S256"}`,
	} {
		t.Run("accepted: "+name, func(t *testing.T) {
			requireAccepted(t, v, s.signText(header, `{"sub":"alice"}`))
		})
	}
}

func TestVerify_RefusesWhatIsTooLong(t *testing.T) {
	s := signerOf("HS256")
	v := newVerifier(t, Config{Keys: []Key{s.key("")}})
	long := func(size int) string {
		return s.sign(jwt.MapClaims{"sub": "alice", "x": strings.Repeat("x", size)}, nil)
	}

	requireAccepted(t, v, long(12000))
	requireRefused(t, v, long(64<<10), errTooLong)
	requireRefused(t, v, strings.Repeat(".", 64<<20), errTooLong)
	require.Less(t, len(long(12000)), maxToken)
}

func TestVerify_RefusesEncryptedTokens(t *testing.T) {
	v := newVerifier(t, Config{Keys: []Key{signerOf("HS256").key("")}})
	header := encode(`{"alg":"dir","enc":"A256GCM"}`)
	requireRefused(t, v, header+"..AAAAAAAAAAAAAAAA.Zm9vYg.AAAAAAAAAAAAAAAAAAAAAA", errEncrypted)
}
