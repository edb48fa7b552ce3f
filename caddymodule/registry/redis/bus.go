package redis

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/sse-guard/sse-guard/caddymodule/reason"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
	"github.com/sse-guard/sse-guard/caddymodule/registry/memory"
)

// bus is what the nodes of a zone tell each other: what the scripts publish, questions
// and their answers, and the denials. A message may be lost; renewals find what was.
type bus struct {
	// messages are those heard and not yet done. The connection does not wait for
	// them: of those that find no room it is as if they were lost.
	messages chan message
	// plain and shard are by what it hears of plain and sharded Pub/Sub.
	plain, shard subscription

	// mu guards the fields below it.
	mu sync.Mutex
	// denial is the number of the last denial that was heard, and given has those that
	// this node has given, by how they are spelled.
	denial int64
	given  map[string]*given
	swept  time.Time
}

type message struct{ kind, body string }

// given is a denial that this node has given.
type given struct {
	registry.Denial
	since time.Time
	// told says that Redis has it, as far as this node knows.
	told bool
}

const (
	// What begins a message says what it is.
	effectsMessage  = "f"
	denialsMessage  = "d" // there are new denials, or nodes
	questionMessage = "q"
	answerMessage   = "a"
	sharedMessage   = "s" // what happened, for who listens
	noteMessage     = "n" // what happened, for all
	listenMessage   = "l" // a node listens, or does so no more
	groupsMessage   = "g" // how many streams of groups a node has
	goodbyeMessage  = "b" // a node has given back all that it had

	mostMessages = 1 << 13
	mostDenials  = memory.MaxDenials
	// everybody is the node whose channel all listen to.
	everybody = "all"
)

// pauseFor waits, whatever happens.
func (l *link) pauseFor(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-l.r.ctx.Done():
	}
}

// work does what the messages say, one after the other.
func (bu *bus) work(r *Registry) {
	for {
		select {
		case m := <-bu.messages:
			bu.do(r, m)
		case <-r.ctx.Done():
			return
		}
	}
}

func (bu *bus) do(r *Registry, m message) {
	switch m.kind {
	case effectsMessage:
		effects, err := parseEffects(m.body)
		if err != nil {
			r.options.Logger.Warn("hearing from another node", zap.String("zone", r.zone), zap.Error(err))
		}
		for _, e := range effects {
			r.effect(e)
		}
	case denialsMessage:
		r.link.wakeUp()
	case questionMessage:
		r.wg.Go(func() { r.peers.answer(r, m.body) })
	case answerMessage:
		r.peers.answered(m.body)
	case groupsMessage:
		r.groups.heard(m.body)
	case goodbyeMessage:
		r.peers.stop(m.body)
	}
}

func (bu *bus) lastDenial() int64 {
	bu.mu.Lock()
	defer bu.mu.Unlock()
	return bu.denial
}

// heard puts denials in force that other nodes have given, with their numbers, and has
// this node's streams end that they name. It reports whether there are more.
func (bu *bus) heard(r *Registry, since, last int64, denials []string) (more bool) {
	for i := 0; i+1 < len(denials); i += 2 {
		if bu.isOwn(denials[i]) {
			continue
		}
		d, err := decodeDenial(denials[i])
		if err != nil {
			r.options.Logger.Warn("hearing of a denial", zap.String("zone", r.zone), zap.Error(err))
			continue
		}
		r.denyHere(d)
	}
	bu.mu.Lock()
	defer bu.mu.Unlock()
	switch {
	case last < since: // Redis has lost them, or they are over
		bu.denial = 0
		bu.doubtSince(time.Time{})
		return last > 0
	case len(denials) == 2000:
		bu.denial = parseScore(denials[len(denials)-1])
		return true
	default:
		bu.denial = last
		return false
	}
}

func parseScore(s string) int64 { return int64(parseTicket(s)) }

// denyHere puts another node's denial in force. Whoever denies ends the streams then, says
// why, and counts them: they are left for that, but only for a moment, since what says so
// may be lost.
func (r *Registry) denyHere(d registry.Denial) {
	if err := r.local.Deny(r.ctx, d); err != nil {
		r.options.Logger.Warn("another node denies a token", zap.String("zone", r.zone), zap.Error(err))
	}
	sel := registry.Selector{Token: d.Token, Client: d.Client}
	if d.Token.IsZero() {
		sel = registry.Selector{Subject: d.Subject}
	}
	denied := slices.DeleteFunc(r.own(r.ctx, sel), func(p *place) bool { return !r.local.Denied(p.holder) })
	if len(denied) == 0 {
		return
	}
	r.wg.Go(func() {
		// Half of the lease bounds it all, and it may take a quarter to hear of a denial.
		r.link.pauseFor(min(r.options.Timeout, r.options.Lease/8))
		for _, p := range denied {
			if r.ctx.Err() == nil {
				p.end(registry.Ending{Reason: reason.Logout}, true)
			}
		}
	})
}

// Deny implements registry.Denials. The denials are in force here when it returns, and
// on the other nodes a moment later; while Redis is away, when it is back.
func (r *Registry) Deny(ctx context.Context, denials ...registry.Denial) error {
	err := r.local.Deny(ctx, denials...)
	now := time.Now()
	r.bus.mu.Lock()
	r.bus.forget(now)
	for _, d := range denials {
		if d.Until.After(now) && len(r.bus.given) < mostDenials {
			r.bus.given[encodeDenial(d)] = &given{Denial: d, since: now}
		}
	}
	r.bus.mu.Unlock()
	if r.link.isUp() {
		if tellErr := r.denyEverywhere(ctx); tellErr != nil {
			r.link.failed(tellErr)
		}
	}
	return err
}

// isOwn reports whether this node has given the denial. Its streams are ended by whoever
// has.
func (bu *bus) isOwn(spelled string) bool {
	bu.mu.Lock()
	defer bu.mu.Unlock()
	_, own := bu.given[spelled]
	return own
}

// forget forgets what was given and is over, now and then. mu is held.
func (bu *bus) forget(now time.Time) {
	if now.Sub(bu.swept) < time.Minute {
		return
	}
	bu.swept = now
	maps.DeleteFunc(bu.given, func(_ string, d *given) bool { return !d.Until.After(now) })
}

// Denied implements registry.Denials.
func (r *Registry) Denied(h *registry.Holder) bool { return r.local.Denied(h) }

// doubt has Redis told again, soon, of the denials that were given since then: it may
// have lost them.
func (bu *bus) doubt(since time.Time) {
	bu.mu.Lock()
	defer bu.mu.Unlock()
	bu.doubtSince(since)
}

// doubtSince is doubt. mu is held.
func (bu *bus) doubtSince(since time.Time) {
	for _, d := range bu.given {
		if d.since.After(since) {
			d.told = false
		}
	}
}

// untold lists how denials are spelled that Redis is yet to be told, and they themselves,
// so many at most.
func (bu *bus) untold(most int) (spelled []string, denials []*given) {
	bu.mu.Lock()
	defer bu.mu.Unlock()
	now := time.Now()
	bu.forget(now)
	for s, d := range bu.given {
		if !d.told && d.Until.After(now) && len(spelled) < most {
			d.told = true // until it turns out to be otherwise
			spelled, denials = append(spelled, s), append(denials, d)
		}
	}
	return spelled, denials
}

// denyEverywhere has other nodes hear of the denials that they may not know. What is known
// already may be told again.
func (r *Registry) denyEverywhere(ctx context.Context) error {
	for {
		spelled, denials := r.bus.untold(1000)
		if len(spelled) == 0 {
			return nil
		}
		if err := r.sendDenials(ctx, spelled, denials); err != nil {
			r.bus.mu.Lock()
			for _, d := range denials {
				d.told = false
			}
			r.bus.mu.Unlock()
			return err
		}
	}
}

func (r *Registry) sendDenials(ctx context.Context, spelled []string, denials []*given) error {
	keys := []string{r.key(zoneTag, "q"), r.key(zoneTag, "d"), r.key(zoneTag, "u")}
	a := args(r.channel(zoneTag))
	a[1] += everybody
	a.num(mostDenials)
	for i, d := range denials {
		a.num(d.Until.UnixMilli())
		a.add(spelled[i])
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.options.Timeout)
	defer cancel()
	return explain(r.scripts.deny.Exec(ctx, r.link.client(), keys, a).Error())
}

// Secret returns the secret that all nodes of the zone's prefix share: the given one,
// if Redis has none.
func (r *Registry) Secret(ctx context.Context, fresh []byte, keep time.Duration) ([]byte, error) {
	if err := r.Start(); err != nil {
		return nil, errors.Join(errors.New("sharing the tombstone secret"), err)
	}
	client := r.link.client()
	if client == nil {
		return nil, ErrAway
	}
	ctx, cancel := context.WithTimeout(ctx, r.options.Timeout)
	defer cancel()
	var a args
	a.add(string(fresh))
	a.num(keep.Milliseconds())
	stored, err := r.scripts.secret.Exec(ctx, client, []string{r.options.Prefix + "/tombstone.key"}, a).ToString()
	if err != nil {
		return nil, errors.Join(errors.New("sharing the tombstone secret"), err)
	}
	return []byte(stored), nil
}
