package fights

import (
	"container/heap"
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// feuds are the keys that were lost lately. They are found by key, and by whose
// time is over first.
type feuds struct {
	limit int
	byKey map[registry.ID]*feud
	queue queue
}

func newFeuds(limit int) feuds {
	return feuds{limit: limit, byKey: make(map[registry.ID]*feud)}
}

// find returns the key's feud, nil if it has none.
func (fs *feuds) find(key registry.ID) *feud { return fs.byKey[key] }

// open returns the key's feud, a new one if it has none. If there are too many
// then, the first one is forgotten.
func (fs *feuds) open(key registry.ID, now time.Time) *feud {
	if f := fs.find(key); f != nil {
		return f
	}
	if len(fs.queue) >= fs.limit {
		fs.remove(fs.queue[0])
	}
	f := &feud{key: key, over: now}
	fs.byKey[key] = f
	heap.Push(&fs.queue, f)
	return f
}

// extend has f last until over, if that is later.
func (fs *feuds) extend(f *feud, over time.Time) {
	if over.After(f.over) {
		f.over = over
		heap.Fix(&fs.queue, f.index)
	}
}

// forget forgets the first feuds if they are over. It is called before one is
// opened, so two at once are enough for their number to fall.
func (fs *feuds) forget(now time.Time) {
	for range 2 {
		if len(fs.queue) == 0 || fs.queue[0].over.After(now) {
			return
		}
		fs.remove(fs.queue[0])
	}
}

func (fs *feuds) remove(f *feud) {
	heap.Remove(&fs.queue, f.index)
	delete(fs.byKey, f.key)
}

// queue is a heap of feuds. Its methods are for package heap.
type queue []*feud

func (q queue) Len() int           { return len(q) }
func (q queue) Less(i, j int) bool { return q[i].over.Before(q[j].over) }

func (q queue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].index, q[j].index = i, j
}

func (q *queue) Push(x any) {
	f := x.(*feud)
	f.index = len(*q)
	*q = append(*q, f)
}

func (q *queue) Pop() any {
	old := *q
	last := len(old) - 1
	f := old[last]
	old[last] = nil // or the array would keep it alive
	*q = old[:last]
	return f
}
