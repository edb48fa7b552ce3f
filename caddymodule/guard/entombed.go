package guard

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"time"

	"go.uber.org/zap"

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
	if u.RawQuery == "" {
		return nil
	}
	var kept []string
	for pair := range strings.SplitSeq(u.RawQuery, "&") {
		name, value, _ := strings.Cut(pair, "=")
		name, err := url.QueryUnescape(name)
		if err == nil && name == lastEventIDParam {
			if id, err := url.QueryUnescape(value); err == nil && tombstone.Has(id) {
				found = append(found, id)
				continue
			}
		}
		kept = append(kept, pair)
	}
	if len(found) > 0 {
		u.RawQuery = strings.Join(kept, "&")
	}
	return found
}

func tombstones(r *http.Request) []string {
	ids, _ := r.Context().Value(tombstonesKey{}).([]string)
	return ids
}

// entombed reports whether the client presents a tombstone of this very token,
// or, where the key is known, of this very key.
func (v *visit) entombed() bool {
	ids := tombstones(v.r)
	if len(ids) == 0 {
		return false
	}
	signer, err := v.guard.Signer(v.r.Context())
	if err != nil {
		v.guard.Logger.Error("tombstones cannot be verified: an ended client that comes back is treated as new", v.zone(), zap.Error(err))
		return false
	}
	for _, id := range ids {
		t, err := signer.Verify(id, time.Now())
		if err != nil {
			v.guard.Logger.Debug("tombstone not accepted", v.zone(), zap.Error(err))
			continue
		}
		if v.bound(t) {
			v.guard.Logger.Debug("ended client came back", v.zone(), v.key(), zap.String("reason", t.Reason))
			if v.keyed() {
				v.guard.Zone.fights.Rests(v.stream.Key, v.party(), t.Time)
			}
			return true
		}
	}
	return false
}

func (v *visit) bound(t tombstone.Tombstone) bool {
	zone := v.guard.Zone.Name
	return v.keyed() && t.Binds(tombstone.Key, zone, v.stream.Key) ||
		!v.token.IsZero() && t.Binds(tombstone.Token, zone, v.stream.Token)
}

// entomb signs the id that an ended stream carries away; empty where the
// client may come back.
func (v *visit) entomb(reason registry.Reason) string {
	kind, subject := tombstone.Key, v.stream.Key
	switch reason {
	case registry.Superseded, registry.Replaced:
	case registry.Logout:
		kind, subject = tombstone.Token, v.stream.Token
	default:
		return ""
	}
	signer, err := v.guard.Signer(context.WithoutCancel(v.r.Context()))
	if err == nil {
		var id string
		if id, err = signer.Sign(kind, v.guard.Zone.Name, subject, string(reason), time.Now()); err == nil {
			return id
		}
	}
	v.guard.Logger.Error("no tombstone for an ended stream: its client will come back by itself", v.zone(), zap.Error(err))
	return ""
}
