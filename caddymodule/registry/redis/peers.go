package redis

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// peers are the other nodes of the zone, and the questions that are put to them. A
// question that is lost, or whose node has gone, has no answer in time.
type peers struct {
	asked atomic.Uint64

	// mu guards the fields below it.
	mu   sync.Mutex
	live []*peer // in the order of their IDs
	open map[uint64]chan reaction
}

// peer is another node. It is a registry.Node for whoever asks about its streams.
type peer struct {
	r  *Registry
	id string
}

// question is what one node asks of another.
type question struct {
	// Number and From say where the answer goes.
	Number   uint64
	From     []byte
	What     string
	Selector registry.Selector `json:",omitzero"`
	Ending   registry.Ending   `json:",omitzero"`
	ID       registry.StreamID `json:",omitzero"`
	Within   time.Duration     `json:",omitempty"`
	Cursor   string            `json:",omitempty"`
	Limit    int               `json:",omitempty"`
	Name     string            `json:",omitempty"`
	Data     string            `json:",omitempty"`
}

// reaction is the answer.
type reaction struct {
	Number  uint64
	Error   string             `json:",omitempty"`
	Lives   bool               `json:",omitempty"`
	Count   int                `json:",omitempty"`
	Cursor  string             `json:",omitempty"`
	Holders []*registry.Holder `json:",omitempty"`
	Rows    []registry.Row     `json:",omitempty"`
	// Departing has the tickets of those that were ended and have yet to depart.
	Departing []ticket `json:",omitempty"`
}

const (
	askEnd    = "end"
	askOne    = "end one"
	askFind   = "find"
	askProbe  = "probe"
	askList   = "list"
	askNotify = "notify"

	// mostRows is how many rows, or holders, one answer has at most.
	mostRows = 200
)

// set notes who lives.
func (ps *peers) set(r *Registry, ids []string) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	ps.live = ps.live[:0:0]
	for _, id := range ids {
		if id != r.id && len(id) == nodeIDSize {
			ps.live = append(ps.live, &peer{r, id})
		}
	}
	slices.SortFunc(ps.live, func(a, b *peer) int {
		if a.id < b.id {
			return -1
		}
		return 1
	})
}

func (ps *peers) all() []*peer {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	return slices.Clone(ps.live)
}

// after lists, in order, the peer of that ID and those that come after it.
func (ps *peers) after(id string) []*peer {
	return slices.DeleteFunc(ps.all(), func(p *peer) bool { return p.id < id })
}

func (p *peer) name() string { return hex.EncodeToString([]byte(p.id)) }

// Each implements registry.Registry.
func (r *Registry) Each(_ context.Context, f func(registry.Node)) error {
	f(r.node)
	for _, p := range r.peers.all() {
		f(p)
	}
	return nil
}

// errNoAnswer is returned where a node did not answer in time.
var errNoAnswer = errors.New("the node has not answered in time")

// errDeaf is returned where a node does not listen: it has died, or cannot reach Redis.
var errDeaf = errors.New("the node does not listen")

// ask puts a question to the peer and waits for its answer.
func (p *peer) ask(ctx context.Context, q question, within time.Duration) (reaction, error) {
	ps := &p.r.peers
	q.Number, q.From = ps.asked.Add(1), []byte(p.r.id)
	answers := make(chan reaction, 1)
	ps.mu.Lock()
	if ps.open == nil {
		ps.open = make(map[uint64]chan reaction)
	}
	ps.open[q.Number] = answers
	ps.mu.Unlock()
	defer func() {
		ps.mu.Lock()
		delete(ps.open, q.Number)
		ps.mu.Unlock()
	}()
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	if err := p.r.publish(ctx, p.id, questionMessage, q); err != nil {
		return reaction{}, err
	}
	select {
	case a := <-answers:
		if a.Error != "" {
			return a, errors.New(a.Error)
		}
		return a, nil
	case <-ctx.Done():
		return reaction{}, errNoAnswer
	case <-p.r.ctx.Done():
		return reaction{}, ErrAway
	}
}

// publish sends a message to a node.
func (r *Registry) publish(ctx context.Context, to, kind string, what any) error {
	client := r.link.client()
	if client == nil || !r.link.isUp() {
		return ErrAway
	}
	b, err := json.Marshal(what)
	if err != nil {
		return err
	}
	heard, err := client.Do(ctx, client.B().Publish().Channel(r.channel()+to).Message(kind+string(b)).Build()).AsInt64()
	switch {
	case err != nil:
		return fmt.Errorf("sending to node %s: %w", hex.EncodeToString([]byte(to)), err)
	case heard == 0 && !r.link.isCluster(): // a cluster counts only those who listen to one of its servers
		return fmt.Errorf("sending to node %s: %w", hex.EncodeToString([]byte(to)), errDeaf)
	}
	return nil
}

// answered hands an answer to who waits for it.
func (ps *peers) answered(body string) {
	var a reaction
	if json.Unmarshal([]byte(body), &a) != nil {
		return // who waits for it will not get it
	}
	ps.mu.Lock()
	waits := ps.open[a.Number]
	delete(ps.open, a.Number)
	ps.mu.Unlock()
	if waits != nil {
		waits <- a
	}
}

// answer does what another node asks.
func (ps *peers) answer(r *Registry, body string) {
	var q question
	if err := json.Unmarshal([]byte(body), &q); err != nil {
		r.options.Logger.Warn("another node asks what this one cannot read", zap.String("zone", r.zone), zap.Error(err))
		return
	}
	a := r.react(&q)
	a.Number = q.Number
	ctx, cancel := context.WithTimeout(r.ctx, r.options.Timeout)
	defer cancel()
	if err := r.publish(ctx, string(q.From), answerMessage, a); err != nil {
		r.options.Logger.Debug("answering another node", zap.String("zone", r.zone), zap.Error(err))
	}
}

func (r *Registry) react(q *question) (a reaction) {
	ctx := r.ctx
	switch q.What {
	case askEnd:
		from := foreignWaiter{r, string(q.From)}
		for _, p := range r.own(ctx, q.Selector) {
			was := p.end(q.Ending, true)
			if was != held && was != kept {
				continue
			}
			a.Holders = append(a.Holders, p.holder)
			if was == held && from.await(p) {
				a.Departing = append(a.Departing, p.ticket)
			}
		}
		r.Settle()
	case askOne:
		r.node.End(q.ID, q.Ending)
	case askFind:
		holders, next, err := r.findOwn(ctx, q.Selector, q.Cursor, min(q.Limit, mostRows))
		a.Holders, a.Cursor = holders, next
		if err != nil {
			a.Error = err.Error()
		}
	case askProbe:
		ctx, cancel := context.WithTimeout(ctx, q.Within)
		defer cancel()
		a.Lives = r.node.Probe(ctx, q.ID, q.Within)
	case askList:
		a.Rows, a.Cursor = r.node.List(q.Selector, q.Cursor, min(q.Limit, mostRows))
	case askNotify:
		a.Count = r.node.Notify(q.Selector, q.Name, q.Data)
	default:
		a.Error = fmt.Sprintf("node %s does not know the question %q; are all nodes of one version?", r.name(), q.What)
	}
	return a
}

// foreignWaiter is another node that waits for departures of streams of this one.
type foreignWaiter struct {
	r    *Registry
	node string
}

// await has the node told when the stream of p departs, and reports whether it has yet
// to.
func (f foreignWaiter) await(p *place) bool {
	d := newDeparture()
	p.await(d)
	done := d.all()
	if done == nil {
		return false
	}
	f.r.wg.Go(func() {
		timer := time.NewTimer(longestDeparture)
		defer timer.Stop()
		select {
		case <-done:
		case <-timer.C:
			return
		case <-f.r.ctx.Done():
			return
		}
		f.r.tellDeparted(f.node, p.ticket)
	})
	return true
}

// tellDeparted tells another node that a stream of this one has departed, as a script
// would.
func (r *Registry) tellDeparted(to string, t ticket) {
	client := r.link.client()
	if client == nil {
		return
	}
	ctx, cancel := context.WithTimeout(r.ctx, r.options.Timeout)
	defer cancel()
	m := effectsMessage + spellEffect("departed", r.id, fmt.Sprint(uint64(t)))
	if err := client.Do(ctx, client.B().Publish().Channel(r.channel()+to).Message(m).Build()).Error(); err != nil {
		r.options.Logger.Debug("telling another node of a departure", zap.String("zone", r.zone), zap.Error(err))
	}
}

// end ends the streams of all other nodes that the selector names.
func (ps *peers) end(ctx context.Context, sel registry.Selector, e registry.Ending, set *endedSet) error {
	live := ps.all()
	if len(live) == 0 {
		return nil
	}
	type outcome struct {
		p   *peer
		a   reaction
		err error
	}
	outcomes := make(chan outcome, len(live))
	for _, p := range live {
		go func() {
			a, err := p.ask(ctx, question{What: askEnd, Selector: sel, Ending: e}, p.r.options.Timeout)
			outcomes <- outcome{p, a, err}
		}()
	}
	var errs []error
	for range live {
		o := <-outcomes
		if o.err != nil {
			errs = append(errs, fmt.Errorf("ending streams of node %s: %w", o.p.name(), o.err))
			continue
		}
		set.holders = append(set.holders, o.a.Holders...)
		for _, t := range o.a.Departing {
			o.p.r.departures.add(foreign{o.p.id, t}, set.d)
		}
	}
	slices.SortStableFunc(set.holders, func(a, b *registry.Holder) int { return a.Asked.Compare(b.Asked) })
	return errors.Join(errs...)
}

// find lists holders of the peer.
func (p *peer) find(ctx context.Context, sel registry.Selector, cursor string, limit int) ([]*registry.Holder, string, error) {
	a, err := p.ask(ctx, question{What: askFind, Selector: sel, Cursor: cursor, Limit: limit}, p.r.options.Timeout)
	return a.Holders, a.Cursor, err
}

// End implements registry.Node.
func (p *peer) End(id registry.StreamID, e registry.Ending) {
	p.r.wg.Go(func() {
		if _, err := p.ask(p.r.ctx, question{What: askOne, ID: id, Ending: e}, p.r.options.Timeout); err != nil {
			p.r.options.Logger.Warn("ending a stream of another node", zap.String("zone", p.r.zone), zap.Error(err))
		}
	})
}

// Probe implements registry.Node. Where the node does not answer, the stream is taken to
// live: if the node is gone its lease runs out.
func (p *peer) Probe(ctx context.Context, id registry.StreamID, within time.Duration) (lives bool) {
	a, err := p.ask(ctx, question{What: askProbe, ID: id, Within: within}, within+p.r.options.Timeout)
	if err != nil {
		return true
	}
	return a.Lives
}

// List implements registry.Node.
func (p *peer) List(sel registry.Selector, cursor string, limit int) ([]registry.Row, string) {
	a, err := p.ask(p.r.ctx, question{What: askList, Selector: sel, Cursor: cursor, Limit: limit}, p.r.options.Timeout)
	if err != nil {
		p.r.options.Logger.Warn("listing streams of another node", zap.String("zone", p.r.zone), zap.Error(err))
	}
	return a.Rows, a.Cursor
}

// Notify implements registry.Node.
func (p *peer) Notify(sel registry.Selector, name, data string) int {
	a, err := p.ask(p.r.ctx, question{What: askNotify, Selector: sel, Name: name, Data: data}, p.r.options.Timeout)
	if err != nil {
		p.r.options.Logger.Warn("notifying streams of another node", zap.String("zone", p.r.zone), zap.Error(err))
	}
	return a.Count
}

var _ registry.Node = (*peer)(nil)
