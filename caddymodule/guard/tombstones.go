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

// lastEventIDParam is where polyfills put the id, which cannot set headers.
const lastEventIDParam = "lastEventId"

type tombstonesKey struct{}

// takeTombstones removes everything that looks like a tombstone from r, valid
// or not, so that no upstream ever sees one, and keeps it in the context: a
// guard further inside may be the one it is for.
func takeTombstones(r *http.Request) *http.Request {
	var found []string
	if ids := r.Header["Last-Event-Id"]; len(ids) > 0 {
		kept := ids[:0:0]
		for _, id := range ids {
			if tombstone.Has(id) {
				found = append(found, id)
			} else {
				kept = append(kept, id)
			}
		}
		if len(kept) == 0 {
			delete(r.Header, "Last-Event-Id")
		} else {
			r.Header["Last-Event-Id"] = kept
		}
	}
	found = append(found, takeFromQuery(r.URL)...)
	if len(found) == 0 {
		return r
	}
	found = append(found, tombstones(r)...)
	return r.WithContext(context.WithValue(r.Context(), tombstonesKey{}, found))
}

// takeFromQuery removes tombstones from u's query and leaves the rest of it as
// it was spelled.
func takeFromQuery(u *url.URL) (found []string) {
	for pair := range strings.SplitSeq(u.RawQuery, "&") {
		if id := tombstoneIn(pair); id != "" {
			found = append(found, id)
		}
	}
	if len(found) == 0 {
		return nil
	}
	var kept []string
	for pair := range strings.SplitSeq(u.RawQuery, "&") {
		if tombstoneIn(pair) == "" {
			kept = append(kept, pair)
		}
	}
	u.RawQuery = strings.Join(kept, "&")
	return found
}

// tombstoneIn returns the tombstone that a query's pair is, empty if it is none.
func tombstoneIn(pair string) string {
	name, value, _ := strings.Cut(pair, "=")
	if name, err := url.QueryUnescape(name); err != nil || name != lastEventIDParam {
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

// tombstone looks for a tombstone that keeps the client away.
func (s *sender) tombstone() (t shownTombstone, shown bool) {
	ids := tombstones(s.r)
	if len(ids) == 0 {
		return t, false
	}
	signer, err := s.guard.Signer(s.r.Context())
	if err != nil {
		s.guard.Logger.Error("tombstones cannot be verified: an ended client that comes back is treated as new",
			s.guard.zoneField(), zap.Error(err))
		return t, false
	}
	for _, id := range ids {
		t, err := signer.Verify(id, time.Now())
		if err != nil {
			s.guard.Logger.Debug("tombstone not accepted", s.guard.zoneField(), zap.Error(err))
			continue
		}
		if s.bound(t) {
			return shownTombstone{reason.Reason(t.Reason), t.Time}, true
		}
	}
	return t, false
}

func (s *sender) bound(t tombstone.Tombstone) bool {
	zone := s.guard.Zone.Name
	return s.keyed() && t.Binds(tombstone.Key, zone, s.holder.Key) ||
		!s.holder.Token.IsZero() && t.Binds(tombstone.Token, zone, s.holder.Token)
}

// entomb signs the id that an ended stream carries away; empty where the
// client may come back.
func (s *sender) entomb(r reason.Reason) string {
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
