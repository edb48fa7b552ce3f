package guard

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/sse-guard/sse-guard/caddymodule/reason"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
	"github.com/sse-guard/sse-guard/caddymodule/tombstone"
)

type tombstonesKey struct{}

// takeTombstones removes everything that looks like a tombstone from r, valid
// or not, so that no upstream ever sees one, and keeps it in the context: a
// guard further inside may be the one it is for. In the query, any name will do:
// clients call the last event id differently.
func takeTombstones(r *http.Request, original *url.URL) *http.Request {
	found := takeFromHeader(r.Header)
	found = append(found, takeFromQuery(r, original, tombstoneIn)...)
	if len(found) == 0 {
		return r
	}
	found = append(found, tombstones(r)...)
	return r.WithContext(context.WithValue(r.Context(), tombstonesKey{}, found))
}

// takeFromHeader removes tombstones from the Last-Event-ID fields.
func takeFromHeader(h http.Header) (found []string) {
	ids := h["Last-Event-Id"]
	if len(ids) == 0 {
		return nil
	}
	kept := ids[:0:0]
	for _, id := range ids {
		if tombstone.Has(id) {
			found = append(found, id)
		} else {
			kept = append(kept, id)
		}
	}
	if len(kept) == 0 {
		delete(h, "Last-Event-Id")
	} else {
		h["Last-Event-Id"] = kept
	}
	return found
}

// tombstoneIn returns the tombstone that the value of a query's pair is, empty if it
// is none.
func tombstoneIn(pair string) string {
	_, value, _ := strings.Cut(pair, "=")
	if len(value) < len(tombstone.Prefix) || value[0] != tombstone.Prefix[0] && value[0] != '%' {
		return ""
	}
	id, err := url.QueryUnescape(value)
	if err != nil || !tombstone.Has(id) {
		return ""
	}
	return id
}

func tombstones(r *http.Request) []string {
	ids, _ := r.Context().Value(tombstonesKey{}).([]string)
	return ids
}

// shownTombstone is a tombstone that the client shows.
type shownTombstone struct {
	reason reason.Reason
	made   time.Time
}

// shown looks for the latest good tombstone of that kind that was made for the
// sender's key, or token; nil: there is none.
func (s *sender) shown(kind tombstone.Kind) (latest *shownTombstone) {
	ids := tombstones(s.r)
	if len(ids) == 0 {
		return nil
	}
	signer, err := s.guard.Signer(s.r.Context())
	if err != nil {
		s.guard.Logger.Error("tombstones cannot be verified: an ended client that comes back is treated as new",
			s.guard.zoneField(), zap.Error(err))
		return nil
	}
	for _, id := range ids {
		t, err := signer.Verify(id, time.Now())
		switch {
		case err != nil:
			s.guard.Logger.Debug("tombstone not accepted", s.guard.zoneField(), zap.Error(err))
		case s.bound(t, kind) && (latest == nil || t.Time.After(latest.made)):
			latest = &shownTombstone{reason.Reason(t.Reason), t.Time}
		}
	}
	return latest
}

// bound reports whether t is of that kind, and for the sender.
func (s *sender) bound(t tombstone.Tombstone, kind tombstone.Kind) bool {
	subject := s.holder.Key
	if kind == tombstone.Token {
		subject = s.holder.Token
	}
	return !subject.IsZero() && t.Binds(kind, s.guard.Zone.Name, subject)
}

// entomb signs the id that an ended stream carries away; empty where the
// client may come back. A tab that replaces its own stream keeps nobody away: a
// browser may freeze a page with its stream, and restore it when the user goes back.
func (s *sender) entomb(r reason.Reason) string {
	if r == reason.Replaced && s.holder.Tab {
		return ""
	}
	var kind tombstone.Kind
	var subject registry.ID
	switch r.Meaning().Tombstone {
	case reason.Key:
		kind, subject = tombstone.Key, s.holder.Key
	case reason.Token:
		kind, subject = tombstone.Token, s.holder.Token
	case reason.Nobody:
		return ""
	}
	if subject.IsZero() {
		return "" // nobody is bound by it, as by that of a token where there is none
	}
	signer, err := s.guard.Signer(context.WithoutCancel(s.r.Context()))
	if err == nil {
		var id string
		if id, err = signer.Sign(kind, s.guard.Zone.Name, subject, string(r), time.Now()); err == nil {
			return id
		}
	}
	s.guard.Logger.Error("no tombstone for an ended stream: its client will come back by itself",
		s.guard.zoneField(), zap.Error(err))
	return ""
}
