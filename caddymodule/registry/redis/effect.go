package redis

import (
	"encoding/binary"
	"errors"
	"strconv"

	"go.uber.org/zap"

	"github.com/sse-guard/sse-guard/caddymodule/reason"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// effect does what a script, on whatever node, has told this one. To be told twice does
// no harm.
func (r *Registry) effect(e []string) {
	switch {
	case len(e) == 2+endingWords && e[0] == "end":
		r.takenAway(parseTicket(e[1]), r.ending(e[2:]))
	case len(e) == 2 && e[0] == "yielded":
		r.takenAway(parseTicket(e[1]), registry.Ending{})
	case len(e) == 2 && e[0] == "told":
		t := parseTicket(e[1])
		b := t.bucket(r)
		b.mu.Lock()
		w := b.waiters[t]
		b.mu.Unlock()
		if w != nil {
			w.tell()
		}
	case len(e) == 3 && e[0] == "departed":
		r.departures.departed(foreign{e[1], parseTicket(e[2])})
	case len(e) == 2 && e[0] == "taken" && len(e[1]) == len(registry.ID{}):
		r.taken.tell(registry.ID([]byte(e[1])))
	default:
		r.options.Logger.Warn("another node, or Redis, says what this one does not know; are all nodes of one version?",
			zap.String("zone", r.zone), zap.Int("words", len(e)))
	}
}

// takenAway ends the stream of a place that Redis has given to others.
func (r *Registry) takenAway(t ticket, e registry.Ending) {
	b := t.bucket(r)
	b.mu.Lock()
	p := b.places[t]
	if p == nil {
		if _, underWay := b.pending[t]; underWay {
			b.pending[t] = &e
		}
		b.mu.Unlock()
		return
	}
	p.known = left
	if p.departed { // the upstream is gone, and Redis keeps the place for this node to know
		b.enqueue(op{kind: opDeparted, place: p})
	}
	b.mu.Unlock()
	p.end(e, false)
}

// endingWords is of how many words the scripts make an ending.
const endingWords = 5

// ending reads one as the scripts spell it: see endFor in scripts/records.lua. It is zero
// where there is none.
func (r *Registry) ending(words []string) (e registry.Ending) {
	if len(words) != endingWords {
		return e
	}
	e = registry.Ending{Reason: reason.Reason(words[0]), By: words[1], Message: words[4]}
	if len(words[2]) == len(e.For) {
		e.For = registry.StreamID([]byte(words[2]))
	}
	if asked, err := strconv.ParseInt(words[3], 10, 64); err == nil {
		e.Asked = r.link.moment(asked)
	}
	return e
}

// spellEnding gives a script the ending to read.
func (r *Registry) spellEnding(a *args, e registry.Ending) {
	forID := ""
	if !e.For.IsZero() {
		forID = string(e.For[:])
	}
	a.add(string(e.Reason), e.By, forID)
	a.num(r.link.age(e.Asked))
	a.add(e.Message)
}

func parseTicket(s string) ticket {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 0 // nobody has it
	}
	return ticket(n)
}

// spellEffect spells one as save in scripts/bucket.lua does.
func spellEffect(words ...string) string {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(words)))
	for _, w := range words {
		b = append(binary.BigEndian.AppendUint32(b, uint32(len(w))), w...)
	}
	return string(b)
}

var errMessage = errors.New("a message of another node cannot be read")

// parseEffects reads what save in scripts/bucket.lua has published.
func parseEffects(s string) (effects [][]string, err error) {
	number := func() (n int) {
		if len(s) < 4 {
			err = errMessage
			return 0
		}
		n = int(binary.BigEndian.Uint32([]byte(s)))
		s = s[4:]
		return n
	}
	for s != "" {
		var effect []string
		for range min(number(), 16) {
			n := number()
			if err != nil || n > len(s) {
				return nil, errMessage
			}
			effect = append(effect, s[:n])
			s = s[n:]
		}
		if err != nil {
			return nil, err
		}
		effects = append(effects, effect)
	}
	return effects, nil
}
