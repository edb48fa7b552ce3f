package guard

import (
	"hash/maphash"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/identity"
	"github.com/sse-guard/sse-guard/caddymodule/internal/due"
)

const (
	allowOrigin      = "Access-Control-Allow-Origin"
	allowCredentials = "Access-Control-Allow-Credentials"
)

// Origins are those of pages that can read the answers of a guard's streams although
// the guard does not see it: whoever lets them comes behind it.
type Origins struct {
	Any bool
	// Named are origins as browsers write them: a scheme and a host in lower case, and
	// the port unless it is the scheme's own.
	Named []string
}

func (o Origins) has(origin string) bool {
	return o.Any || origin != "" && slices.Contains(o.Named, origin)
}

// letOutside reports whether handlers further out let the reader read: the option says
// so, or they did when the page was last answered with a stream, or in place of one.
func (s *sender) letOutside(reader identity.Reader) bool {
	return !reader.Nobody && (s.guard.AllowOrigin.has(reader.Origin) || s.guard.sent.lets(s.page(), reader))
}

// canRead reports whether the page that asks can read what is answered now, with the
// header of the response as it is: a refusal that it cannot read makes it ask for ever.
// Where nobody reads the answer, nobody does.
func (s *sender) canRead(header http.Header, reader identity.Reader) bool {
	return reader.Nobody || reader.Reads(header) || s.letOutside(reader) || s.guard.cors.lets(s.page(), reader)
}

// yields decides whether the stream yields, since nobody can read it: any site could
// ask for it in the user's name. Before the upstream has answered, that is known only
// of a request whose answer nobody reads in any case, or that is readable.
func (q *request) yields(header http.Header) {
	q.yielding = q.reader.Nobody
	if header != nil {
		q.unseen = !q.reader.Nobody && !q.reader.Reads(header)
		q.yielding = q.reader.Nobody || q.unseen && !q.letOutside(q.reader)
	}
	if q.holder != nil {
		q.holder.Yields = q.yielding
	}
}

// noteCORS remembers with which fields the upstream lets the page read its answer.
func (s *sender) noteCORS(status int, header http.Header) {
	if s.reader.Origin != "" {
		s.guard.cors.note(s.page(), status, header)
	}
}

// noteSent remembers whether the page can read what it is answered, now that the header
// is out: deferred header directives have set their fields only then. The stream itself
// yields, if it did before, but the page's next one does not.
func (q *request) noteSent(header http.Header) {
	if !q.unseen {
		return
	}
	plain := q.reader
	plain.Credentials = false // whether it has any is asked when that matters
	if !plain.Reads(header) {
		header = nil // an attacker's page is not to take the place of others
	}
	q.guard.sent.note(q.page(), http.StatusOK, header)
	if q.yielding && q.tracked() {
		q.guard.tellOrigin(q.reader, q.reader.Reads(header))
	}
}

// letRead has the page read what the guard answers in place of the upstream.
func (s *sender) letRead(header http.Header) {
	if s.reader.Origin != "" {
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
	return corsPage{s.reader.Origin, strings.ToLower(s.r.Host), s.guard.Identity.Path(s.env.Path())}
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

var corsNames = [...]string{allowOrigin, allowCredentials, "Access-Control-Expose-Headers", "Vary"}

const (
	originField      = 0
	credentialsField = 1
	varyField        = 3 // others have values of it too
)

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

// lets reports whether the fields for such a page let the reader read.
func (m *corsMemory) lets(p corsPage, reader identity.Reader) bool {
	key := m.key(p)
	m.mu.Lock()
	defer m.mu.Unlock()
	page := m.pages.Find(key)
	return page != nil && reader.ReadsIf(page.Value[originField], page.Value[credentialsField])
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
