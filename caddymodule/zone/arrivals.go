package zone

import (
	"sync"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// Arrivals are the requests that may yet become streams. A logout concerns them
// too: the backend authorised them before, and answers after.
type Arrivals struct {
	// mu guards first and the links of all who are in the list.
	mu    sync.Mutex
	first *Arrival
}

// Arrival is a request's place among the Arrivals. It is part of the request, so
// that arriving allocates nothing. The zero Arrival has not arrived.
type Arrival struct {
	who Arriving
	// link is what points to this one, nil if it is not in the list.
	link **Arrival
	next *Arrival
}

// Arriving is who sends a request. It is asked by others than the request's own
// goroutine, when somebody logs out.
type Arriving interface {
	// Who returns the hashes of the request's token and client id.
	Who() (token, client registry.ID)
	// LogOut says that the request is not welcome any more.
	LogOut()
}

// Enter counts a, of who, among the arrivals until it leaves.
func (as *Arrivals) Enter(a *Arrival, who Arriving) {
	as.mu.Lock()
	defer as.mu.Unlock()
	a.who, a.link, a.next = who, &as.first, as.first
	if a.next != nil {
		a.next.link = &a.next
	}
	as.first = a
}

// Leave may be called any number of times, also of who has not arrived.
func (as *Arrivals) Leave(a *Arrival) {
	if a.who == nil {
		return // only the request itself enters and leaves
	}
	as.mu.Lock()
	defer as.mu.Unlock()
	*a.link = a.next
	if a.next != nil {
		a.next.link = a.link
	}
	*a = Arrival{}
}

// Has reports whether a request of client is under way.
func (as *Arrivals) Has(client registry.ID) bool {
	for _, who := range as.all() {
		if _, c := who.Who(); c == client {
			return true
		}
	}
	return false
}

// LogOut logs out those of token, or, if it is zero, of client, and returns how many
// they are.
func (as *Arrivals) LogOut(token, client registry.ID) (n int) {
	for _, who := range as.all() {
		t, c := who.Who()
		if t.IsZero() || !token.IsZero() && t != token || !client.IsZero() && c != client {
			continue
		}
		who.LogOut()
		n++
	}
	return n
}

// all lists those who are under way, which are few: a logout can afford to ask all
// of them, and an arrival no index.
func (as *Arrivals) all() (all []Arriving) {
	as.mu.Lock()
	defer as.mu.Unlock()
	for a := as.first; a != nil; a = a.next {
		all = append(all, a.who)
	}
	return all
}
