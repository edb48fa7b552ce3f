package identity

import (
	"bytes"
	"encoding/asn1"
	"encoding/json"
	"math/big"
	"slices"
)

// Of some signatures anybody who has one can make others that are as good, without
// the key. These are the ones that decoders of common JWT libraries accept:
//
//   - ECDSA: with (r, s), (r, n-s) is a signature of the same text. jjwt also takes
//     the two as ASN.1 DER, as some issuers write them. Of any other length than that
//     of r and s together, libraries disagree about where r ends: jose4j and PHP's
//     take the half, Ruby's the size of the curve.
//   - EdDSA: RFC 8032 section 5.1.7 forbids an S of the group's order or more, which
//     TweetNaCl does not look at.
//   - RSA: JavaScript libraries with arithmetic of their own accept leading zeros.

// ecdsaOrders are the orders of the curves' groups, by the algorithm, and so the
// bounds of r and s.
var ecdsaOrders = map[string]*big.Int{
	"ES256":  number("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551"),
	"ES256K": number("fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141"),
	"ES384": number("ffffffffffffffffffffffffffffffffffffffffffffffff" +
		"c7634d81f4372ddf581a0db248b0a77aecec196accc52973"),
	"ES512": number("01fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff" +
		"a51868783bf2f966b7fcc0148f709a5d03bb5c9b8899c47aebb6fb71e91386409"),
}

// eddsaOrders are those of EdDSA, by the length of a signature.
var eddsaOrders = map[int]*big.Int{
	64: number("1000000000000000000000000000000014def9dea2f79cd65812631a5cf5d3ed"),
	114: number("3fffffffffffffffffffffffffffffffffffffffffffffffffffffff" +
		"7cca23e9c44edb49aed63690216cc2728dc58f552378c292ab5844f3"),
}

func number(hex string) *big.Int {
	n, ok := new(big.Int).SetString(hex, 16)
	if !ok {
		panic("no number: " + hex)
	}
	return n
}

// oneSignature returns one of all the signatures that can be made of this one, which
// it may change. agreed is false where libraries disagree about what it says. header
// is that of the token, decoded.
func oneSignature(header, signature []byte) (one []byte, agreed bool) {
	algorithm := algorithmOf(header)
	if order := ecdsaOrders[algorithm]; order != nil {
		return oneECDSA(order, signature)
	}
	switch algorithm {
	case "EdDSA", "Ed25519", "Ed448": // RFC 8037, RFC 9864
		return oneEdDSA(signature)
	}
	return bytes.TrimLeft(signature, "\x00"), true
}

// algorithmOf returns the alg of a header, if it is one whose signatures are numbers
// that need a look: most headers are not parsed for it. Nobody but the issuer can
// write a header differently.
func algorithmOf(header []byte) string {
	if !bytes.Contains(header, []byte("ES")) && !bytes.Contains(header, []byte("Ed")) && !bytes.Contains(header, []byte(`\`)) {
		return ""
	}
	var named struct {
		Algorithm string `json:"alg"`
	}
	if json.Unmarshal(bytes.Clone(header), &named) != nil { // a copy, as the stack may have the header
		return "" // it is no text
	}
	return named.Algorithm
}

// oneECDSA spells (r, s) as RFC 7518 section 3.4 does, with the smaller of s and n-s.
// What may be read as that and as DER is neither.
func oneECDSA(n *big.Int, signature []byte) (one []byte, agreed bool) {
	if len(signature) == 0 {
		return signature, true
	}
	size := (n.BitLen() + 7) / 8
	var of struct{ R, S *big.Int }
	rest, err := asn1.Unmarshal(bytes.Clone(signature), &of)
	isDER, isRaw := err == nil && len(rest) == 0, len(signature) == 2*size
	if isDER == isRaw {
		return signature, false
	}
	if isRaw {
		of.R, of.S = new(big.Int).SetBytes(signature[:size]), new(big.Int).SetBytes(signature[size:])
	}
	if of.R.Sign() <= 0 || of.R.Cmp(n) >= 0 || of.S.Sign() <= 0 || of.S.Cmp(n) >= 0 {
		return signature, true // nobody accepts it
	}
	if twin := new(big.Int).Sub(n, of.S); twin.Cmp(of.S) < 0 {
		of.S = twin
	}
	one = make([]byte, 2*size)
	of.R.FillBytes(one[:size])
	of.S.FillBytes(one[size:])
	return one, true
}

// oneEdDSA reduces S, the little-endian second half.
func oneEdDSA(signature []byte) (one []byte, agreed bool) {
	order := eddsaOrders[len(signature)]
	if order == nil {
		return signature, false
	}
	half := signature[len(signature)/2:]
	slices.Reverse(half)
	new(big.Int).Mod(new(big.Int).SetBytes(half), order).FillBytes(half)
	slices.Reverse(half)
	return signature, true
}
