package verify

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Key verifies signatures. Its kind decides which algorithms it is used with:
// a token that could choose would have a public key taken for an HMAC secret.
type Key struct {
	// material is what golang-jwt expects for each of the algorithms.
	material   any
	kid        string
	algorithms []string
	// issuers are those whose tokens it may sign; empty: anybody's.
	issuers []string
}

// The algorithms of each kind of key: RFC 7518 section 3.1, RFC 8037 section 3.1.
var (
	hmacAlgorithms  = []string{"HS256", "HS384", "HS512"}
	rsaAlgorithms   = []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}
	p256Algorithms  = []string{"ES256"}
	p384Algorithms  = []string{"ES384"}
	p521Algorithms  = []string{"ES512"}
	eddsaAlgorithms = []string{"EdDSA"}

	publicAlgorithms = slices.Concat(rsaAlgorithms, p256Algorithms, p384Algorithms, p521Algorithms, eddsaAlgorithms)
)

const (
	// minRSABits is the least of RFC 7518 section 3.3.
	minRSABits = 2048
	// maxRSABits keeps one verification below a few milliseconds.
	maxRSABits = 16384
)

// String tells the kind, and keeps a secret out of logs and errors.
func (k Key) String() string {
	if len(k.algorithms) == 0 {
		return "no key"
	}
	return "a key for " + strings.Join(k.algorithms, ", ")
}

// GoString is String, for %#v.
func (k Key) GoString() string { return k.String() }

// Of returns a Key like k that counts only for tokens of these issuers (iss); without
// one, for anybody's.
func (k Key) Of(issuers ...string) Key {
	k.issuers = slices.Clone(issuers)
	return k
}

// fits reports whether k is used with algorithm.
func (k Key) fits(algorithm string) bool { return slices.Contains(k.algorithms, algorithm) }

// HMACSecret returns the Key of a secret that the issuer of tokens shares with
// those who verify them. It counts for tokens with this kid, or with any if kid
// is empty.
func HMACSecret(secret []byte, kid string) (Key, error) {
	if len(secret) == 0 {
		return Key{}, errors.New("the HMAC secret is empty")
	}
	if block, _ := pem.Decode(secret); block != nil {
		// Whoever has the public key could then sign tokens.
		return Key{}, fmt.Errorf("the HMAC secret is a PEM block %q, expected a secret; a public key is configured as such",
			block.Type)
	}
	return Key{material: bytes.Clone(secret), kid: kid, algorithms: hmacAlgorithms}, nil
}

// PublicKeys returns the keys in a PEM file: blocks "PUBLIC KEY" (RFC 5280
// section 4.1.2.7), "RSA PUBLIC KEY" (RFC 8017 appendix A.1.1) and
// "CERTIFICATE", of which nothing but the key counts: neither its dates nor its
// issuer. They count for tokens with this kid, or with any if kid is empty.
func PublicKeys(file []byte, kid string) ([]Key, error) {
	var keys []Key
	for rest := file; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		key, err := publicKeyOf(block)
		if err != nil {
			return nil, fmt.Errorf("PEM block %d, %q: %w", len(keys)+1, block.Type, err)
		}
		key.kid = kid
		keys = append(keys, key)
	}
	switch begun := bytes.Count(file, []byte("-----BEGIN ")); {
	case begun > len(keys):
		// pem.Decode passes over what it cannot read.
		return nil, fmt.Errorf("%d of %d PEM blocks cannot be read", begun-len(keys), begun)
	case len(keys) == 0:
		return nil, errors.New(`there is no PEM block, expected "PUBLIC KEY" or "CERTIFICATE"`)
	}
	return keys, nil
}

func publicKeyOf(block *pem.Block) (Key, error) {
	var material any
	var err error
	switch block.Type {
	case "PUBLIC KEY":
		material, err = x509.ParsePKIXPublicKey(block.Bytes)
	case "RSA PUBLIC KEY":
		material, err = x509.ParsePKCS1PublicKey(block.Bytes)
	case "CERTIFICATE":
		var certificate *x509.Certificate
		if certificate, err = x509.ParseCertificate(block.Bytes); err == nil {
			material = certificate.PublicKey
		}
	default:
		if strings.HasSuffix(block.Type, "PRIVATE KEY") {
			return Key{}, errors.New("it is a private key, which belongs to the issuer alone; " +
				"its public half is what `openssl pkey -pubout` prints")
		}
		return Key{}, errors.New(`expected "PUBLIC KEY", "RSA PUBLIC KEY" or "CERTIFICATE"`)
	}
	if err != nil {
		return Key{}, err
	}
	return publicKey(material)
}

// publicKey returns the Key of a public key of the standard library's types.
func publicKey(material any) (Key, error) {
	switch key := material.(type) {
	case *rsa.PublicKey:
		if bits := key.N.BitLen(); bits < minRSABits || bits > maxRSABits {
			return Key{}, fmt.Errorf("the RSA key has %d bits, expected %d to %d", bits, minRSABits, maxRSABits)
		}
		return Key{material: key, algorithms: rsaAlgorithms}, nil
	case *ecdsa.PublicKey:
		switch key.Curve {
		case elliptic.P256():
			return Key{material: key, algorithms: p256Algorithms}, nil
		case elliptic.P384():
			return Key{material: key, algorithms: p384Algorithms}, nil
		case elliptic.P521():
			return Key{material: key, algorithms: p521Algorithms}, nil
		}
		return Key{}, fmt.Errorf("the curve %s is not supported, expected P-256, P-384 or P-521", key.Params().Name)
	case ed25519.PublicKey:
		return Key{material: key, algorithms: eddsaAlgorithms}, nil
	}
	return Key{}, fmt.Errorf("a key of type %T is not supported, expected RSA, EC or Ed25519", material)
}
