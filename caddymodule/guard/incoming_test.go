package guard

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// arriving is a request whose body is yet to come.
func arriving(body io.ReadCloser) func(*client) {
	return func(c *client) { c.r.ProtoMajor, c.r.ContentLength, c.r.Body = 1, 5, body }
}

// A backend that does not look at the body answers before it is there, but the server
// keeps the header back: the newcomer has nothing for which the older stream could end.
func TestTakeover_NotForARequestThatIsNotAllThere_ThoughItIsAnswered(t *testing.T) {
	for name, test := range map[string]struct {
		edit func(*client)
		then func(newer *client, rest *io.PipeWriter)
		ends bool // the older stream, in the end
	}{
		"the rest comes":    {nil, func(_ *client, rest *io.PipeWriter) { rest.Close() }, true},
		"more than is read": {nil, func(_ *client, rest *io.PipeWriter) { _, _ = io.WriteString(rest, strings.Repeat("x", 256<<10+1)) }, true},
		"the client leaves": {nil, func(c *client, rest *io.PipeWriter) { c.leave(); rest.CloseWithError(io.ErrUnexpectedEOF) }, false},
		"nothing":           {nil, func(*client, *io.PipeWriter) {}, false},
		"by QUERY":          {method("QUERY"), func(_ *client, rest *io.PipeWriter) { rest.Close() }, true},
	} {
		t.Run(name, func(t *testing.T) {
			atSite(t, func(t *testing.T, s *site) {
				older := s.open(token("ann"))
				body, rest := io.Pipe()
				edits := []func(*client){token("ann"), arriving(body)}
				if test.edit != nil {
					edits = append(edits, test.edit)
				}
				newer := s.open(edits...)
				require.Equal(t, 2, s.backend.asked())
				require.False(t, older.over())
				go test.then(newer, rest)
				s.settle()
				require.Equal(t, test.ends, older.over())
				if test.ends {
					require.Equal(t, hello, newer.text())
				} else {
					require.Equal(t, 1, s.holders(0))
				}
				rest.CloseWithError(errors.New("the test is over"))
			})
		})
	}
}

func TestTakeover_ForARequestThatIsAnsweredBeforeItIsAllThere(t *testing.T) {
	for name, edit := range map[string]func(*client){
		"over HTTP/2":           func(c *client) { c.r.ProtoMajor = 2 },
		"of a full-duplex site": func(c *client) { c.duplex = true },
	} {
		t.Run(name, func(t *testing.T) {
			atSite(t, func(t *testing.T, s *site) {
				older := s.open(token("ann"))
				body, rest := io.Pipe()
				newer := s.open(token("ann"), arriving(body), edit)
				require.True(t, older.ends())
				require.Equal(t, hello, newer.text())
				rest.Close()
			})
		})
	}
}

// The transport of a handler may still be sending the body when the answer comes.
func TestTakeover_ABodyThatTheHandlersReadToo(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		older := s.open(token("ann"))
		body, rest := io.Pipe()
		read := make(chan string, 1)
		s.backend.answer = func(w http.ResponseWriter, r *http.Request) error {
			go func() {
				all, _ := io.ReadAll(r.Body)
				read <- string(all)
			}()
			return s.backend.stream(w, r)
		}
		newer := s.open(token("ann"), arriving(body))
		require.False(t, older.over())
		go func() {
			_, _ = io.WriteString(rest, "a")
			rest.Close()
		}()
		s.settle()
		require.True(t, older.ends())
		require.Equal(t, hello, newer.text())
		require.Contains(t, []string{"a", ""}, <-read)
	})
}
