package verify

// keySet is an immutable set of keys. A nil one has none.
type keySet struct {
	all   []Key
	byKID map[string][]Key
}

func newKeySet(keys []Key) *keySet {
	s := &keySet{all: keys, byKID: make(map[string][]Key)}
	for _, key := range keys {
		s.byKID[key.kid] = append(s.byKID[key.kid], key)
	}
	return s
}

// named returns the keys that a token with this kid may be signed with: all of
// them if it names none.
func (s *keySet) named(kid string) []Key {
	switch {
	case s == nil:
		return nil
	case kid == "":
		return s.all
	}
	return s.byKID[kid]
}

// knows reports whether a token with this kid must be signed with a key of s.
func (s *keySet) knows(kid string) bool { return kid != "" && len(s.named(kid)) > 0 }

// anonymous returns the keys without a kid.
func (s *keySet) anonymous() []Key { return s.byKID[""] }
