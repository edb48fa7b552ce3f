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

// guard is the configuration of the side's guard; nil: it has none.
func (s side) guard() object {
	if s == guarded {
		return object{"handler": "sse_guard"}
	}
	return nil
}
