package steer

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/identity"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// Select names streams: those that match all of what is given. No text that is given is
// empty.
type Select struct {
	// ID is that of one stream, 32 hex digits.
	ID string `json:"id"`
	// Zone is the name of a zone.
	Zone string `json:"zone"`
	// State is live, parked, untracked or ending.
	State string `json:"state"`
	// Key, Token and Client are hashes, as log lines and lists show them: 16 hex digits or
	// more.
	Key    string `json:"key"`
	Token  string `json:"token"`
	Client string `json:"client"`
	// Subject is the name of a verified user.
	Subject string `json:"subject"`
	// Labels have these values.
	Labels map[string]string `json:"labels"`
	// OlderThan is a duration such as 10m.
	OlderThan string `json:"older_than"`

	// RawToken is the token that a stream was opened with, as its client sends it.
	RawToken string `json:"raw_token"`
	// RawClient is a client id as its client sends it. Clients choose their ids, so
	// others may have the same: give RawToken or Subject, too, to name one.
	RawClient string `json:"raw_client"`
	// KeyParts are the parts of the option key as they are once placeholders are
	// replaced.
	KeyParts []KeyPart `json:"key_parts"`
}

// UnmarshalJSON implements json.Unmarshaler. It refuses a text that is empty: with that
// one left out, the others would name many more streams than whoever filled it in meant.
func (s *Select) UnmarshalJSON(b []byte) error {
	type plain Select
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode((*plain)(s)); err != nil {
		return err // decode tells it
	}
	var given map[string]json.RawMessage
	if err := json.Unmarshal(b, &given); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(given)) {
		if string(given[name]) == `""` {
			return emptyFilter("select." + name)
		}
	}
	return nil
}

// emptyFilter is the answer to a filter that is given and names nothing.
func emptyFilter(name string) *problem {
	return badInput("%.60s: it is empty; leave it out, or name whom you mean", name)
}

// KeyPart is one part of a key: text, or one of two objects. `{"sub": "alice", "iss":
// "https://issuer.example"}` stands for {sse_guard.claims.sub} of a token that tells its
// issuer, and `{"raw_token": "…"}` for {sse_guard.token}.
type KeyPart struct{ text string }

// UnmarshalJSON implements json.Unmarshaler. Its errors hold nothing of what is given.
func (p *KeyPart) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '"' {
		return json.Unmarshal(b, &p.text)
	}
	var o struct {
		Sub      string `json:"sub"`
		Iss      string `json:"iss"`
		RawToken string `json:"raw_token"`
	}
	if err := decode(strings.NewReader(string(b)), &o); err != nil || (o.Sub == "") == (o.RawToken == "") || o.RawToken != "" && o.Iss != "" {
		return badKeyPart()
	}
	switch {
	case o.RawToken != "":
		hash, err := identity.HashOfToken(o.RawToken)
		if err != nil {
			return badInput("key_parts: raw_token: %s", err)
		}
		p.text = identity.HashPart(hash)
	case o.Iss == "":
		p.text = o.Sub
	default:
		p.text = identity.SubjectPart(identity.HashOfSubject(o.Iss, o.Sub))
	}
	return nil
}

func badKeyPart() *problem {
	return badInput(`key_parts: there is one at least, and each is a text that is not empty, {"sub": …, "iss": …} or {"raw_token": …}`)
}

// selection is what a Select means.
type selection struct {
	zone   string
	filter registry.Filter
	// token is the hash of the raw token; zero: none was given.
	token registry.ID
	// client is the raw client id; empty: none was given. It is compared here: it leaves
	// this process as little as it is logged.
	client string
}

// isZero reports whether it names no stream.
func (s *selection) isZero() bool {
	return s.zone == "" && s.client == "" && s.filter.IsZero()
}

// everything has s name all streams that it does not leave out.
func (s *selection) everything() { s.filter.All = true }

// longest is how many bytes a name has at most.
const longest = 1024

const (
	leastHash = 16
	mostHash  = 64
	// oldest is the longest time that older_than takes.
	oldest = 100 * 365 * 24 * time.Hour
)

// selection checks what is given, and makes hashes of it.
func (s *Select) selection(now time.Time) (sel selection, err error) {
	f := &sel.filter
	for name, text := range map[string]string{"zone": s.Zone, "subject": s.Subject, "raw_client": s.RawClient} {
		if len(text) > longest {
			return sel, badInput("%s: it has %d bytes; at most %d are allowed", name, len(text), longest)
		}
	}
	sel.zone, sel.client, f.Sub = s.Zone, s.RawClient, s.Subject
	if s.ID != "" {
		var ok bool
		if f.ID, ok = registry.ParseStreamID(s.ID); !ok || f.ID.IsZero() {
			return sel, badInput("id: it is 32 hex digits, as lists show it")
		}
	}
	if s.State != "" && !slices.Contains(registry.States, registry.State(s.State)) {
		return sel, badInput("state: it is one of live, parked, untracked and ending")
	}
	f.State = registry.State(s.State)
	for _, h := range []struct {
		name, text string
		to         *[]byte
	}{
		{"key", s.Key, &f.KeyPrefix}, {"token", s.Token, &f.TokenPrefix}, {"client", s.Client, &f.ClientPrefix},
	} {
		if *h.to, err = hashPrefix(h.name, h.text); err != nil {
			return sel, err
		}
	}
	if err := s.labels(f); err != nil {
		return sel, err
	}
	if s.OlderThan != "" {
		age, err := duration("older_than", s.OlderThan, time.Nanosecond, oldest)
		if err != nil {
			return sel, err
		}
		f.Before = now.Add(-age)
	}
	err = s.raw(&sel)
	return sel, err
}

func (s *Select) labels(f *registry.Filter) error {
	if len(s.Labels) > registry.MostLabels {
		return badInput("labels: %d are given; a stream has at most %d", len(s.Labels), registry.MostLabels)
	}
	for name, value := range s.Labels {
		if name == "" || len(name) > longest || len(value) > longest {
			return badInput("labels: names and values have at most %d bytes, and names are not empty", longest)
		}
		if value == "" { // streams without that label would be meant
			return badInput("labels: the value of %.40q is empty", name)
		}
		if f.Labels == nil {
			f.Labels = make(map[string]string)
		}
		f.Labels[name] = registry.LabelValue(value)
	}
	return nil
}

// raw hashes what is given as it is.
func (s *Select) raw(sel *selection) error {
	if s.RawToken != "" {
		hash, err := identity.HashOfToken(s.RawToken)
		if err != nil {
			return badInput("raw_token: %s", err)
		}
		sel.token = registry.ID(hash)
		sel.filter.Token = sel.token
	}
	if s.KeyParts == nil {
		return nil
	}
	parts := make([]string, len(s.KeyParts))
	for i, p := range s.KeyParts {
		parts[i] = p.text
	}
	key, ok := identity.Key(parts...)
	if !ok {
		return badKeyPart()
	}
	sel.filter.Key = registry.ID(key)
	return nil
}

// hashPrefix reads the beginning of a hash.
func hashPrefix(name, text string) ([]byte, error) {
	if text == "" {
		return nil, nil
	}
	prefix := make([]byte, hex.DecodedLen(len(text)))
	if len(text) < leastHash || len(text) > mostHash || len(text)%2 != 0 || !decodeHex(prefix, text) {
		return nil, badInput("%s: it is a hash as log lines and lists show it: %d to %d hex digits", name, leastHash, mostHash)
	}
	return prefix, nil
}

// decodeHex reads text, whose length fits dst.
func decodeHex(dst []byte, text string) bool {
	_, err := hex.Decode(dst, []byte(text))
	return err == nil
}

// duration reads a duration that is given as text.
func duration(name, text string, least, most time.Duration) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if err != nil || d < least || d > most {
		return 0, badInput("%s: %.40q is not allowed; it is a duration such as 10m, of %s to %s", name, text, least, most)
	}
	return d, nil
}

// names reports whether the raw client id, if one is given, is that of the row.
func (s *selection) names(row *registry.Row) bool {
	if s.client == "" {
		return true
	}
	id := identity.Hash(row.Holder.Client)
	return id.IsClient(s.client, identity.Hash(row.Holder.Subject)) || id.IsClient(s.client, identity.Hash(row.Holder.Token))
}
