package steer

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"go.uber.org/zap"

	"github.com/sse-guard/sse-guard/caddymodule/reason"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
	"github.com/sse-guard/sse-guard/caddymodule/zone"
)

// EndBody is the body of POST end.
type EndBody struct {
	Selected
	// Reason is why the streams end: revoked, which is the default, logout, expired or
	// max_age. It decides what clients are told, and whether they come back.
	Reason reason.Reason `json:"reason"`
	// Message is what a person reads in the event, in place of the usual sentence.
	Message string `json:"message"`
	// Deny is for how long the tokens of the streams that are ended, and their verified
	// users, are not welcome: a duration. With it, all other streams of these end too.
	// RawToken is denied although no stream has it. Left out: nobody is denied.
	Deny *string `json:"deny"`
	// Limit is how many streams are ended at most, without those that Deny ends besides;
	// left out: all.
	Limit *int `json:"limit"`
}

// Ended is the answer to POST end.
type Ended struct {
	// Ended is how many streams were told to end.
	Ended int `json:"ended"`
	// Warning is what went wrong; left out: nothing.
	Warning string `json:"warning,omitempty"`
}

const (
	longestMessage = 1024
	leastDeny      = time.Second
	mostDeny       = 30 * 24 * time.Hour
)

// ending is an EndBody that was checked.
type ending struct {
	selection
	registry.Ending
	deny  time.Duration
	limit int // 0: none
}

func readEnding(w http.ResponseWriter, r *http.Request, now time.Time) (e ending, err error) {
	if _, err := noQuery(r); err != nil {
		return e, err
	}
	var body EndBody
	if err := readBody(w, r, &body); err != nil {
		return e, err
	}
	return body.ending(addr(r), now)
}

func (b *EndBody) ending(by string, now time.Time) (e ending, err error) {
	if e.selection, err = b.selection(now); err != nil {
		return e, err
	}
	e.Ending = registry.Ending{Reason: b.Reason, By: by, Message: strings.TrimSpace(b.Message)}
	if e.Reason == "" {
		e.Reason = reason.Revoked
	}
	allowed := reason.ForOperator()
	switch {
	case !slices.Contains(allowed, e.Reason):
		return e, badInput("reason: %.40q is not allowed; it is one of %s", string(e.Reason), list(allowed))
	case e.Message != "" && !e.Reason.Meaning().Event():
		return e, badInput("message: clients are told nothing by the reason %s; leave it out", e.Reason)
	case len(e.Message) > longestMessage || !utf8.ValidString(e.Message):
		return e, badInput("message: it has at most %d bytes", longestMessage)
	case b.Limit != nil && (*b.Limit < 1 || *b.Limit > mostLimit):
		return e, badInput("limit: %d is not allowed; it is 1 to %d, or left out for all", *b.Limit, mostLimit)
	case b.Limit != nil:
		e.limit = *b.Limit
	}
	if b.Deny != nil {
		e.deny, err = duration("deny", *b.Deny, leastDeny, mostDeny)
	}
	return e, err
}

func list[T ~string](values []T) string {
	texts := make([]string, len(values))
	for i, v := range values {
		texts[i] = string(v)
	}
	return strings.Join(texts, ", ")
}

// end answers POST end.
func (a *API) end(w http.ResponseWriter, r *http.Request) error {
	e, err := readEnding(w, r, time.Now())
	if err != nil {
		return err
	}
	zones, err := a.zones(e.zone)
	if err != nil {
		return err
	}
	// What is begun is done, although the administrator leaves.
	done := endingRun{ctx: context.WithoutCancel(r.Context()), ending: &e, ended: make(map[registry.StreamID]bool)}
	var errs []error
	for _, z := range zones { // whatever the limit is
		errs = append(errs, done.denyToken(z))
	}
	for _, z := range zones {
		if done.full() {
			break
		}
		errs = append(errs, done.inZone(z))
	}
	err = errors.Join(errs...)
	n := len(done.ended)
	a.audit("streams ended by an administrator", r, &e.selection, zap.Int("streams", n), zap.String("reason", string(e.Reason)),
		zap.Int("denied", done.denied), zap.Duration("deny", e.deny), zap.Int("limit", e.limit), zap.Error(err))
	if err != nil {
		p := unreached(err)
		p.Ended = &n
		return p
	}
	answered := Ended{Ended: n}
	if done.forgotten {
		answered.Warning = "so many tokens and users are denied that others were forgotten before their time"
	}
	return answer(w, answered)
}

// endingRun is one POST end on its way.
type endingRun struct {
	*ending
	ctx context.Context
	// listed is how many streams the selection has named so far.
	listed int
	// ended has those that were told to end.
	ended map[registry.StreamID]bool
	// denied is how many tokens and users were, and forgotten says that there were too
	// many denials.
	denied    int
	forgotten bool
}

func (r *endingRun) full() bool { return r.limit > 0 && r.listed >= r.limit }

// denyToken denies the raw token, if there is one.
func (r *endingRun) denyToken(z *zone.Zone) error {
	if r.deny == 0 || r.token.IsZero() {
		return nil
	}
	return r.denyThem(z, []registry.Denial{{Token: r.token, Until: r.until()}})
}

func (r *endingRun) inZone(z *zone.Zone) error {
	var errs []error
	all, err := places(r.ctx, []*zone.Zone{z})
	errs = append(errs, err)
	for _, p := range all {
		if err := r.atPlace(p); err != nil {
			errs = append(errs, fmt.Errorf("zone %q: %w", z.Name, err))
		}
	}
	return errors.Join(errs...)
}

func (r *endingRun) until() time.Time { return time.Now().Add(r.deny) }

// atPlace ends the streams of one node, page by page. Those that come meanwhile are
// ended if they come in time: their clients may have come back.
func (r *endingRun) atPlace(p place) error {
	cursor := ""
	var errs []error
	for !r.full() {
		page, next, err := p.node.List(r.ctx, r.filter, cursor, mostLimit)
		if err != nil {
			return errors.Join(append(errs, err)...)
		}
		errs = append(errs, r.endPage(p, page))
		if next == "" {
			break
		}
		cursor = next
	}
	return errors.Join(errs...)
}

func (r *endingRun) endPage(p place, page []registry.Row) error {
	page = slices.DeleteFunc(page, func(row registry.Row) bool {
		return row.State == registry.StateEnding || !r.names(&row)
	})
	if r.limit > 0 {
		page = page[:min(len(page), r.limit-r.listed)]
	}
	r.listed += len(page)
	var errs []error
	if r.deny > 0 {
		// First, so that nobody comes back in between. Where that fails, the page's own
		// streams end all the same.
		errs = append(errs, r.denyThem(p.zone, r.denials(page)))
	}
	ids := make([]registry.StreamID, len(page))
	for i := range page {
		ids[i] = page[i].Holder.ID
	}
	if len(ids) > 0 {
		if err := p.node.EndAll(r.ctx, ids, r.Ending); err != nil {
			return errors.Join(append(errs, err)...)
		}
	}
	for _, id := range ids {
		r.ended[id] = true
	}
	return errors.Join(errs...)
}

// denials lists the tokens and users of the streams. A user is denied with whatever
// token: all that can be shown until then were issued before.
func (r *endingRun) denials(page []registry.Row) (ds []registry.Denial) {
	until := r.until()
	seen := make(map[registry.ID]bool)
	for i := range page {
		h := page[i].Holder
		if !h.Token.IsZero() && !seen[h.Token] {
			seen[h.Token] = true
			ds = append(ds, registry.Denial{Token: h.Token, Until: until})
		}
		if !h.Subject.IsZero() && !seen[h.Subject] {
			seen[h.Subject] = true
			ds = append(ds, registry.Denial{Subject: h.Subject, IssuedBefore: until, Until: until})
		}
	}
	return ds
}

// denyThem puts denials in force, and ends whoever holds a key and is denied by now:
// other streams, and those that were being admitted.
func (r *endingRun) denyThem(z *zone.Zone, ds []registry.Denial) error {
	if len(ds) == 0 {
		return nil
	}
	switch err := z.Registry.Deny(r.ctx, ds...); {
	case errors.Is(err, registry.ErrManyDenials):
		r.forgotten = true
	case err != nil:
		return fmt.Errorf("denying: %w", err)
	}
	r.denied += len(ds)
	var errs []error
	for part := range slices.Chunk(ds, endsAtOnce) {
		if errs = append(errs, r.endThem(z, part)...); len(errs) >= mostFailures {
			break
		}
	}
	return errors.Join(errs...)
}

// endThem ends the streams that denials name, which takes as long as one of them.
func (r *endingRun) endThem(z *zone.Zone, ds []registry.Denial) (errs []error) {
	ended := make([]registry.Ended, len(ds))
	failed := make([]error, len(ds))
	var wg sync.WaitGroup
	for i, d := range ds {
		wg.Go(func() {
			ended[i], failed[i] = z.Registry.End(r.ctx, registry.Selector{Token: d.Token, Subject: d.Subject}, r.Ending)
		})
	}
	wg.Wait()
	for i := range ds {
		for _, h := range ended[i].Holders {
			r.ended[h.ID] = true
		}
		if failed[i] != nil {
			errs = append(errs, fmt.Errorf("ending the streams of who is denied: %w", failed[i]))
		}
	}
	return errs[:min(len(errs), mostFailures)]
}

const (
	// endsAtOnce is for how many denials streams are ended at the same time: each may be a
	// question to all nodes.
	endsAtOnce = 32
	// mostFailures is how often a node may fail to answer, which takes a while, before the
	// rest of a page's denials are only put in force.
	mostFailures = 10
)
