package identity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	_ "crypto/sha256"
	_ "crypto/sha512"
	"encoding/asn1"
	"encoding/base64"
	"fmt"
	"math/big"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// signingText is a header of that algorithm, and a payload.
func signingText(algorithm string) string {
	return base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, `{"typ":"JWT","alg":%q}`, algorithm)) + "." + jwtPayload
}

func withSignature(text string, signature []byte) string {
	return text + "." + base64.RawURLEncoding.EncodeToString(signature)
}

// ecdsaAlgorithms are those of curves that the standard library has.
var ecdsaAlgorithms = map[string]struct {
	curve elliptic.Curve
	hash  crypto.Hash
}{
	"ES256": {elliptic.P256(), crypto.SHA256},
	"ES384": {elliptic.P384(), crypto.SHA384},
	"ES512": {elliptic.P521(), crypto.SHA512},
}

// numbers are an ECDSA signature, as ASN.1 has it.
type numbers struct{ R, S *big.Int }

func (p numbers) raw(size int) []byte {
	b := make([]byte, 2*size)
	p.R.FillBytes(b[:size])
	p.S.FillBytes(b[size:])
	return b
}

func (p numbers) der(t require.TestingT) []byte {
	b, err := asn1.Marshal(p)
	require.NoError(t, err)
	return b
}

func TestTokenHash_ECDSATwinsAreOneToken(t *testing.T) {
	for name, a := range ecdsaAlgorithms {
		t.Run(name, func(t *testing.T) {
			n := a.curve.Params().N
			require.Zero(t, n.Cmp(ecdsaOrders[name]))
			size := (n.BitLen() + 7) / 8
			key, err := ecdsa.GenerateKey(a.curve, rand.Reader)
			require.NoError(t, err)
			text := signingText(name)
			h := a.hash.New()
			h.Write([]byte(text))
			digest := h.Sum(nil)
			seen := make(map[Hash]bool)
			for range 20 {
				r, s, err := ecdsa.Sign(rand.Reader, key, digest)
				require.NoError(t, err)
				one, twin := numbers{r, s}, numbers{r, new(big.Int).Sub(n, s)}
				require.True(t, ecdsa.Verify(&key.PublicKey, digest, twin.R, twin.S), "it is a signature")
				want := mustHash(t, withSignature(text, one.raw(size)))
				for _, signature := range [][]byte{twin.raw(size), one.der(t), twin.der(t)} {
					require.Equal(t, want, mustHash(t, withSignature(text, signature)))
				}
				require.False(t, seen[want], "another signature is another token")
				seen[want] = true
			}
		})
	}
}

// Where r ends, libraries disagree, unless the length says it.
func TestTokenHash_ECDSASignatureOfAnotherWidthIsReported(t *testing.T) {
	for name, order := range ecdsaOrders {
		size := (order.BitLen() + 7) / 8
		one := numbers{big.NewInt(7), big.NewInt(9)}
		raw, der := one.raw(size), one.der(t)
		halves := append(append([]byte{0}, raw[:size]...), append([]byte{0}, raw[size:]...)...)
		for what, signature := range map[string][]byte{
			"wider halves":       halves,
			"zeros between":      slices.Concat(raw[:size], []byte{0, 0}, raw[size:]),
			"a byte behind":      append(slices.Clone(raw), 0),
			"a byte before":      append([]byte{0}, raw...),
			"no leading zeros":   {7, 9},
			"a byte behind DER":  append(slices.Clone(der), 0),
			"DER with zeros":     {0x30, 8, 2, 2, 0, 7, 2, 2, 0, 9},
			"DER of long length": {0x30, 0x81, 6, 2, 1, 7, 2, 1, 9},
		} {
			t.Run(name+"/"+what, func(t *testing.T) {
				_, agreed := hashToken(withSignature(signingText(name), signature))
				require.False(t, agreed)
			})
		}
	}
}

// Which nobody accepts, so that they need no twin.
func TestTokenHash_ECDSANumbersOutOfRangeAreAsTheyAre(t *testing.T) {
	for name, order := range ecdsaOrders {
		size := (order.BitLen() + 7) / 8
		seen := make(map[Hash]string)
		for what, p := range map[string]numbers{
			"s is 1":         {big.NewInt(7), big.NewInt(1)},
			"s is 0":         {big.NewInt(7), big.NewInt(0)},
			"s is n":         {big.NewInt(7), order},
			"s is n+1":       {big.NewInt(7), new(big.Int).Add(order, big.NewInt(1))},
			"r is 0":         {big.NewInt(0), big.NewInt(9)},
			"r is n":         {order, big.NewInt(9)},
			"r is another's": {big.NewInt(8), big.NewInt(1)},
		} {
			h := mustHash(t, withSignature(signingText(name), p.raw(size)))
			require.Empty(t, seen[h], "%s %s", name, what)
			seen[h] = what
		}
	}
}

func TestTokenHash_EdDSATwinsAreOneToken(t *testing.T) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	for _, name := range []string{"EdDSA", "Ed25519"} {
		text := signingText(name)
		signature := ed25519.Sign(key, []byte(text))
		want := mustHash(t, withSignature(text, signature))
		for k := int64(1); k < 16; k++ {
			twin := slices.Clone(signature)
			addTo(twin[32:], new(big.Int).Mul(eddsaOrders[64], big.NewInt(k)))
			require.Equal(t, want, mustHash(t, withSignature(text, twin)), k)
		}
		other := slices.Clone(signature)
		addTo(other[32:], big.NewInt(1))
		require.NotEqual(t, want, mustHash(t, withSignature(text, other)))
		other = slices.Clone(signature)
		other[0] ^= 1
		require.NotEqual(t, want, mustHash(t, withSignature(text, other)))
		_, agreed := hashToken(withSignature(text, append(signature, 0)))
		require.False(t, agreed)
	}
	long := make([]byte, 114)
	want := mustHash(t, withSignature(signingText("EdDSA"), long))
	addTo(long[57:], eddsaOrders[114])
	require.Equal(t, want, mustHash(t, withSignature(signingText("EdDSA"), long)))
}

// addTo adds n to a little-endian number.
func addTo(number []byte, n *big.Int) {
	slices.Reverse(number)
	new(big.Int).Add(new(big.Int).SetBytes(number), n).FillBytes(number)
	slices.Reverse(number)
}

// Also where the issuer spells its header in an unusual way.
func TestTokenHash_TheAlgorithmIsTheHeaders(t *testing.T) {
	order := ecdsaOrders["ES256"]
	s := big.NewInt(9)
	raw, twin := numbers{big.NewInt(7), s}.raw(32), numbers{big.NewInt(7), new(big.Int).Sub(order, s)}.raw(32)
	for header, twins := range map[string]bool{
		`{"alg":"ES256"}`:                   true,
		`{"\u0061lg":"\u0045\u0053256"}`:    true,
		` { "kid" : "RS", "alg" : "ES256"}`: true,
		`{"alg":"HS256","kid":"ES256"}`:     false,
		`{"alg":["ES256"]}`:                 false,
		`{"alg":"ES1"}`:                     false,
	} {
		text := base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + jwtPayload
		require.Equal(t, twins, mustHash(t, withSignature(text, raw)) == mustHash(t, withSignature(text, twin)), header)
	}
}

func TestTokenHash_LeadingZerosOfARSASignatureDoNotCount(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		signature := rapid.SliceOfN(rapid.Byte(), 1, 512).Draw(t, "signature")
		zeros := make([]byte, rapid.IntRange(1, 9).Draw(t, "zeros"))
		text := signingText(rapid.SampledFrom([]string{"RS256", "PS512"}).Draw(t, "algorithm"))
		require.Equal(t, mustHash(t, withSignature(text, signature)), mustHash(t, withSignature(text, slices.Concat(zeros, signature))))
	})
}

// Whatever the numbers are, twins are one token, and nothing else is.
func TestTokenHash_OneTokenPerPairOfTwins(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.SampledFrom([]string{"ES256", "ES256K", "ES384", "ES512"}).Draw(t, "algorithm")
		n := ecdsaOrders[name]
		size := (n.BitLen() + 7) / 8
		number := func(label string) *big.Int {
			b := rapid.SliceOfN(rapid.Byte(), 1, size).Draw(t, label)
			i := new(big.Int).Mod(new(big.Int).SetBytes(b), new(big.Int).Sub(n, big.NewInt(1)))
			return i.Add(i, big.NewInt(1))
		}
		one, other := numbers{number("r"), number("s")}, numbers{number("r"), number("s")}
		twin := numbers{one.R, new(big.Int).Sub(n, one.S)}
		text := signingText(name)
		want := mustHash(t, withSignature(text, one.raw(size)))
		require.Equal(t, want, mustHash(t, withSignature(text, twin.raw(size))))
		if der := twin.der(t); len(der) == 2*size {
			_, agreed := hashToken(withSignature(text, der))
			require.False(t, agreed, "it may be r and s as well")
		} else {
			require.Equal(t, want, mustHash(t, withSignature(text, der)))
		}
		same := one.R.Cmp(other.R) == 0 && (one.S.Cmp(other.S) == 0 || twin.S.Cmp(other.S) == 0)
		require.Equal(t, same, want == mustHash(t, withSignature(text, other.raw(size))))
	})
}
