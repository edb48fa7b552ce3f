package verify

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func block(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// certificate returns a self-signed one, which ended long ago.
func certificate(algorithm string) []byte {
	s := signerOf(algorithm)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "issuer"},
		NotAfter:     time.Date(2001, 1, 1, 0, 0, 0, 0, time.UTC),
	}
	return block("CERTIFICATE", must(x509.CreateCertificate(rand.Reader, template, template, s.public(), s.private)))
}

func TestPublicKeys_AreReadFromEveryKindOfFile(t *testing.T) {
	rsaPEM, pkcs1 := pemOf(&rsaKey().PublicKey), block("RSA PUBLIC KEY", x509.MarshalPKCS1PublicKey(&rsaKey().PublicKey))
	for name, test := range map[string]struct {
		file []byte
		want [][]string
	}{
		"RSA":             {rsaPEM, [][]string{rsaAlgorithms}},
		"RSA, PKCS 1":     {pkcs1, [][]string{rsaAlgorithms}},
		"P-256":           {pemOf(&p256Key().PublicKey), [][]string{{"ES256"}}},
		"P-384":           {pemOf(&p384Key().PublicKey), [][]string{{"ES384"}}},
		"P-521":           {pemOf(&p521Key().PublicKey), [][]string{{"ES512"}}},
		"Ed25519":         {pemOf(ed25519Key().Public()), [][]string{{"EdDSA"}}},
		"RSA certificate": {certificate("RS256"), [][]string{rsaAlgorithms}},
		"EC certificate":  {certificate("ES256"), [][]string{{"ES256"}}},
		"text around":     {slices.Concat([]byte("# the key\r\n"), rsaPEM, []byte("\r\n# end")), [][]string{rsaAlgorithms}},
		"CR LF":           {bytes.ReplaceAll(rsaPEM, []byte("\n"), []byte("\r\n")), [][]string{rsaAlgorithms}},
		"several": {
			slices.Concat(certificate("ES256"), []byte("\n"), pkcs1, pemOf(ed25519Key().Public())),
			[][]string{{"ES256"}, rsaAlgorithms, {"EdDSA"}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			keys, err := PublicKeys(test.file, "1")
			require.NoError(t, err)
			require.Len(t, keys, len(test.want))
			for i, key := range keys {
				require.Equal(t, test.want[i], key.algorithms)
				require.Equal(t, "1", key.kid)
			}
		})
	}
}

func TestPublicKeys_RefusesOtherFiles(t *testing.T) {
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	require.NoError(t, err)
	huge := &rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(3), maxRSABits), E: 65537}
	p224 := must(ecdsa.GenerateKey(elliptic.P224(), rand.Reader))
	good := pemOf(&p256Key().PublicKey)

	for name, refused := range map[string]struct {
		file []byte
		want string
	}{
		"an empty one":       {nil, "there is no PEM block"},
		"DER":                {must(x509.MarshalPKIXPublicKey(&p256Key().PublicKey)), "there is no PEM block"},
		"a secret":           {secret, "there is no PEM block"},
		"RSA, 1024 bits":     {pemOf(&weak.PublicKey), "the RSA key has 1024 bits, expected 2048 to 16384"},
		"RSA, 16386 bits":    {pemOf(huge), "the RSA key has 16386 bits"},
		"P-224":              {pemOf(&p224.PublicKey), "the curve P-224 is not supported, expected P-256, P-384 or P-521"},
		"X25519":             {pemOf(must(ecdh.X25519().GenerateKey(rand.Reader)).PublicKey()), "not supported"},
		"a private key":      {block("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(p256Key()))), "private key, which belongs to the issuer"},
		"an EC private key":  {block("EC PRIVATE KEY", must(x509.MarshalECPrivateKey(p256Key()))), "private key"},
		"an RSA private key": {block("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsaKey())), "private key"},
		"an encrypted one":   {block("ENCRYPTED PRIVATE KEY", []byte{0}), "private key"},
		"an OpenSSH one":     {block("OPENSSH PRIVATE KEY", []byte{0}), "private key"},
		"a request":          {block("CERTIFICATE REQUEST", []byte{0}), `PEM block 1, "CERTIFICATE REQUEST": expected "PUBLIC KEY"`},
		"not what it says":   {block("CERTIFICATE", []byte{1, 2, 3}), `PEM block 1, "CERTIFICATE": x509`},
		"PKIX as PKCS 1":     {block("RSA PUBLIC KEY", must(x509.MarshalPKIXPublicKey(&rsaKey().PublicKey))), "ParsePKIXPublicKey"},
		"the second is bad":  {slices.Concat(good, block("X", nil)), `PEM block 2, "X"`},
		"the first is cut":   {slices.Concat(good[:60], []byte("\n"), good), "1 of 2 PEM blocks cannot be read"},
		"the last is cut":    {slices.Concat(good, good[:60]), "1 of 2 PEM blocks cannot be read"},
		"it is cut":          {good[:60], "1 of 1 PEM blocks cannot be read"},
	} {
		t.Run(name, func(t *testing.T) {
			keys, err := PublicKeys(refused.file, "")
			require.ErrorContains(t, err, refused.want)
			require.Nil(t, keys)
		})
	}
}

func TestHMACSecret_RefusesWhatIsNone(t *testing.T) {
	_, err := HMACSecret(nil, "")
	require.ErrorContains(t, err, "empty")
	for _, file := range [][]byte{pemOf(&rsaKey().PublicKey), certificate("ES256")} {
		_, err = HMACSecret(file, "")
		require.ErrorContains(t, err, "public key")
	}
}

func TestHMACSecret_KeepsItsOwnCopy(t *testing.T) {
	given := bytes.Clone(secret)
	key, err := HMACSecret(given, "")
	require.NoError(t, err)
	clear(given)
	requireAccepted(t, newVerifier(t, Config{Keys: []Key{key}}), signerOf("HS256").sign(alice(), nil))
}

func TestKey_StaysOutOfLogs(t *testing.T) {
	key := signerOf("HS256").key("")
	for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
		require.Equal(t, "a key for HS256, HS384, HS512", fmt.Sprintf(format, key))
	}
	require.Equal(t, "no key", Key{}.String())
}
