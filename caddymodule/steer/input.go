package steer

import (
	"cmp"
	"encoding/json"
	"errors"
	"io"
	"iter"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	// mostBody is how many bytes a body has at most: it has 64 KiB of data, which JSON
	// may spell six times as long.
	mostBody = 512 << 10
	// usualLimit is the limit of a page where none is given, and mostLimit the highest.
	usualLimit = 100
	mostLimit  = 1000
)

func names[T any](m map[string]T) iter.Seq[string] { return maps.Keys(m) }

// readBody reads the JSON of a body.
func readBody(w http.ResponseWriter, r *http.Request, to any) error {
	// No page can send this type to another site without asking first.
	mediaType, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || mediaType != "application/json" {
		return &problem{
			Status: http.StatusUnsupportedMediaType, Title: "The body is not JSON",
			Detail: "Send it with the header field Content-Type: application/json.",
		}
	}
	err = decode(http.MaxBytesReader(w, r.Body, mostBody), to)
	if tooLarge, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return &problem{
			Status: http.StatusRequestEntityTooLarge, Title: "The body is too large",
			Detail: "It has at most " + strconv.FormatInt(tooLarge.Limit, 10) + " bytes.",
		}
	}
	return err
}

// decode reads one JSON object with no fields that are not known, and nothing behind it.
// Its errors name fields and types, and nothing else of what is given.
func decode(r io.Reader, to any) error {
	d := json.NewDecoder(r)
	d.DisallowUnknownFields()
	err := d.Decode(to)
	if err == nil {
		if _, err = d.Token(); errors.Is(err, io.EOF) {
			return nil
		}
		if _, tooLarge := errors.AsType[*http.MaxBytesError](err); !tooLarge {
			return badInput("body: something follows the object")
		}
		return err
	}
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		kind, _, _ := strings.Cut(wrong.Value, " ")
		return badInput("body: %s: a JSON %s is not allowed", cmp.Or(strings.TrimPrefix(wrong.Field, "Selected."), "all of it"), kind)
	}
	if _, ok := errors.AsType[*json.SyntaxError](err); ok || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return badInput("body: it is not a JSON object")
	}
	if field, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
		return badInput("body: there is no field %.60s", field)
	}
	return err // a problem of what has a decoder of its own
}

// listed is what a query asks for.
type listed struct {
	selection
	limit  int
	cursor string
}

// readQuery reads what GET streams is asked.
func readQuery(raw string, now time.Time) (q listed, err error) {
	values, err := url.ParseQuery(raw)
	if err != nil {
		return q, badInput("query: it cannot be read")
	}
	q.limit = usualLimit
	var s Select
	texts := map[string]*string{
		"id": &s.ID, "zone": &s.Zone, "state": &s.State, "key": &s.Key, "token": &s.Token, "client": &s.Client,
		"subject": &s.Subject, "older_than": &s.OlderThan, "cursor": &q.cursor,
	}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		if len(values[name]) > 1 {
			return q, givenTwice(name, len(values[name]))
		}
		value := values[name][0]
		if label, ok := strings.CutPrefix(name, "label."); ok {
			if s.Labels == nil {
				s.Labels = make(map[string]string)
			}
			s.Labels[label] = value
			continue
		}
		if name == "limit" {
			if q.limit, err = strconv.Atoi(value); err != nil || q.limit < 1 || q.limit > mostLimit {
				return q, badInput("limit: %.20q is not allowed; it is 1 to %d", value, mostLimit)
			}
			continue
		}
		to, ok := texts[name]
		switch {
		case !ok:
			return q, badInput("%.60s is not known; there are: %s, label.<name> and limit",
				name, strings.Join(slices.Sorted(names(texts)), ", "))
		case value == "" && name != "cursor": // that of the first page
			return q, emptyFilter(name)
		}
		*to = value
	}
	if q.selection, err = s.selection(now); err != nil {
		return q, err
	}
	q.everything()
	return q, nil
}

func givenTwice(name string, times int) *problem {
	return badInput("%.60s: it is given %d times; once is allowed", name, times)
}

// noQuery is for endpoints that take no query but the named fields, and returns these.
func noQuery(r *http.Request, known ...string) (url.Values, error) {
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, badInput("query: it cannot be read")
	}
	for name, given := range values {
		switch {
		case !slices.Contains(known, name):
			return nil, badInput("%.60s is not known; there are: %s", name, cmp.Or(strings.Join(known, ", "), "none"))
		case len(given) > 1:
			return nil, givenTwice(name, len(given))
		case given[0] == "":
			return nil, emptyFilter(name)
		}
	}
	return values, nil
}

// Selected is what the bodies of POST end and POST notify have in common.
type Selected struct {
	Select Select `json:"select"`
	// All stands beside an empty Select, and names all streams.
	All bool `json:"all"`
}

// selection is what the body names.
func (b *Selected) selection(now time.Time) (selection, error) {
	sel, err := b.Select.selection(now)
	switch {
	case err != nil:
		return sel, err
	case sel.isZero() && !b.All:
		return sel, badInput(`select: it names nobody; to name all streams, write "all": true beside it`)
	case !sel.isZero() && b.All:
		return sel, badInput(`all: it stands beside a select that is empty; leave one of them out`)
	}
	sel.everything()
	return sel, nil
}
