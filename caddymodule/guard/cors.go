package guard

import (
	"hash/maphash"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/internal/due"
)

const allowOrigin = "Access-Control-Allow-Origin"

// crossOrigin reports whether the page that asks is of another origin than
// the one it asks, so that it reads only answers that CORS allows.
func (s *sender) crossOrigin() bool {
	if s.origin == "" {
		return false
	}
	u, err := url.Parse(s.origin)
	return err != nil || !strings.EqualFold(u.Host, s.r.Host)
}

// canRead reports whether the page that asks can read a refusal that is given now,
// with the header of the response as it is: what it cannot read makes it ask for
// ever.
func (s *sender) canRead(header http.Header) bool {
	return !s.crossOrigin() || len(header[allowOrigin]) > 0 || s.guard.cors.knows(s.page())
}

// noteCORS remembers with which fields the upstream lets the page read its answer.
func (s *sender) noteCORS(status int, header http.Header) {
	if s.origin != "" {
		s.guard.cors.note(s.page(), status, header)
	}
}

// letRead has the page read what the guard answers in place of the upstream.
func (s *sender) letRead(header http.Header) {
	if s.origin != "" {
		s.guard.cors.add(s.page(), header)
	}
}

// corsHeader picks the fields that let a cross-origin page read a response.
func corsHeader(h http.Header) http.Header {
	kept := http.Header{}
	for name, values := range h {
		if name == "Vary" || strings.HasPrefix(name, "Access-Control-") {
			kept[name] = values
		}
	}
	return kept
}

const (
	// mostCORS is how many pages, by their origin and what they ask for, a guard
	// remembers the fields for.
	mostCORS = 1000
	// mostCORSBytes is how long the fields of one may be, which an upstream may have
	// made of what the request says.
	mostCORSBytes = 1 << 10
)

// corsPage is who asks for what: a page's origin, and the host and path it asks for.
type corsPage struct{ origin, host, path string }

func (s *sender) page() corsPage {
	return corsPage{s.origin, strings.ToLower(s.r.Host), s.env.Path()}
}

// corsMemory remembers with which fields the upstream last let pages of an origin
// read its answers at a host and path, those to preflights included. The pages that asked
// last are remembered.
type corsMemory struct {
	seed maphash.Seed // of the keys, so that nobody can choose two that are the same

	// mu guards pages. Nothing but the map is called with it held.
	mu    sync.Mutex
	pages *due.Map[uint64, corsFields]
}

// corsFields are the values of corsNames. They are not changed.
type corsFields [4][]string

var corsNames = [...]string{allowOrigin, "Access-Control-Allow-Credentials", "Access-Control-Expose-Headers", "Vary"}

// varyField is the index of Vary, which others have values of too.
const varyField = 3

func newCORSMemory() *corsMemory {
	return &corsMemory{seed: maphash.MakeSeed(), pages: due.NewMap[uint64, corsFields](mostCORS)}
}

func (m *corsMemory) key(p corsPage) uint64 { return maphash.Comparable(m.seed, p) }

// note takes down what the upstream answers with that status and header. An error
// often lacks the fields that all else has: it takes nothing back.
func (m *corsMemory) note(p corsPage, status int, header http.Header) {
	var fields corsFields
	size := 0
	if len(header[allowOrigin]) > 0 {
		for i, name := range corsNames {
			fields[i] = header[name]
			for _, value := range fields[i] {
				size += len(value)
			}
		}
	}
	key := m.key(p)
	m.mu.Lock()
	defer m.mu.Unlock()
	page := m.pages.Find(key)
	switch {
	case size > 0 && size <= mostCORSBytes:
		if page == nil {
			page, _ = m.pages.Add(key, time.Now())
		} else {
			m.pages.Extend(page, time.Now())
		}
		page.Value.replace(fields)
	case page != nil && (size > 0 || status >= 200 && status < 300):
		m.pages.Remove(page)
	}
}

// knows reports whether there are fields for such a page.
func (m *corsMemory) knows(p corsPage) bool {
	key := m.key(p)
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.pages.Find(key) != nil
}

// add adds the fields for such a page to a header, unless somebody else has said who
// may read it.
func (m *corsMemory) add(p corsPage, header http.Header) {
	if fields := m.of(m.key(p)); fields != nil {
		fields.addTo(header)
	}
}

// of returns the fields of a page, nil if there are none.
func (m *corsMemory) of(key uint64) *corsFields {
	m.mu.Lock()
	defer m.mu.Unlock()
	page := m.pages.Find(key)
	if page == nil {
		return nil
	}
	m.pages.Extend(page, time.Now())
	fields := page.Value
	return &fields
}

// replace makes f what other is, whose values may be changed later.
func (f *corsFields) replace(other corsFields) {
	for i, values := range other {
		if !slices.Equal(f[i], values) {
			f[i] = slices.Clone(values)
		}
	}
}

func (f *corsFields) addTo(header http.Header) {
	others := len(header[allowOrigin]) > 0
	for i, values := range f {
		if i != varyField && !others && len(values) > 0 {
			header[corsNames[i]] = slices.Clone(values)
		}
	}
	for _, value := range f[varyField] {
		if !slices.Contains(header["Vary"], value) {
			header["Vary"] = append(slices.Clip(header["Vary"]), value)
		}
	}
}
