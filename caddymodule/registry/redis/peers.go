package redis

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
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
	// gone has the IDs of those that have gone, and until when each counts as missing.
	gone map[string]time.Time
	// stopped has the IDs of those that have said goodbye, and until when an older answer of
	// Redis may yet name them.
	stopped map[string]time.Time
	open    map[uint64]chan string
}

// peer is another node. It is a registry.Node for whoever asks about its streams.
type peer struct {
	r  *Registry
	id string
}

// question is what one node asks of another.
type question struct {
	// Number and From say where the answer goes.
	Number uint64
	From   []byte
	// Ahead says what clock the times are by: see link.ahead.
	Ahead    time.Duration
	What     string
	Selector registry.Selector   `json:",omitzero"`
	Filter   registry.Filter     `json:",omitzero"`
	Ending   registry.Ending     `json:",omitzero"`
	ID       registry.StreamID   `json:",omitzero"`
	IDs      []registry.StreamID `json:",omitempty"`
	Within   time.Duration       `json:",omitempty"`
	Cursor   string              `json:",omitempty"`
	Limit    int                 `json:",omitempty"`
	Name     string              `json:",omitempty"`
	Data     string              `json:",omitempty"`
}

// reaction is the answer. In a message, the number of the question stands before it.
type reaction struct {
	// Ahead is as that of a question.
	Ahead   time.Duration
	Error   string             `json:",omitempty"`
	Lives   bool               `json:",omitempty"`
	Count   int                `json:",omitempty"`
	Cursor  string             `json:",omitempty"`
	Holders []*registry.Holder `json:",omitempty"`
	Rows    []registry.Row     `json:",omitempty"`
	Counts  registry.Counts    `json:",omitzero"`
	// Departing has the tickets of those that were ended and have yet to depart.
	Departing []ticket `json:",omitempty"`
}

const (
	askEnd    = "end"
	askOne    = "end one"
	askMany   = "end many"
	askFind   = "find"
	askProbe  = "probe"
	askList   = "list"
	askCount  = "count"
	askNotify = "notify"

	// mostRows is how many rows, holders or IDs one message has at most.
	mostRows = 200
)

// missingFor is how long a node counts as missing that has gone.
const missingFor = 15 * time.Minute

// set notes who lives.
func (ps *peers) set(r *Registry, ids []string) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	now := time.Now()
	maps.DeleteFunc(ps.gone, func(id string, until time.Time) bool {
		return until.Before(now) || slices.Contains(ids, id)
	})
	maps.DeleteFunc(ps.stopped, func(_ string, until time.Time) bool { return until.Before(now) })
	for _, p := range ps.live {
		if !slices.Contains(ids, p.id) {
			if ps.gone == nil {
				ps.gone = make(map[string]time.Time)
			}
			ps.gone[p.id] = now.Add(missingFor)
		}
	}
	ps.live = ps.live[:0:0]
	for _, id := range ids {
		if _, stopped := ps.stopped[id]; !stopped && id != r.id && len(id) == nodeIDSize {
			ps.live = append(ps.live, &peer{r, id})
		}
	}
	slices.SortFunc(ps.live, func(a, b *peer) int { return strings.Compare(a.id, b.id) })
}

// stop notes that a node has said goodbye: it has given back all that it had.
func (ps *peers) stop(id string) {
	if len(id) != nodeIDSize {
		return
	}
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if ps.stopped == nil {
		ps.stopped = make(map[string]time.Time)
	}
	ps.stopped[id] = time.Now().Add(missingFor)
	delete(ps.gone, id)
	ps.live = slices.DeleteFunc(slices.Clone(ps.live), func(p *peer) bool { return p.id == id })
}

// Missing implements registry.Reachable. While Redis is away, nobody knows who else there
// is.
func (r *Registry) Missing() bool {
	if !r.link.isUp() {
		return true
	}
	now := time.Now()
	r.peers.mu.Lock()
	defer r.peers.mu.Unlock()
	for _, until := range r.peers.gone {
		if until.After(now) {
			return true
		}
	}
	return false
}

func (ps *peers) all() []*peer {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	return slices.Clone(ps.live)
}

// ids lists the IDs of those who live.
func (ps *peers) ids() (ids []string) {
	for _, p := range ps.all() {
		ids = append(ids, p.id)
	}
	return ids
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
	q.Number, q.From, q.Ahead = ps.asked.Add(1), []byte(p.r.id), p.r.link.ahead()
	answers := make(chan string, 1)
	ps.mu.Lock()
	if ps.open == nil {
		ps.open = make(map[uint64]chan string)
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
	case body := <-answers:
		var a reaction
		if err := json.Unmarshal([]byte(body), &a); err != nil {
			return a, fmt.Errorf("its answer cannot be read: %w", err)
		}
		a.shift(p.r.shift(a.Ahead))
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
	heard, err := r.send(ctx, client, to, kind+string(b)).AsInt64()
	switch {
	case err != nil:
		return fmt.Errorf("sending to node %s: %w", hex.EncodeToString([]byte(to)), err)
	case heard == 0 && !r.link.isCluster(): // a server of a cluster counts only those who listen to itself
		return fmt.Errorf("sending to node %s: %w", hex.EncodeToString([]byte(to)), errDeaf)
	}
	return nil
}

// answered hands an answer to who waits for it, and who decodes it: it may be long, and
// messages behind it end streams.
func (ps *peers) answered(message string) {
	if len(message) < numberSize {
		return // who waits for it will not get it
	}
	number := binary.BigEndian.Uint64([]byte(message[:numberSize]))
	ps.mu.Lock()
	waits := ps.open[number]
	delete(ps.open, number)
	ps.mu.Unlock()
	if waits != nil {
		waits <- message[numberSize:]
	}
}

// numberSize is how many bytes the number of a question has before an answer.
const numberSize = 8

// answer does what another node asks.
func (ps *peers) answer(r *Registry, body string) {
	var q question
	if err := json.Unmarshal([]byte(body), &q); err != nil {
		r.options.Logger.Warn("another node asks what this one cannot read", zap.String("zone", r.zone), zap.Error(err))
		return
	}
	q.shift(r.shift(q.Ahead))
	a := r.react(&q)
	a.Ahead = r.link.ahead()
	ctx, cancel := context.WithTimeout(r.ctx, r.options.Timeout)
	defer cancel()
	kind := answerMessage + string(binary.BigEndian.AppendUint64(nil, q.Number))
	if err := r.publish(ctx, string(q.From), kind, a); err != nil {
		r.options.Logger.Debug("answering another node", zap.String("zone", r.zone), zap.Error(err))
	}
}

// leastShift is by how much the clocks of two nodes differ at least if times are shifted:
// less may be due to how long Redis took to answer.
const leastShift = 100 * time.Millisecond

// shift returns what is to be added to times of a node that has said how far Redis' clock
// is ahead of its own.
func (r *Registry) shift(ahead time.Duration) time.Duration {
	d := ahead - r.link.ahead()
	if d.Abs() < leastShift {
		return 0
	}
	return d
}

func shiftAll(d time.Duration, times ...*time.Time) {
	for _, t := range times {
		if !t.IsZero() {
			*t = t.Add(d)
		}
	}
}

// shift adds d to times that another node's clock has told.
func (q *question) shift(d time.Duration) { shiftAll(d, &q.Filter.Before, &q.Ending.Asked) }

func (a *reaction) shift(d time.Duration) {
	for _, h := range a.Holders {
		shiftAll(d, &h.Asked, &h.Since)
	}
	for i := range a.Rows {
		row := &a.Rows[i]
		shiftAll(d, &row.Holder.Asked, &row.Holder.Since, &row.LastEvent, &row.LastAck)
	}
}

// fail has the answer say what went wrong, if anything.
func (a *reaction) fail(err error) {
	if err != nil {
		a.Error = err.Error()
	}
}

func (r *Registry) react(q *question) (a reaction) {
	ctx := r.ctx
	switch q.What {
	case askEnd:
		own := r.own(ctx, q.Selector)
		from := r.newForeignWaiter(string(q.From), len(own))
		for _, p := range own {
			was := p.end(q.Ending, true)
			if was != held && was != kept {
				continue
			}
			a.Holders = append(a.Holders, p.holder)
			if was == held && from.await(p) {
				a.Departing = append(a.Departing, p.ticket)
			}
		}
		from.start()
		for _, p := range own { // else who asks might still find them in Redis
			p.b.await(func() bool { return p.known == none || p.known == left })
		}
	case askOne:
		r.node.End(q.ID, q.Ending)
	case askMany:
		a.fail(r.node.EndAll(ctx, q.IDs, q.Ending))
	case askFind:
		var err error
		a.Holders, a.Cursor, err = r.findOwn(ctx, q.Selector, q.Cursor, min(q.Limit, mostRows))
		a.fail(err)
	case askProbe:
		ctx, cancel := context.WithTimeout(ctx, q.Within)
		defer cancel()
		a.Lives = r.node.Probe(ctx, q.ID, q.Within)
	case askList:
		var err error
		a.Rows, a.Cursor, err = r.node.List(ctx, q.Filter, q.Cursor, min(q.Limit, mostRows))
		a.fail(err)
	case askCount:
		var err error
		a.Counts, err = r.node.Count(ctx)
		a.fail(err)
	case askNotify:
		var err error
		a.Count, err = r.node.Notify(ctx, q.Filter, q.Name, q.Data)
		a.fail(err)
	default:
		a.Error = fmt.Sprintf("node %s does not know the question %q; are all nodes of one version?", r.name(), q.What)
	}
	return a
}

// foreignWaiter is another node that waits for departures of streams of this one.
type foreignWaiter struct {
	r    *Registry
	node string
	// departed has the tickets of those that have departed.
	departed chan ticket
	waits    int
}

// newForeignWaiter returns one that waits for so many streams at most.
func (r *Registry) newForeignWaiter(node string, most int) *foreignWaiter {
	return &foreignWaiter{r: r, node: node, departed: make(chan ticket, most)}
}

// await has the node told when the stream of p departs, and reports whether it has yet
// to.
func (f *foreignWaiter) await(p *place) bool {
	d := newDeparture()
	d.told = func() { f.departed <- p.ticket }
	p.await(d)
	if d.all() == nil {
		return false
	}
	f.waits++
	return true
}

// start begins to tell the node.
func (f *foreignWaiter) start() {
	if f.waits > 0 {
		f.r.wg.Go(f.tell)
	}
}

// tell tells the node of each departure; of several that came meanwhile, by one message.
func (f *foreignWaiter) tell() {
	timer := time.NewTimer(longestDeparture)
	defer timer.Stop()
	for f.waits > 0 {
		var tickets []ticket
		select {
		case t := <-f.departed:
			tickets = append(tickets, t)
		case <-timer.C:
			return
		case <-f.r.ctx.Done():
			return
		}
		for more := true; more && len(tickets) < mostRows; {
			select {
			case t := <-f.departed:
				tickets = append(tickets, t)
			default:
				more = false
			}
		}
		f.waits -= len(tickets)
		f.r.tellDeparted(f.node, tickets)
	}
}

// tellDeparted tells another node that streams of this one have departed, as a script
// would.
func (r *Registry) tellDeparted(to string, tickets []ticket) {
	client := r.link.client()
	if client == nil {
		return
	}
	ctx, cancel := context.WithTimeout(r.ctx, r.options.Timeout)
	defer cancel()
	var m strings.Builder
	m.WriteString(effectsMessage)
	for _, t := range tickets {
		m.WriteString(spellEffect("departed", r.id, fmt.Sprint(uint64(t))))
	}
	if err := r.send(ctx, client, to, m.String()).Error(); err != nil {
		r.options.Logger.Debug("telling another node of departures", zap.String("zone", r.zone), zap.Error(err))
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

// EndAll implements registry.Node.
func (p *peer) EndAll(ctx context.Context, ids []registry.StreamID, e registry.Ending) error {
	for part := range slices.Chunk(ids, mostRows) {
		if _, err := p.inquire(ctx, question{What: askMany, IDs: part, Ending: e}); err != nil {
			return err
		}
	}
	return nil
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
func (p *peer) List(ctx context.Context, f registry.Filter, cursor string, limit int) ([]registry.Row, string, error) {
	a, err := p.inquire(ctx, question{What: askList, Filter: f, Cursor: cursor, Limit: limit})
	return a.Rows, a.Cursor, err
}

// Count implements registry.Node.
func (p *peer) Count(ctx context.Context) (registry.Counts, error) {
	a, err := p.inquire(ctx, question{What: askCount})
	return a.Counts, err
}

// Notify implements registry.Node.
func (p *peer) Notify(ctx context.Context, f registry.Filter, name, data string) (int, error) {
	a, err := p.inquire(ctx, question{What: askNotify, Filter: f, Name: name, Data: data})
	return a.Count, err
}

// inquire is ask for an administrator, who wants to know which node has not answered.
func (p *peer) inquire(ctx context.Context, q question) (reaction, error) {
	a, err := p.ask(ctx, q, p.r.options.Timeout)
	if err != nil {
		return reaction{}, fmt.Errorf("asking node %s: %w", p.name(), err)
	}
	return a, nil
}

var _ registry.Node = (*peer)(nil)
