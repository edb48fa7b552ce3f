package contest

import (
	"container/heap"
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// windows are the keys that something happened to lately. They are found by key,
// and by whose window is over first.
type windows[T any] struct {
	limit int
	byKey map[registry.ID]*window[T]
	queue queue[T]
}

// window is how long a key is remembered, and what of it.
type window[T any] struct {
	key   registry.ID
	over  time.Time
	index int // in the queue
	of    T
}

func newWindows[T any](limit int) windows[T] {
	return windows[T]{limit: limit, byKey: make(map[registry.ID]*window[T])}
}

// find returns the key's window, nil if it has none.
func (ws *windows[T]) find(key registry.ID) *window[T] { return ws.byKey[key] }

// first returns the window that is over first, nil if there is none.
func (ws *windows[T]) first() *window[T] {
	if len(ws.queue) == 0 {
		return nil
	}
	return ws.queue[0]
}

// add opens a window for key, which has none. If there are too many then, the
// first one is forgotten and returned.
func (ws *windows[T]) add(key registry.ID, over time.Time) (added, forgotten *window[T]) {
	if len(ws.queue) >= ws.limit {
		forgotten = ws.first()
		ws.remove(forgotten)
	}
	added = &window[T]{key: key, over: over}
	ws.byKey[key] = added
	heap.Push(&ws.queue, added)
	return added, forgotten
}

// extend has w last until over, if that is later.
func (ws *windows[T]) extend(w *window[T], over time.Time) {
	if over.After(w.over) {
		w.over = over
		heap.Fix(&ws.queue, w.index)
	}
}

func (ws *windows[T]) remove(w *window[T]) {
	heap.Remove(&ws.queue, w.index)
	delete(ws.byKey, w.key)
}

// queue is a heap of windows. Its methods are for package heap.
type queue[T any] []*window[T]

func (q queue[T]) Len() int           { return len(q) }
func (q queue[T]) Less(i, j int) bool { return q[i].over.Before(q[j].over) }

func (q queue[T]) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].index, q[j].index = i, j
}

func (q *queue[T]) Push(x any) {
	w := x.(*window[T])
	w.index = len(*q)
	*q = append(*q, w)
}

func (q *queue[T]) Pop() any {
	old := *q
	last := len(old) - 1
	w := old[last]
	old[last] = nil // or the array would keep it alive
	*q = old[:last]
	return w
}
