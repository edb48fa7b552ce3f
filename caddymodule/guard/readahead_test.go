package guard

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// openEnded is a GET over HTTP/3, whose header does not say whether there is a body.
func openEnded(body io.ReadCloser) func(*client) {
	return func(c *client) { c.r.ProtoMajor, c.r.ContentLength, c.r.Body = 3, -1, body }
}

func TestOpenEnded_WithoutABodyIsDecidedEarly(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		s.open(token("ann"), named("older"))
		newer := s.open(token("ann"), named("newer"), openEnded(io.NopCloser(strings.NewReader(""))))
		require.Equal(t, []string{"older in", "older out", "newer in"}, s.backend.read())
		require.Equal(t, hello, newer.text())
		require.Zero(t, s.backend.last().ContentLength, "the backend is told, too")
	})
}

func TestOpenEnded_WithABodyIsDecidedAtTheHeader(t *testing.T) {
	failed := errors.New("reset")
	for name, test := range map[string]struct {
		write func(w *io.PipeWriter)
		body  string
		err   error
	}{
		"at once":    {func(w *io.PipeWriter) { _, _ = io.WriteString(w, "abc"); w.Close() }, "abc", nil},
		"late":       {func(w *io.PipeWriter) { <-time.After(time.Minute); _, _ = io.WriteString(w, "abc"); w.Close() }, "abc", nil},
		"late, none": {func(w *io.PipeWriter) { <-time.After(time.Minute); w.Close() }, "", nil},
		"of a byte":  {func(w *io.PipeWriter) { _, _ = io.WriteString(w, "a"); w.Close() }, "a", nil},
		"broken":     {func(w *io.PipeWriter) { w.CloseWithError(failed) }, "", failed},
		"cut":        {func(w *io.PipeWriter) { _, _ = io.WriteString(w, "a"); w.CloseWithError(failed) }, "a", failed},
	} {
		t.Run(name, func(t *testing.T) {
			atSite(t, func(t *testing.T, s *site) {
				older := s.open(token("ann"))
				var body []byte
				var err error
				s.backend.answer = func(w http.ResponseWriter, r *http.Request) error {
					require.False(t, older.over())
					body, err = io.ReadAll(r.Body)
					return s.backend.stream(w, r)
				}
				r, w := io.Pipe()
				newer := s.send(token("ann"), openEnded(r))
				go test.write(w)
				s.pass(2 * time.Minute)
				require.Equal(t, test.body, string(body))
				require.Equal(t, test.err, err)
				require.Equal(t, hello, newer.text())
				require.True(t, older.ends())
			})
		})
	}
}

// It is waited for no longer than a moment, and what waits for the rest ends with the
// request.
func TestOpenEnded_WithoutAnEndEndsNobody(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		older := s.open(token("ann"))
		s.backend.answer = answering(http.StatusOK, "application/json", "{}")
		began := time.Now()
		r, w := io.Pipe()
		c := s.send(token("ann"), openEnded(r))
		<-c.done
		require.Equal(t, bodyPatience, time.Since(began))
		require.Equal(t, "{}", c.text())
		require.False(t, older.over())
		_, err := w.Write([]byte("a"))
		require.ErrorIs(t, err, io.ErrClosedPipe)
	})
}

func TestOpenEnded_IsReadOnlyWhereThatMatters(t *testing.T) {
	for name, test := range map[string]struct {
		configure func(*Config)
		edit      func(*client)
	}{
		"at the header":     {onlyAtHeader, func(*client) {}},
		"not asking":        {func(*Config) {}, notAsking},
		"a POST":            {anyMethod, method(http.MethodPost)},
		"100-continue":      {func(*Config) {}, field("Expect", "100-continue")},
		"another protocol":  {func(*Config) {}, func(c *client) { c.r.ProtoMajor = 2 }},
		"an announced body": {func(*Config) {}, func(c *client) { c.r.ContentLength = 3 }},
	} {
		t.Run(name, func(t *testing.T) {
			atSite(t, func(t *testing.T, s *site) {
				body := io.NopCloser(strings.NewReader("abc"))
				s.open(token("ann"), openEnded(body), test.edit)
				require.Equal(t, body, s.backend.last().Body)
			}, test.configure)
		})
	}
}
