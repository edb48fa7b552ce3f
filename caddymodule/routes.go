package caddymodule

import (
	"cmp"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/caddyauth"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/fileserver"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/intercept"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/rewrite"
)

// placement is where a guard stands among the routes of a configuration.
type placement struct {
	guard *Handler
	site  site
	// answered names what answers every request before it comes to the guard; empty:
	// nothing does, as far as that is known.
	answered string
	// uncounted are methods to which a matcher narrows the guard, none of which counts.
	uncounted []string
	// never is a pattern of a path to which a matcher narrows the guard, and which no
	// path has; empty: none is known.
	never string
	// paths are lists of patterns, of which the path that the guard sees has one each.
	paths [][]string
}

// site is what people take for one: the routes of a server for the same hosts. A site
// block of a Caddyfile is one of them on each server that it listens with.
type site struct {
	server, hosts string
	// web is whether the server has the ports of HTTP or HTTPS, by which people reach
	// one site.
	web bool
}

// placements finds the guards in the routes of the HTTP app, in an order that does not
// change. Those in routes of other handlers than subroute and invoke it does not find.
func placements(app *caddyhttp.App) []placement {
	found, _ := walkThrough(app)
	return found
}

// walkThrough finds the guards, and the status pages.
func walkThrough(app *caddyhttp.App) (found []placement, pages map[*Status]*mounting) {
	pages = make(map[*Status]*mounting)
	for _, name := range slices.Sorted(maps.Keys(app.Servers)) {
		w := newWalk(app.Servers[name], pages)
		at := way{site: site{server: name, web: isWeb(app, w.server)}}
		w.list(w.server.Routes, at)
		if w.server.Errors != nil {
			w.aside(w.server.Errors.Routes, at)
		}
		found = append(found, w.found...)
	}
	return found, pages
}

// authenticates reports whether a handler lets through only who has proved who it is:
// that of basic_auth and of plugins that authenticate, and forward_auth.
func (w *walk) authenticates(h caddyhttp.MiddlewareHandler) bool {
	switch h := h.(type) {
	case *caddyauth.Authentication:
		return true
	case *reverseproxy.Handler:
		return len(h.HandleResponse) > 0 && h.Rewrite != nil && h.Rewrite.Method == http.MethodGet &&
			h.Headers != nil && h.Headers.Request != nil && h.Headers.Request.Set.Get("X-Forwarded-Uri") != "" &&
			!slices.ContainsFunc(h.HandleResponse, w.admits)
	default:
		return false
	}
}

// admits reports whether requests go on behind a proxy whose backend has answered with
// another status than 2xx.
func (w *walk) admits(r caddyhttp.ResponseHandler) bool {
	good := r.Match != nil && len(r.Match.StatusCode) > 0 && !slices.ContainsFunc(r.Match.StatusCode, func(code int) bool {
		return code != 2 && code/100 != 2
	})
	return !good && r.StatusCode == "" && newWalk(w.server, make(map[*Status]*mounting)).list(r.Routes, way{}) == ""
}

// onlyPaths are the patterns of paths that matchers ask for if they ask for nothing else.
func onlyPaths(sets caddyhttp.MatcherSets) (patterns []string) {
	for _, set := range sets {
		if len(set) != 1 {
			continue
		}
		if m, ok := set[0].(*caddyhttp.MatchPath); ok {
			patterns = append(patterns, *m...)
		}
	}
	return patterns
}

// covered reports whether every path with one of the patterns, of which there are some,
// has one of the others. It may say no although it is so.
func covered(patterns, by []string) bool {
	return len(patterns) > 0 && !slices.ContainsFunc(patterns, func(pattern string) bool {
		return !slices.ContainsFunc(by, func(other string) bool {
			begin, open := strings.CutSuffix(strings.ToLower(other), "*")
			return pattern == other || open && !strings.ContainsAny(begin, `*{?[\%`) && strings.HasPrefix(strings.ToLower(pattern), begin)
		})
	})
}

// isWeb reports whether a server listens on the ports of HTTP or HTTPS only.
func isWeb(app *caddyhttp.App, server *caddyhttp.Server) bool {
	http, https := uint(cmp.Or(app.HTTPPort, caddyhttp.DefaultHTTPPort)), uint(cmp.Or(app.HTTPSPort, caddyhttp.DefaultHTTPSPort))
	return len(server.Listen) > 0 && !slices.ContainsFunc(server.Listen, func(listen string) bool {
		addr, err := caddy.ParseNetworkAddress(listen)
		return err != nil || addr.PortRangeSize() != 1 || addr.StartPort != http && addr.StartPort != https
	})
}

// walk goes through the routes of a server as requests do.
type walk struct {
	server *caddyhttp.Server
	// invoking are the named routes that the walk is in.
	invoking map[string]bool
	// rewrites are the handlers so far that change paths.
	rewrites int
	found    []placement
	pages    map[*Status]*mounting
}

func newWalk(server *caddyhttp.Server, pages map[*Status]*mounting) *walk {
	return &walk{server: server, invoking: make(map[string]bool), pages: pages}
}

// mounting is how requests come to a status page. To one in a named route, they come on
// several ways.
type mounting struct {
	// authenticated says that they all have come through an authentication handler, and
	// named that they were all made to hosts that the configuration names.
	authenticated, named bool
	// vague says that it is not known at which paths the page is, and else paths are
	// these, with a slash at their ends.
	vague bool
	paths []string
}

// mount notes that requests come to a page.
func (w *walk) mount(s *Status, at way) {
	m := w.pages[s]
	if m == nil {
		m = &mounting{authenticated: true, named: true}
		w.pages[s] = m
	}
	paths := at.mounts()
	m.authenticated = m.authenticated && at.authenticated
	m.named = m.named && at.named
	m.vague = m.vague || len(paths) == 0
	m.paths = append(m.paths, paths...)
}

// mounts are the paths, with a slash at their ends, of a page that requests come to; nil:
// not known.
func (at *way) mounts() (paths []string) {
	var lists [][]string
	for _, patterns := range at.paths {
		var list []string
		for _, pattern := range patterns {
			begin := strings.TrimSuffix(pattern, "*")
			if strings.ContainsAny(begin, `*{?[\%`) || begin != "" && begin[0] != '/' {
				list = nil
				break
			}
			list = append(list, strings.TrimSuffix(begin, "/")+"/")
		}
		if list != nil {
			lists = append(lists, list)
		}
	}
	if len(lists) == 0 {
		if at.vague || len(at.paths) > 0 {
			return nil
		}
		return []string{"/"}
	}
	// The page is where the longest pattern of each way begins.
	for _, path := range slices.Concat(lists...) {
		if !slices.ContainsFunc(lists, func(list []string) bool {
			return !slices.ContainsFunc(list, func(outer string) bool {
				return strings.HasPrefix(strings.ToLower(path), strings.ToLower(outer))
			})
		}) {
			paths = append(paths, path)
		}
	}
	return paths
}

// mayNarrowPaths reports whether a matcher, other than one of paths, may leave paths out.
func mayNarrowPaths(sets caddyhttp.MatcherSets) bool {
	return slices.ContainsFunc(slices.Concat(sets...), func(m any) bool {
		switch m.(type) {
		case *caddyhttp.MatchHost, *caddyhttp.MatchMethod, *caddyhttp.MatchRemoteIP, *caddyhttp.MatchClientIP,
			*caddyhttp.MatchProtocol, *caddyhttp.MatchHeader, *caddyhttp.MatchQuery, *caddyhttp.MatchTLS:
			return false
		default:
			return true
		}
	})
}

// onlyStrips reports whether all that the handlers do to a path is to take a beginning
// away.
func onlyStrips(handlers []caddyhttp.MiddlewareHandler) bool {
	return !slices.ContainsFunc(handlers, func(h caddyhttp.MiddlewareHandler) bool {
		r, ok := h.(*rewrite.Rewrite)
		return !ok || r.URI != "" || r.StripPathSuffix != "" || len(r.URISubstring) > 0 || len(r.PathRegexp) > 0
	})
}

// areNamed reports whether the hosts are names that an attacker cannot have.
func areNamed(hosts []string) bool {
	return len(hosts) > 0 && !slices.ContainsFunc(hosts, func(host string) bool {
		wild := strings.LastIndex(host, "*.")
		return strings.Contains(host, "{") || strings.HasSuffix(host, "*") || wild >= 0 && !strings.Contains(host[wild+2:], ".")
	})
}

// aside visits routes that requests come to from within a handler: once something has
// failed, or has answered, and may have rewritten the path before. Guards in them are not
// found.
func (w *walk) aside(routes caddyhttp.RouteList, at way) {
	found := w.found
	at.paths, at.authenticates, at.vague = nil, nil, true
	w.list(routes, at)
	w.found = found
}

func (w *walk) responses(handlers []caddyhttp.ResponseHandler, at way) {
	for _, r := range handlers {
		w.aside(r.Routes, at)
	}
}

// way is what is known of the requests that come to a place.
type way struct {
	site site
	// top says that the site is known: the routes are inside one of the server's.
	top bool
	// answered is as in placement.
	answered string
	// methods are lists of which a request has one method each.
	methods [][]string
	// never is as in placement.
	never string
	// paths are as in placement. What was known of a path is not when it is rewritten.
	paths [][]string
	// vague says that something else than paths may say which paths the requests have.
	vague bool
	// named says that matchers ask for hosts that the configuration names.
	named bool
	// authenticated says that an authentication handler has let the requests through.
	authenticated bool
	// authenticates are patterns of paths whose requests have come through one.
	authenticates []string
}

// list visits routes in order. It returns what answers every request that comes to
// them, empty if some come out behind them.
func (w *walk) list(routes caddyhttp.RouteList, at way) (answers string) {
	// Of the routes of a group, a request goes through the first that matches.
	closed := make(map[string]string) // groups that no request leaves open, and by what
	open := make(map[string]bool)     // groups of which some requests come out
	for _, r := range routes {
		inside := at
		inside.authenticated = at.authenticated || covered(listed[caddyhttp.MatchPath](r.MatcherSets), at.authenticates)
		inside.answered = cmp.Or(at.answered, answers, closed[r.Group])
		if !at.top {
			inside.site.hosts, inside.top = hostsOf(r.MatcherSets), true
		}
		if methods := listed[caddyhttp.MatchMethod](r.MatcherSets); len(methods) > 0 {
			inside.methods = append(slices.Clip(at.methods), methods)
		}
		if paths := listed[caddyhttp.MatchPath](r.MatcherSets); len(paths) > 0 {
			inside.paths = append(slices.Clip(at.paths), paths)
		} else {
			inside.vague = at.vague || mayNarrowPaths(r.MatcherSets)
		}
		inside.named = at.named || areNamed(listed[caddyhttp.MatchHost](r.MatcherSets))
		inside.never = cmp.Or(at.never, neverOf(r.MatcherSets))
		before := w.rewrites
		by := w.handlers(r.Handlers, inside)
		if w.rewrites > before {
			at.paths, at.authenticates, at.vague = nil, nil, !onlyStrips(r.Handlers)
		} else if r.Group == "" && slices.ContainsFunc(r.Handlers, w.authenticates) {
			at.authenticated = at.authenticated || len(r.MatcherSets) == 0
			at.authenticates = append(slices.Clip(at.authenticates), onlyPaths(r.MatcherSets)...)
		}
		if by == "" && r.Terminal {
			by = "a terminal route"
		}
		if r.Group != "" && by == "" {
			open[r.Group] = true
		}
		if len(r.MatcherSets) > 0 {
			continue
		}
		if r.Group != "" {
			closed[r.Group] = cmp.Or(closed[r.Group], by, "another route of its group")
		}
		if by != "" && !open[r.Group] {
			answers = cmp.Or(answers, by)
		}
	}
	return answers
}

// handlers visits the handlers of a route.
func (w *walk) handlers(handlers []caddyhttp.MiddlewareHandler, at way) (answers string) {
	for _, h := range handlers {
		by, before := "", w.rewrites
		switch h := h.(type) {
		case *Handler:
			w.found = append(w.found, placement{
				guard: h, site: at.site, answered: at.answered, uncounted: h.uncountedOf(at.methods), never: at.never, paths: at.paths,
			})
		case *Status:
			by = "sse_guard_status"
			w.mount(h, at)
		case *rewrite.Rewrite:
			w.rewrites++
		case *caddyhttp.Subroute:
			by = w.list(h.Routes, at)
			if h.Errors != nil {
				w.aside(h.Errors.Routes, at)
			}
		case *intercept.Intercept:
			w.responses(h.HandleResponse, at)
		case *caddyhttp.Invoke:
			by = w.invoke(h.Name, at)
		case *reverseproxy.CopyResponseHandler:
			by = "copy_response"
		case *reverseproxy.Handler:
			w.responses(h.HandleResponse, at)
			if len(h.HandleResponse) == 0 { // as forward_auth has it, whose routes may go on
				by = "reverse_proxy"
			}
		case *caddyhttp.StaticResponse:
			if code := string(h.StatusCode); code != "103" && !strings.Contains(code, "{") { // after 103 it goes on
				by = "respond, or redir,"
			}
		case *caddyhttp.StaticError:
			by = "error"
		case *fileserver.FileServer:
			if !h.PassThru {
				by = "file_server"
			}
		}
		at.authenticated = at.authenticated || w.authenticates(h)
		answers = cmp.Or(answers, by)
		at.answered = cmp.Or(at.answered, by)
		if w.rewrites > before {
			at.paths, at.authenticates, at.vague = nil, nil, !onlyStrips([]caddyhttp.MiddlewareHandler{h})
		}
	}
	return answers
}

func (w *walk) invoke(name string, at way) (answers string) {
	r, known := w.server.NamedRoutes[name]
	if !known || w.invoking[name] {
		return ""
	}
	w.invoking[name] = true
	defer delete(w.invoking, name)
	return w.list(caddyhttp.RouteList{*r}, at)
}

// hostsOf are the hosts that matchers ask for, in a text that tells them apart from
// others; empty: any.
func hostsOf(sets caddyhttp.MatcherSets) string {
	var hosts []string
	for _, set := range sets {
		for _, m := range set {
			if m, ok := m.(*caddyhttp.MatchHost); ok {
				hosts = append(hosts, *m...)
			}
		}
	}
	slices.Sort(hosts)
	return strings.Join(slices.Compact(hosts), hostSeparator)
}

const hostSeparator = ", "

// listed are the methods, or the patterns of paths, that a request must have one of to
// match; nil: any.
func listed[Matcher ~[]string](sets caddyhttp.MatcherSets) []string {
	var all []string
	for _, set := range sets {
		narrowed := false
		for _, m := range set {
			if m, ok := m.(*Matcher); ok {
				all, narrowed = append(all, *m...), true
			}
		}
		if !narrowed {
			return nil
		}
	}
	return all
}

// neverOf returns a pattern of the paths that a request must have one of to match, if
// none of them is that of a path: paths begin with /, patterns also with * or a
// placeholder.
func neverOf(sets caddyhttp.MatcherSets) (pattern string) {
	for _, set := range sets {
		never := ""
		for _, m := range set {
			if m, ok := m.(*caddyhttp.MatchPath); ok && !slices.ContainsFunc(*m, mayBePath) && len(*m) > 0 {
				never = (*m)[0]
			}
		}
		if never == "" {
			return ""
		}
		pattern = cmp.Or(pattern, never)
	}
	return pattern
}

func mayBePath(pattern string) bool {
	return pattern == "" || strings.ContainsAny(pattern[:1], `/*{?[\`)
}

// uncountedOf returns the first list of methods none of which the guard counts; nil if
// there is none.
func (h *Handler) uncountedOf(lists [][]string) []string {
	for _, methods := range lists {
		if !slices.ContainsFunc(methods, h.Methods.Count) {
			return methods
		}
	}
	return nil
}
