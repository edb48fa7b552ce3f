package verify

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/MicahParks/jwkset"
)

// publishedSet is a JWK set as it was published. It is immutable.
type publishedSet struct {
	keySet
	// generation counts the different sets that came from one place.
	generation uint64
	// text is the SHA-256 of what was published.
	text [sha256.Size]byte
}

// parseSet returns the keys in the text of a JWK set (RFC 7517 section 5) that
// verify signatures, and why the other ones do not: a set may hold keys for
// other purposes, and of kinds that are not known here. A set without a single
// usable key is an error.
func parseSet(text []byte) (keys []Key, unused []error, err error) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(text, &set); err != nil {
		return nil, nil, fmt.Errorf("the answer is no JWK set: %w", err)
	}
	if len(set.Keys) == 0 {
		return nil, nil, errors.New("the answer is a JWK set without keys")
	}
	for i, text := range set.Keys {
		key, err := parseKey(text)
		if err != nil {
			unused = append(unused, fmt.Errorf("key %d: %w", i+1, err))
			continue
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return nil, nil, fmt.Errorf("the answer is a JWK set without a usable key: %w", errors.Join(unused...))
	}
	return keys, unused, nil
}

func parseKey(text []byte) (Key, error) {
	var marshal jwkset.JWKMarshal
	if err := json.Unmarshal(text, &marshal); err != nil {
		return Key{}, err
	}
	switch {
	case marshal.KTY == jwkset.KtyOct:
		return Key{}, errors.New("it is a secret, which is none once it is published")
	case marshal.USE != "" && marshal.USE != jwkset.UseSig:
		return Key{}, fmt.Errorf("its use is %q", marshal.USE)
	case len(marshal.KEYOPS) > 0 && !slices.Contains(marshal.KEYOPS, jwkset.KeyOpsVerify):
		return Key{}, errors.New(`its key_ops do not include "verify"`)
	}
	// The key counts, not the certificates about it: one that Go cannot read would
	// otherwise spoil the key.
	marshal.X5C, marshal.X5T, marshal.X5TS256, marshal.X5U = nil, "", "", ""
	jwk, err := jwkset.NewJWKFromMarshal(marshal, jwkset.JWKMarshalOptions{}, jwkset.JWKValidateOptions{SkipKeyOps: true})
	if err != nil {
		return Key{}, err
	}
	key, err := publicKey(jwk.Key())
	if err != nil {
		return Key{}, err
	}
	key.kid = marshal.KID
	if alg := marshal.ALG.String(); alg != "" {
		if !key.fits(alg) {
			return Key{}, fmt.Errorf("its alg is %q, which is not one for such a key", alg)
		}
		key.algorithms = []string{alg}
	}
	return key, nil
}
