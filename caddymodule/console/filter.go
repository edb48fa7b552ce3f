package console

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// Filter names streams: those that match all of what is given.
type Filter struct {
	ID        string            `json:"id,omitempty"`
	Zone      string            `json:"zone,omitempty"`
	State     string            `json:"state,omitempty"`
	Key       string            `json:"key,omitempty"`
	Token     string            `json:"token,omitempty"`
	Client    string            `json:"client,omitempty"`
	Subject   string            `json:"subject,omitempty"`
	Labels    map[string]string `json:"labels,omitempty"`
	OlderThan string            `json:"older_than,omitempty"`

	// The following are what an operator has who knows no hash. They are no part of a
	// query, which servers log.
	RawToken  string            `json:"raw_token,omitempty"`
	RawClient string            `json:"raw_client,omitempty"`
	KeyParts  []json.RawMessage `json:"key_parts,omitempty"`
}

// States are those that a stream can have.
var States = []string{"live", "parked", "untracked", "ending"}

// SetLabels reads labels as name=value.
func (f *Filter) SetLabels(labels []string) error {
	for _, label := range labels {
		name, value, ok := strings.Cut(label, "=")
		if !ok || name == "" || value == "" { // an empty one would mean the streams without it
			return fmt.Errorf("label %q: write it as name=value, with neither empty", label)
		}
		if f.Labels == nil {
			f.Labels = make(map[string]string)
		}
		if _, twice := f.Labels[name]; twice {
			return fmt.Errorf("label %q is given twice", name)
		}
		f.Labels[name] = value
	}
	return nil
}

// SetKeyParts reads parts of a key: text, or JSON objects as the API describes them.
func (f *Filter) SetKeyParts(parts []string) error {
	for i, part := range parts {
		text := []byte(part)
		if !strings.HasPrefix(part, "{") {
			var err error
			if text, err = json.Marshal(part); err != nil {
				return err
			}
		} else if !json.Valid(text) {
			return fmt.Errorf("key part %d begins with { but is not a JSON object", i+1)
		}
		f.KeyParts = append(f.KeyParts, text)
	}
	return nil
}

// query is the filter as GET takes it.
func (f *Filter) query() url.Values {
	q := make(url.Values)
	for name, value := range map[string]string{
		"id": f.ID, "zone": f.Zone, "state": f.State, "key": f.Key, "token": f.Token,
		"client": f.Client, "subject": f.Subject, "older_than": f.OlderThan,
	} {
		if value != "" {
			q.Set(name, value)
		}
	}
	for name, value := range f.Labels {
		q.Set("label."+name, value)
	}
	return q
}

// isZero reports whether nothing is given.
func (f *Filter) isZero() bool {
	return len(f.query()) == 0 && f.RawToken == "" && f.RawClient == "" && len(f.KeyParts) == 0
}

// errNobody and errBoth are about a filter that is to name whom something is done to.
var (
	errNobody = errors.New("name streams with --key, --subject, --raw-token or another of the flags, or all of them with --all")
	errBoth   = errors.New("--all stands alone: leave it out, or the other flags that name streams")
)

// selected is what the bodies of POST have in common.
type selected struct {
	Select Filter `json:"select"`
	All    bool   `json:"all,omitempty"`
}

func (s *selected) check() error {
	switch {
	case s.Select.isZero() && !s.All:
		return errNobody
	case !s.Select.isZero() && s.All:
		return errBoth
	default:
		return nil
	}
}
