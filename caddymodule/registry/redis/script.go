package redis

import (
	"context"
	"crypto/sha1" //nolint:gosec // as Redis does
	_ "embed"     // the scripts
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/redis/rueidis"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// The scripts of a bucket share what bucket.lua, rules.lua, records.lua and queue.lua have;
// the others stand alone. Each is called by its hash; see scripts.load.
var (
	//go:embed scripts/bucket.lua
	bucketSource string
	//go:embed scripts/rules.lua
	rulesSource string
	//go:embed scripts/records.lua
	recordsSource string
	//go:embed scripts/queue.lua
	queueSource string
	//go:embed scripts/admit.lua
	admitSource string
	//go:embed scripts/commit.lua
	commitSource string
	//go:embed scripts/settle.lua
	settleSource string
	//go:embed scripts/wait.lua
	waitSource string
	//go:embed scripts/list.lua
	listSource string
	//go:embed scripts/finish.lua
	finishSource string
	//go:embed scripts/renew.lua
	renewSource string
	//go:embed scripts/sync.lua
	syncSource string
	//go:embed scripts/scan.lua
	scanSource string
	//go:embed scripts/epoch.lua
	epochSource string
	//go:embed scripts/began.lua
	beganSource string
	//go:embed scripts/hello.lua
	helloSource string
	//go:embed scripts/goodbye.lua
	goodbyeSource string
	//go:embed scripts/deny.lua
	denySource string
	//go:embed scripts/secret.lua
	secretSource string
	//go:embed scripts/time.lua
	timeSource string
)

// scripts are those of one registry. A rueidis.Lua has no state but its hash.
type scripts struct {
	admit, commit, settle, wait, list, finish, renew, sync, scan *rueidis.Lua

	hello, goodbye, began, deny, secret, time *rueidis.Lua

	// sources are all of them as Redis reads them, and hashes what it knows them by.
	sources, hashes []string
}

func newScripts() scripts {
	var s scripts
	alone := func(source string) *rueidis.Lua {
		hash := sha1.Sum([]byte(source)) //nolint:gosec // it is Redis' name for the script
		s.sources, s.hashes = append(s.sources, source), append(s.hashes, hex.EncodeToString(hash[:]))
		return rueidis.NewLuaScript(source)
	}
	ofBucket := func(source string) *rueidis.Lua { return alone(wholeSource(source)) }
	s.admit, s.commit, s.settle = ofBucket(admitSource), ofBucket(commitSource), ofBucket(settleSource)
	s.wait, s.list, s.finish = ofBucket(waitSource), ofBucket(listSource), ofBucket(finishSource)
	s.renew, s.sync, s.scan = ofBucket(renewSource), ofBucket(syncSource), ofBucket(scanSource)
	s.hello, s.goodbye = alone(epochSource+helloSource), alone(goodbyeSource)
	s.began, s.deny = alone(epochSource+beganSource), alone(denySource)
	s.secret, s.time = alone(secretSource), alone(timeSource)
	return s
}

// load has all servers know the scripts. A call of an unknown one is sent once more, as a
// whole, and others may come between: the order in which they were made would be lost.
// Where a server does not load them, calls are made in that way.
func (s *scripts) load(ctx context.Context, client rueidis.Client) error {
	nodes := client.Nodes()
	errs := make(chan error, len(nodes))
	for _, server := range nodes {
		go func() { errs <- s.loadAt(ctx, server) }()
	}
	var all []error
	for range nodes {
		all = append(all, <-errs)
	}
	return errors.Join(all...)
}

// loadAt has one server know the scripts.
func (s *scripts) loadAt(ctx context.Context, server rueidis.Client) error {
	known, err := server.Do(ctx, server.B().ScriptExists().Sha1(s.hashes...).Build()).AsIntSlice()
	if err != nil {
		return err
	}
	var commands rueidis.Commands
	for i, source := range s.sources {
		if i >= len(known) || known[i] == 0 {
			commands = append(commands, server.B().ScriptLoad().Script(source).Build())
		}
	}
	for _, answer := range server.DoMulti(ctx, commands...) {
		if err := answer.Error(); err != nil {
			return err
		}
	}
	return nil
}

// wholeSource returns all of a script of a bucket. What is behind bucket.lua is a function,
// since that makes functions in less time: for each variable of its own that a function
// uses, Lua searches those that others use, and what is the outer function's it knows.
func wholeSource(source string) string {
	return bucketSource + "local function script()\n" + rulesSource + recordsSource + queueSource + source + "end\nreturn script()\n"
}

// args are the arguments of a script, in the order in which it reads them.
type args []string

func (a *args) add(s ...string) { *a = append(*a, s...) }
func (a *args) num(n int64)     { *a = append(*a, strconv.FormatInt(n, 10)) }
func (a *args) ticket(t ticket) { *a = append(*a, strconv.FormatUint(uint64(t), 10)) }
func (a *args) flag(is bool)    { *a = append(*a, map[bool]string{false: "0", true: "1"}[is]) }

// responses adds a list of streams by their responses.
func (a *args) responses(ids []registry.StreamID) {
	a.num(int64(len(ids)))
	for _, id := range ids {
		a.add(response(id))
	}
}

// ticket names an entry of a node. Later ones are higher; the last bits are random,
// so that sums of tickets tell sets of them apart.
type ticket uint64

// entryState is how an entry stands in Redis.
type entryState uint8

const (
	none entryState = iota
	reserved
	held
	kept
	left
	waiting
)

// reference is an entry as a script names it.
type reference struct {
	node   string
	ticket ticket
	state  entryState
	// holder is spelled; empty for this node's own.
	holder string
	// last is the sixth field, which is the script's own.
	last string
}

// answer is what a script of a bucket has answered.
type answer struct {
	// lost tells, of each bucket, that the node's lease had run out, or was lost.
	lost []bool
	// effects are what the node is told.
	effects [][]string
	out     []rueidis.RedisMessage
}

// errVersion tells that Redis has data of a newer version.
var errVersion = errors.New("redis has data of a newer version of sse_guard; upgrade this node, or give it another prefix")

const (
	versionError   = "SSEGUARDVERSION"
	cancelledError = "SSEGUARDCANCELLED"
	epochError     = "SSEGUARDEPOCH"
)

// exec runs a script of a bucket.
func exec(ctx context.Context, client rueidis.Client, script *rueidis.Lua, keys []string, a args) (*answer, error) {
	parts, err := script.Exec(ctx, client, keys, a).ToArray()
	if err != nil {
		return nil, explain(err)
	}
	if len(parts) != 3 {
		return nil, fmt.Errorf("a script answered with %d parts, not 3", len(parts))
	}
	ans := new(answer)
	lost, err := parts[0].AsIntSlice()
	if err != nil {
		return nil, fmt.Errorf("reading a script's answer: %w", err)
	}
	for _, l := range lost {
		ans.lost = append(ans.lost, l != 0)
	}
	effects, err := parts[1].ToArray()
	if err != nil {
		return nil, fmt.Errorf("reading a script's answer: %w", err)
	}
	for _, e := range effects {
		effect, err := e.AsStrSlice()
		if err != nil {
			return nil, fmt.Errorf("reading what a script tells: %w", err)
		}
		ans.effects = append(ans.effects, effect)
	}
	if ans.out, err = parts[2].ToArray(); err != nil {
		return nil, fmt.Errorf("reading a script's answer: %w", err)
	}
	return ans, nil
}

// says reports whether a script has refused with that error, and so has done nothing.
func says(err error, code string) bool {
	e, ok := rueidis.IsRedisErr(err)
	return ok && strings.HasPrefix(e.Error(), code)
}

// explain says what an error of Redis means to the operator.
func explain(err error) error {
	if says(err, versionError) {
		return fmt.Errorf("%w (%w)", errVersion, err)
	}
	return err
}

// references reads a list of entries.
func references(m rueidis.RedisMessage) ([]reference, error) {
	list, err := m.ToArray()
	if err != nil {
		return nil, fmt.Errorf("reading a list of entries: %w", err)
	}
	refs := make([]reference, len(list))
	for i := range list {
		if refs[i], err = readReference(list[i]); err != nil {
			return nil, err
		}
	}
	return refs, nil
}

func readReference(m rueidis.RedisMessage) (ref reference, err error) {
	fields, err := m.ToArray()
	if err != nil || len(fields) < 2 {
		return ref, fmt.Errorf("reading an entry of %d fields: %w", len(fields), err)
	}
	ref.node, err = fields[0].ToString()
	if err != nil {
		return ref, fmt.Errorf("reading whose entry it is: %w", err)
	}
	if fields[1].IsInt64() {
		n, _ := fields[1].AsInt64()
		ref.ticket = ticket(n)
	}
	if len(fields) >= 5 {
		state, _ := fields[2].AsInt64()
		ref.state = entryState(state)
		ref.holder, _ = fields[4].ToString()
	}
	if len(fields) >= 6 {
		if fields[5].IsInt64() {
			n, _ := fields[5].AsInt64()
			ref.last = strconv.FormatInt(n, 10)
		} else {
			ref.last, _ = fields[5].ToString()
		}
	}
	return ref, nil
}

// numbers reads the first n of a script's parts.
func numbers(out []rueidis.RedisMessage, n int) ([]int64, error) {
	if len(out) < n {
		return nil, fmt.Errorf("a script answered with %d values, not %d", len(out), n)
	}
	ns := make([]int64, n)
	for i := range ns {
		v, err := out[i].AsInt64()
		if err != nil {
			return nil, fmt.Errorf("reading a script's answer: %w", err)
		}
		ns[i] = v
	}
	return ns, nil
}
