package check

import (
	"bytes"
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// judgeNoAnswer is for a request whose answer has no header yet.
func (w *watch) judgeNoAnswer(s *stream) *Report {
	r := &Report{Verdict: Unknown, Code: CodeNoAnswer}
	r.Summary = fmt.Sprintf("%s got no answer within %s, not even its header.", streamNo(s), brief(w.config.AnswerTimeout))
	r.Hints = []string{"The backend sends the header with its first event, and has none yet; or it hangs; or something between holds the answer back (a buffer)."}
	if s.number > 1 {
		r.Hints = append(r.Hints, "The backend serves one stream at a time.")
	}
	return r
}

// judgeError is for a request that got no answer at all.
func (w *watch) judgeError(c *connect) *Report {
	r := &Report{Verdict: Unknown, Code: CodeUnreachable, Summary: w.host() + ": " + plainly(c.err) + "."}
	switch {
	case isTLS(c.err):
		r.Code = CodeTLS
		r.Hints = []string{
			"A certificate of Caddy's own authority, as for localhost, is trusted where caddy trust was run; --insecure accepts any certificate.",
			"Is the host name in the URL one that the site has? Is it http:// there?",
		}
	case len(w.streams) > 1 || len(w.streams[0].connects) > 1:
		r.Hints = []string{"There was an answer before: was the server stopped or reloaded meanwhile?"}
	default:
		r.Hints = []string{"Does Caddy run, and listen there? Is the port right?"}
	}
	return r
}

func (w *watch) host() string {
	u, err := url.Parse(w.config.URL)
	if err != nil {
		return "the server"
	}
	return u.Host
}

// judgeAnswer is for a request that was answered by something else than a stream.
func (w *watch) judgeAnswer(s *stream, c *connect) *Report {
	a := c.answer
	r := &Report{Verdict: Unknown}
	guard := toldBy(a.body)
	whose := "the backend, or something before it, answers"
	if guard != nil {
		whose = "the guard answers"
	}
	said := ""
	if guard != nil && guard.Detail != "" {
		said = " It says: " + quoted(clean(guard.Detail))
	}
	answers := fmt.Sprintf("%s %s to %s.%s", whose, a, streamNo(s), said)
	switch {
	case guard != nil && a.status == http.StatusBadRequest:
		r.Code = CodeTwoTokens
		r.Summary = "the request has two different tokens, which the guard refuses." + said
		r.Hints = []string{"Give the check one of them; or name the one that counts with the guard's option token."}
	case guard == nil && a.status == http.StatusBadRequest && bytes.Contains(a.body, []byte("HTTP request to an HTTPS server")):
		r.Code = CodeTLS
		r.Summary = "the server speaks HTTPS there: the URL should begin with https://."
	case a.status == http.StatusUnauthorized:
		r.Code = CodeUnauthorized
		r.Summary = answers
		r.Hints = []string{"Give the check a good token: --token sends it as Authorization: Bearer, --cookie as a cookie, and the URL may have it."}
		if w.config.carriesToken() != "" {
			r.Hints = []string{"The token is not good, or not where it is looked for (" + w.config.carriesToken() + ")."}
		}
	case a.status == http.StatusForbidden:
		r.Code = CodeForbidden
		r.Summary = answers
	case guard != nil && a.status == http.StatusServiceUnavailable,
		a.status == http.StatusBadGateway, a.status == http.StatusServiceUnavailable, a.status == http.StatusGatewayTimeout:
		r.Code = CodeUnavailable
		r.Summary = answers
		r.Hints = []string{"Does the backend run?"}
	case s.number > 1 && a.status >= http.StatusBadRequest:
		// The first one got a stream.
		r.Verdict, r.Code = NotGuarded, CodeRefusedByBackend
		r.Summary = answers + " No guard has ended the older one for it."
		r.Hints = []string{"The backend counts streams itself. With a guard before it, and takeover auto, the older stream is gone before it sees the newer one."}
	case a.status >= 300 && a.status < 400 || a.url != "":
		r.Code = CodeRedirect
		r.Summary = "the request is redirected to " + w.target(a) + ", which is no event stream."
		r.Hints = []string{"That is what login pages do: give the check the token or cookie of somebody who is logged in (--token, --cookie)."}
	default:
		r.Code = CodeNoStream
		r.Summary = answers + " That is no event stream (200, " + eventStream + ")."
		r.Hints = []string{"Is that the path of the stream? Does it need another --method, or a --header?"}
		if bytes.Contains(bytes.ToLower(a.body), []byte("<form")) {
			r.Hints = append(r.Hints, "It may be a login page: give the check the token or cookie of somebody who is logged in.")
		}
		if strings.HasPrefix(a.contentType, eventStream) {
			r.Hints = append(r.Hints, "An EventSource takes no other status than 200.")
		}
	}
	return r
}

// target is where a redirect leads.
func (w *watch) target(a *answer) string {
	if a.url != "" {
		return a.url
	}
	to, err := url.Parse(a.header.Get("Location"))
	if err != nil {
		return "somewhere that cannot be read"
	}
	if base, err := url.Parse(w.config.URL); err == nil {
		to = base.ResolveReference(to)
	}
	return clean(bare(to))
}
