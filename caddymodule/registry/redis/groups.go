package redis

import (
	"context"
	"encoding/binary"
	"errors"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/redis/rueidis"
	"go.uber.org/zap"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// groups is how many streams of each group the nodes have. A node writes the numbers of
// its groups to a Redis hash that lives as long as its lease, and sends those that have
// changed to all others, all changes of groupsEvery at once. Of others it knows what they
// have of its own groups: it reads that from their hashes when it has the first stream of
// a group, and when it finds that a message was lost.
//
// What is told together has a version, which rises by one: of two numbers that are read,
// or heard, that of the later version is right.
type groups struct {
	r *Registry
	// count and changed are set before anything else is called.
	count   func(group registry.ID) int
	changed func(groups []registry.ID)
	// wake has the goroutine tell what has changed, and check has it look whether it knows
	// what others have, and whether Redis has what was told.
	wake, check chan struct{}

	// mu guards the fields below it. Nothing is called with it held.
	mu sync.Mutex
	// dirty are the groups whose number may not be the one that was told.
	dirty map[registry.ID]bool
	// others has what each other node has of this node's groups.
	others map[registry.ID]map[string]groupCount
	// seen is up to which version all is known of each other node.
	seen map[string]uint64
	// missed says that a message was lost.
	missed bool

	// These belong to the goroutine.

	// told has the numbers of this node's groups that Redis has, and version is theirs. A
	// number is unsure where Redis may have another one.
	told    map[registry.ID]int
	version uint64
	// looked is when the goroutine looked last.
	looked time.Time
}

// groupCount is how many streams of a group a node had in a version.
type groupCount struct {
	n       int
	version uint64
}

const (
	// groupsEvery is the time between two steps, in each of which all changes are told.
	groupsEvery = 50 * time.Millisecond
	// mostGroups is how many one message, or command, has.
	mostGroups = 500
	// versionField is the field of a node's hash that has the version. No name of a group
	// is as short.
	versionField = "v"
	// unsure is no number of streams.
	unsure = -1
	// groupEntry is how many bytes a group has in a message.
	groupEntry = len(registry.ID{}) + 4
)

func (g *groups) init(r *Registry) {
	g.r = r
	g.count = func(registry.ID) int { return 0 }
	g.changed = func([]registry.ID) {}
	g.wake, g.check = make(chan struct{}, 1), make(chan struct{}, 1)
	g.dirty = make(map[registry.ID]bool)
	g.others = make(map[registry.ID]map[string]groupCount)
	g.seen = make(map[string]uint64)
	g.told = make(map[registry.ID]int)
}

// Group implements registry.Grouping.
func (r *Registry) Group(count func(registry.ID) int, changed func([]registry.ID)) {
	r.groups.count, r.groups.changed = count, changed
}

// GroupChanged implements registry.Grouping.
func (r *Registry) GroupChanged(ids ...registry.ID) {
	r.groups.mu.Lock()
	for _, id := range ids {
		r.groups.dirty[id] = true
	}
	r.groups.mu.Unlock()
	poke(r.groups.wake)
}

// Elsewhere implements registry.Grouping.
func (r *Registry) Elsewhere(group registry.ID) (n int) {
	r.groups.mu.Lock()
	defer r.groups.mu.Unlock()
	for _, c := range r.groups.others[group] {
		n += c.n
	}
	return n
}

// work tells, and looks, until the registry is closed.
func (g *groups) work() {
	for {
		select {
		case <-g.wake:
			g.step()
			g.r.link.pauseFor(groupsEvery)
		case <-g.check:
			g.look()
			g.step()
		case <-g.r.ctx.Done():
			return
		}
	}
}

// key is the name of the hash of a node.
func (g *groups) key(node string) string { return g.r.key(zoneTag, "n/"+node) }

// client is nil while Redis is away. What cannot be done then is done when it is back.
func (g *groups) client() rueidis.Client {
	if !g.r.link.isUp() {
		return nil
	}
	return g.r.link.client()
}

func (g *groups) failed(err error) {
	g.r.options.Logger.Debug("telling other nodes how many streams a group has", zap.String("zone", g.r.zone), zap.Error(err))
}

// step tells what has changed, and reads what others have of groups that are new here.
func (g *groups) step() {
	if g.client() == nil {
		return
	}
	g.mu.Lock()
	dirty := slices.Collect(maps.Keys(g.dirty))
	clear(g.dirty)
	g.mu.Unlock()
	now := make(map[registry.ID]int)
	var fresh []registry.ID
	for _, id := range dirty {
		n := g.count(id)
		was, known := g.told[id]
		if n == was {
			continue
		}
		now[id] = n
		if !known {
			fresh = append(fresh, id)
		}
	}
	nodes := g.r.peers.ids()
	g.mu.Lock()
	for _, id := range fresh {
		g.others[id] = make(map[string]groupCount)
	}
	for node := range g.seen { // of some it may have been heard before they were known to live
		if !slices.Contains(nodes, node) {
			nodes = append(nodes, node)
		}
	}
	g.mu.Unlock()
	g.tell(now)
	g.read(nodes, fresh)
}

// tellAll tells the numbers of all groups again.
func (g *groups) tellAll() {
	now := make(map[registry.ID]int)
	for id := range g.told {
		now[id] = g.count(id)
	}
	g.tell(now)
}

// tell tells the numbers. Those that Redis does not take are told later.
func (g *groups) tell(now map[registry.ID]int) {
	for part := range slices.Chunk(slices.Collect(maps.Keys(now)), mostGroups) {
		if err := g.tellPart(part, now); err != nil {
			g.failed(err)
			g.mu.Lock()
			for _, id := range part {
				g.told[id] = unsure
				g.dirty[id] = true
			}
			g.mu.Unlock()
			continue
		}
		g.mu.Lock()
		for _, id := range part {
			if g.told[id] = now[id]; now[id] == 0 {
				delete(g.told, id)
				delete(g.others, id)
			}
		}
		g.mu.Unlock()
	}
}

// tellPart writes the numbers, and sends them.
func (g *groups) tellPart(ids []registry.ID, now map[registry.ID]int) error {
	client := g.client()
	if client == nil {
		return ErrAway
	}
	g.version++
	key, version := g.key(g.r.id), strconv.FormatUint(g.version, 10)
	set := client.B().Hset().Key(key).FieldValue().FieldValue(versionField, version)
	var over []string
	message := g.message(g.version)
	for _, id := range ids {
		n := now[id]
		message = binary.BigEndian.AppendUint32(append(message, id[:]...), uint32(n))
		if n == 0 {
			over = append(over, string(id[:]))
		} else {
			set = set.FieldValue(string(id[:]), strconv.Itoa(n))
		}
	}
	var commands rueidis.Commands
	if len(over) > 0 { // first: what is read of a version is not to have them
		commands = append(commands, client.B().Hdel().Key(key).Field(over...).Build())
	}
	commands = append(commands, set.Build(), client.B().Pexpire().Key(key).Milliseconds(g.r.options.Lease.Milliseconds()).Build())
	ctx, cancel := context.WithTimeout(g.r.ctx, g.r.options.Timeout)
	defer cancel()
	for _, answer := range client.DoMulti(ctx, commands...) {
		if err := answer.Error(); err != nil {
			return err
		}
	}
	return g.r.send(ctx, client, everybody, string(message)).Error()
}

// message begins one that tells numbers of this node.
func (g *groups) message(version uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte(groupsMessage+g.r.id), version)
}

// gone is the version of a node that has no streams any more.
const gone = 0

// sayGoodbye takes out what this node has told.
func (g *groups) sayGoodbye(ctx context.Context, client rueidis.Client) {
	if had, err := g.drop(ctx, client); err == nil && had {
		_ = g.r.send(ctx, client, everybody, string(g.message(gone))).Error() // else others find that it is gone
	}
}

// drop deletes the node's hash, and reports whether there was one.
func (g *groups) drop(ctx context.Context, client rueidis.Client) (had bool, err error) {
	n, err := client.Do(ctx, client.B().Pexpire().Key(g.key(g.r.id)).Milliseconds(0).Build()).AsInt64()
	return n > 0, err
}

// heard notes what another node has told.
func (g *groups) heard(body string) {
	const head = nodeIDSize + 8
	if len(body) < head || (len(body)-head)%groupEntry != 0 || body[:nodeIDSize] == g.r.id {
		return
	}
	node, version := body[:nodeIDSize], binary.BigEndian.Uint64([]byte(body[nodeIDSize:head]))
	if version == gone {
		g.forget(func(n string) bool { return n == node })
		return
	}
	var changed []registry.ID
	g.mu.Lock()
	for entry := body[head:]; entry != ""; entry = entry[groupEntry:] {
		id := registry.ID([]byte(entry[:len(registry.ID{})]))
		n := int(binary.BigEndian.Uint32([]byte(entry[len(id):groupEntry])))
		if g.note(node, id, groupCount{n, version}) {
			changed = append(changed, id)
		}
	}
	if g.seen[node] == version-1 || len(g.others) == 0 { // of no group there is nothing to miss
		g.seen[node] = version
	} else if g.seen[node] < version {
		g.missed = true
		poke(g.check)
	}
	g.mu.Unlock()
	g.tellChanged(changed)
}

// note notes what a node has of a group, and reports whether that is another number. mu is
// held.
func (g *groups) note(node string, id registry.ID, c groupCount) (changed bool) {
	of, own := g.others[id]
	if _, heard := g.seen[node]; !heard {
		g.seen[node] = 0 // for forget
	}
	if !own || of[node].version >= c.version {
		return false
	}
	changed = of[node].n != c.n
	of[node] = c
	return changed
}

func (g *groups) tellChanged(ids []registry.ID) {
	if len(ids) > 0 {
		g.changed(ids)
	}
}

// forget forgets what is known of nodes.
func (g *groups) forget(nodes func(id string) bool) {
	var changed []registry.ID
	g.mu.Lock()
	before := len(g.seen)
	maps.DeleteFunc(g.seen, func(node string, _ uint64) bool { return nodes(node) })
	if len(g.seen) == before {
		g.mu.Unlock()
		return
	}
	for id, of := range g.others {
		for node, c := range of {
			if !nodes(node) {
				continue
			}
			delete(of, node)
			if c.n > 0 {
				changed = append(changed, id)
			}
		}
	}
	g.mu.Unlock()
	g.tellChanged(changed)
}

// hello is called when it was heard who lives.
func (g *groups) hello(live []string) {
	g.forget(func(node string) bool { return !slices.Contains(live, node) })
	poke(g.check)
}

// look finds out whether Redis has what was told, and whether all is known of the others.
// It keeps the node's hash.
func (g *groups) look() {
	client := g.client()
	g.mu.Lock()
	missed := g.missed
	g.mu.Unlock()
	if client == nil || len(g.told) == 0 && g.version == 0 || !missed && time.Since(g.looked) < g.r.options.Lease/(2*renewals) {
		return
	}
	nodes := g.r.peers.ids()
	commands := rueidis.Commands{
		client.B().Pexpire().Key(g.key(g.r.id)).Milliseconds(g.r.options.Lease.Milliseconds()).Build(),
		client.B().Hget().Key(g.key(g.r.id)).Field(versionField).Build(),
	}
	for _, node := range nodes {
		commands = append(commands, client.B().Hget().Key(g.key(node)).Field(versionField).Build())
	}
	ctx, cancel := context.WithTimeout(g.r.ctx, g.r.options.Timeout)
	defer cancel()
	answers := client.DoMulti(ctx, commands...)
	versions := make([]uint64, len(answers)-1)
	for i, answer := range answers[1:] {
		var err error
		if versions[i], err = answer.AsUint64(); err != nil && !rueidis.IsRedisNil(err) {
			g.failed(err)
			return
		}
	}
	g.looked = time.Now()
	if versions[0] != g.version { // Redis has lost it, or some of it
		if _, err := g.drop(ctx, client); err != nil {
			g.failed(err)
			return
		}
		g.tellAll()
	}
	ids := slices.Collect(maps.Keys(g.told))
	g.mu.Lock()
	g.missed = false
	nodes = slices.DeleteFunc(nodes, func(node string) bool {
		version := versions[1]
		versions = versions[1:]
		return version == 0 || version == g.seen[node] // of who has lost it all, it tells itself again
	})
	g.mu.Unlock()
	for _, node := range nodes {
		if version, ok := g.read([]string{node}, ids); ok {
			g.mu.Lock()
			g.seen[node] = max(g.seen[node], version)
			g.mu.Unlock()
		}
	}
}

// read reads what nodes have of groups. It returns the least version that was read, and
// whether all was.
func (g *groups) read(nodes []string, ids []registry.ID) (version uint64, all bool) {
	client := g.client()
	if len(ids) == 0 || len(nodes) == 0 {
		return 0, false
	}
	if client == nil {
		g.unread(nodes...)
		return 0, false
	}
	var commands rueidis.Commands
	parts := slices.Collect(slices.Chunk(ids, mostGroups))
	for _, node := range nodes {
		for _, part := range parts {
			fields := []string{versionField}
			for _, id := range part {
				fields = append(fields, string(id[:]))
			}
			commands = append(commands, client.B().Hmget().Key(g.key(node)).Field(fields...).Build())
		}
	}
	ctx, cancel := context.WithTimeout(g.r.ctx, g.r.options.Timeout)
	answers := client.DoMulti(ctx, commands...)
	cancel()
	var changed []registry.ID
	all = true
	for i, answer := range answers {
		v, ids, err := g.readPart(nodes[i/len(parts)], parts[i%len(parts)], answer)
		if err != nil {
			g.failed(err)
			g.unread(nodes[i/len(parts)])
			all = false
			continue
		}
		if version == 0 || v < version {
			version = v
		}
		changed = append(changed, ids...)
	}
	g.tellChanged(changed)
	return version, all
}

// unread has all that is known of nodes read again when it is looked next, although they may
// have told nothing new by then.
func (g *groups) unread(nodes ...string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.missed = true
	for _, node := range nodes {
		g.seen[node] = 0
	}
}

func (g *groups) readPart(node string, ids []registry.ID, answer rueidis.RedisResult) (version uint64, changed []registry.ID, err error) {
	fields, err := answer.ToArray()
	if err != nil {
		return 0, nil, err
	}
	if len(fields) != len(ids)+1 {
		return 0, nil, errors.New("an answer of the wrong length")
	}
	if version, err = fields[0].AsUint64(); err != nil {
		if rueidis.IsRedisNil(err) {
			return 0, nil, nil // it has told nothing
		}
		return 0, nil, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for i, id := range ids {
		n, _ := fields[i+1].AsInt64() // no field: none
		if g.note(node, id, groupCount{int(n), version}) {
			changed = append(changed, id)
		}
	}
	return version, changed, nil
}

var _ registry.Grouping = (*Registry)(nil)
