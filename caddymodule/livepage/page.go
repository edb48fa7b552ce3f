// Package livepage serves a page on which an administrator sees the streams as they are,
// and ends or notifies them. The page is told by an event stream of its own; what it
// does is done by package steer.
//
// Who may see the page, the server says that it is a part of.
package livepage

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"path"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/steer"
)

//go:embed page
var files embed.FS

// policy lets the page load its own files and talk to its own origin, and nothing else.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; " +
	"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// mediaTypes names the types of the embedded files. The system's own table is not asked:
// some systems have "text/plain" for a script.
var mediaTypes = map[string]string{
	".css":  "text/css; charset=utf-8",
	".html": "text/html; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".svg":  "image/svg+xml",
}

// Page serves the page, its files and its feed, where it is mounted.
type Page struct {
	board *Board
	stop  chan struct{} // closed: no feed goes on
	once  sync.Once     // closes stop
	// mount is nil until Begin.
	mount atomic.Pointer[Mount]
}

// Mount is where a Page is, and who may reach it.
type Mount struct {
	// Paths are those of the page, which end with a slash; nil: it is at all that do.
	Paths []string
	// AnyHost lets requests in whatever host they are made to. Else it is one of Hosts, an
	// address or localhost: by another name, a page of an attacker's own could ask, whose
	// name leads to this server by now (DNS rebinding).
	AnyHost bool
	Hosts   []string
}

// New returns a Page that shows what is on the board.
func New(board *Board) *Page { return &Page{board: board, stop: make(chan struct{})} }

// Begin has the page answer. It is called once all zones are open.
func (p *Page) Begin(at Mount) {
	p.mount.Store(&at)
	p.board.Join()
}

// Close ends the feeds. Their pages come back by themselves.
func (p *Page) Close() { p.once.Do(func() { close(p.stop) }) }

// ServeHTTP implements http.Handler, for a server that has rewritten no path.
func (p *Page) ServeHTTP(w http.ResponseWriter, r *http.Request) { p.Serve(w, r, r.URL.Path) }

// Serve answers a request. Its path says what is asked for. The browser's path may be
// another one, if the path was rewritten.
func (p *Page) Serve(w http.ResponseWriter, r *http.Request, browserPath string) {
	h := w.Header()
	h.Set("Content-Security-Policy", policy)
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	at := p.mount.Load()
	if at == nil {
		p.board.api.Refuse(w, http.StatusServiceUnavailable, "The server is starting", "Try again.")
		return
	}
	if !at.isFor(r.Host) {
		p.board.api.Refuse(w, http.StatusForbidden, "The page is not for this host",
			"It is reached by an address, or by names that the configuration has: those of its site, or of its option hosts.")
		return
	}
	switch name, beside := at.asked(r.URL.Path); {
	case !beside:
		p.board.api.Refuse(w, http.StatusNotFound, "There is no such file", "The page is at "+cmp.Or(strings.Join(at.Paths, ", "), "paths that end with a slash")+".")
	case name == ".", name == "" && !strings.HasSuffix(browserPath, "/"): // of which all was taken away
		p.redirect(w, r, browserPath)
	case name == "feed":
		p.serveFeed(w, r)
	case name == "end" || name == "notify":
		p.steer(w, r, name)
	default:
		p.serveFile(w, r, name)
	}
}

// isFor reports whether the page may be reached by that host, as a request names it.
func (m *Mount) isFor(host string) bool {
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	name = strings.ToLower(strings.TrimSuffix(strings.Trim(name, "[]"), "."))
	_, err := netip.ParseAddr(name)
	return m.AnyHost || err == nil || name == "localhost" || strings.HasSuffix(name, ".localhost") ||
		slices.ContainsFunc(m.Hosts, func(host string) bool { return strings.EqualFold(strings.TrimSuffix(host, "."), name) })
}

// asked is the file, or the action, that a path asks for; empty: the page, and ".": what
// lacks the slash at its end. There are none but right beside the page: rules of the
// server for one path must not be evaded by another.
func (m *Mount) asked(urlPath string) (name string, beside bool) {
	if m.Paths == nil {
		_, name := path.Split(urlPath)
		if name != "" && path.Ext(name) == "" && !isAction(name) {
			name = "."
		}
		return name, true
	}
	for _, at := range m.Paths {
		switch {
		case strings.EqualFold(urlPath+"/", at):
			return ".", true
		case len(urlPath) >= len(at) && strings.EqualFold(urlPath[:len(at)], at) && !strings.Contains(urlPath[len(at):], "/"):
			return urlPath[len(at):], true
		}
	}
	return "", false
}

func isAction(name string) bool { return name == "feed" || name == "end" || name == "notify" }

func (p *Page) serveFeed(w http.ResponseWriter, r *http.Request) {
	b := p.board
	if !allows(b.api, w, r, http.MethodGet) {
		return
	}
	if site := r.Header.Get("Sec-Fetch-Site"); site != "" && site != "same-origin" && site != "none" {
		b.refuseStranger(w)
		return
	}
	if !b.enter() {
		b.api.Refuse(w, http.StatusServiceUnavailable, "Too many pages are open", "Close another one, or try again later.")
		return
	}
	defer b.leave()
	b.Join()
	w.Header().Set("X-Accel-Buffering", "no") // for an nginx in front
	f := &feed{board: b, out: steer.NewFeedWriter(w, writeTimeout)}
	f.serve(r.Context().Done(), p.stop)
}

// steer has the admin API do what a button says. Only a page of the same origin may say
// so: a browser sends credentials along with whatever request some other page makes.
func (p *Page) steer(w http.ResponseWriter, r *http.Request, name string) {
	b := p.board
	if !allows(b.api, w, r, http.MethodPost) {
		return
	}
	if !isOwn(r) {
		b.refuseStranger(w)
		return
	}
	asked := r.Clone(r.Context())
	asked.URL = &url.URL{Path: steer.Prefix + name, RawQuery: r.URL.RawQuery}
	b.api.ServeHTTP(w, asked) // which takes JSON only
}

func (b *Board) refuseStranger(w http.ResponseWriter) {
	b.api.Refuse(w, http.StatusForbidden, "The request is not made by the page",
		"Only the page itself may ask. Programs use the admin API.")
}

// isOwn reports whether a page of the same origin makes the request. Browsers say so in
// Sec-Fetch-Site, on secure connections, and in Origin. What says nothing is refused.
func isOwn(r *http.Request) bool {
	if site := r.Header.Values("Sec-Fetch-Site"); len(site) > 0 {
		return len(site) == 1 && site[0] == "same-origin"
	}
	origin, err := url.Parse(r.Header.Get("Origin"))
	return err == nil && origin.Host != "" && strings.EqualFold(origin.Host, r.Host)
}

func allows(api *steer.API, w http.ResponseWriter, r *http.Request, methods ...string) bool {
	if slices.Contains(methods, r.Method) {
		return true
	}
	w.Header().Set("Allow", strings.Join(methods, ", "))
	api.Refuse(w, http.StatusMethodNotAllowed, "The method is not allowed", "Use "+strings.Join(methods, " or ")+".")
	return false
}

// redirect leads to the page: its files are beside it only if its path ends with a slash.
// The target is relative, so that it is right whatever stands before.
func (p *Page) redirect(w http.ResponseWriter, r *http.Request, browserPath string) {
	if !allows(p.board.api, w, r, http.MethodGet, http.MethodHead) {
		return
	}
	_, name := path.Split(browserPath)
	target := url.URL{Path: "./" + name + "/", RawQuery: r.URL.RawQuery}
	w.Header().Set("Location", target.String())
	w.WriteHeader(http.StatusTemporaryRedirect)
}

// serveFile serves the page, or a file that it loads. Both are asked for again each time,
// so that a page never meets a script of another version.
func (p *Page) serveFile(w http.ResponseWriter, r *http.Request, name string) {
	if !allows(p.board.api, w, r, http.MethodGet, http.MethodHead) {
		return
	}
	name = cmp.Or(name, "index.html")
	body, err := files.ReadFile("page/" + name)
	if err != nil {
		p.board.api.Refuse(w, http.StatusNotFound, "There is no such file", "The page has none of that name.")
		return
	}
	sum := sha256.Sum256(body)
	w.Header().Set("Content-Type", mediaTypes[path.Ext(name)])
	w.Header().Set("Cache-Control", "no-cache")
	w.Header().Set("ETag", `"`+hex.EncodeToString(sum[:8])+`"`)
	http.ServeContent(w, r, name, time.Time{}, bytes.NewReader(body))
}
