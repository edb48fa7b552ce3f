package identity

import (
	"slices"
	"strings"
)

// Methods names the methods of the requests that count. Empty: every method but
// POST, PUT, PATCH and DELETE, with which clients do something besides opening a
// stream. Case does not matter: some backends take "get" for GET.
type Methods []string

// AnyMethod alone stands for every method.
const AnyMethod = "any"

var uncounted = Methods{"POST", "PUT", "PATCH", "DELETE"}

// Count reports whether requests of the method count.
func (m Methods) Count(method string) bool {
	switch {
	case len(m) == 0:
		return !uncounted.name(method)
	case strings.EqualFold(m[0], AnyMethod):
		return true
	default:
		return m.name(method)
	}
}

func (m Methods) name(method string) bool {
	return slices.ContainsFunc(m, func(name string) bool { return strings.EqualFold(name, method) })
}
