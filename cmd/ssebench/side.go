package main

// side is one of the two that are compared.
type side int

const (
	plain   side = iota // reverse_proxy
	guarded             // sse_guard, then reverse_proxy
)

// inTurn is the order in which the sides are measured.
var inTurn = []side{plain, guarded}

func (s side) String() string {
	if s == guarded {
		return "guarded"
	}
	return "plain"
}
