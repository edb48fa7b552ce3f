package caddymodule

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/sse-guard/sse-guard/caddymodule/guard"
	"github.com/sse-guard/sse-guard/caddymodule/identity"
)

// Logout describes a request that logs out.
type Logout struct {
	// The request's method. Default: POST and DELETE: every other site can send a
	// GET in the user's name.
	Method string `json:"method,omitempty"`

	// The request's path, as in the `path` matcher: `*` stands for any text. It is
	// the path where the guard stands, so without what `handle_path` removes. The
	// request must pass through the guard: a matcher must not leave it out.
	Path string `json:"path"`

	// Whose streams end: those of the request's `client` id, within its verified
	// user or token; those of its verified `user` (`sub`), whatever their token;
	// or those of its `token`. A client's other tokens, and the token with other
	// client ids, stay good; a user's tokens that were issued before, or that the
	// guard has seen, do not. Default: `client` if the request has a client id that
	// a stream has too, else `token`.
	Scope guard.LogoutScope `json:"scope,omitempty"`

	// The status codes with which the backend says that it has logged out; 2
	// stands for 200 to 299. Default: 2.
	Status []int `json:"status,omitempty"`

	// How long the token is not accepted any more, if it does not say itself when it
	// expires: applications use the ids of their sessions again. A token that was
	// verified is denied until its end. At least 1s. Default: 30s.
	Deny caddy.Duration `json:"deny,omitempty"`
}

// methods are those that the request may have.
func (l Logout) methods() []string {
	if l.Method != "" {
		return []string{l.Method}
	}
	return []string{http.MethodPost, http.MethodDelete}
}

const (
	leastDeny   = time.Second
	defaultDeny = 30 * time.Second
)

// SharedAccount says when takeovers of one key look like a shared account.
type SharedAccount struct {
	// From how many addresses. 0: never.
	Addresses int `json:"addresses"`
	// Within what time. At least 1s.
	Window caddy.Duration `json:"window,omitempty"`
}

// mostAddresses bounds what is remembered of one key.
const mostAddresses = 1000

func (s *SharedAccount) validate() error {
	switch {
	case s == nil || s.Addresses == 0:
		return nil
	case s.Addresses < 2 || s.Addresses > mostAddresses:
		return fmt.Errorf("shared_account: %d addresses is not allowed; it is 2 to %d, or write: shared_account off", s.Addresses, mostAddresses)
	default:
		return atLeast("shared_account", s.Window, caddy.Duration(time.Second))
	}
}

func (h *Handler) validateLogouts() error {
	for _, l := range h.Logout {
		if err := l.validate(); err != nil {
			return err
		}
	}
	return nil
}

func (l Logout) validate() error {
	if l.Path == "" || l.Path[0] != '/' && l.Path[0] != '*' {
		return fmt.Errorf("logout: the path %q is not allowed; it begins with / or *", l.Path)
	}
	switch {
	case l.Method == http.MethodHead || l.Method == http.MethodOptions:
		return fmt.Errorf("logout: the method %s is not allowed; such a request logs nobody out", l.Method)
	case strings.ToUpper(l.Method) != l.Method || strings.ContainsAny(l.Method, " \t"):
		return fmt.Errorf("logout: the method %q is not allowed; it is one word in capitals, such as POST", l.Method)
	}
	if l.Deny != 0 && time.Duration(l.Deny) < leastDeny {
		return fmt.Errorf("logout: deny %s is not allowed; it is at least %s", time.Duration(l.Deny), leastDeny)
	}
	for _, status := range l.Status {
		if status < 1 || status > 599 || status > 5 && status < 100 {
			return fmt.Errorf("logout: the status %d is not allowed; it is a code from 100 to 599, or 1 to 5 for a class of them", status)
		}
	}
	if l.Scope == guard.LogoutDefault {
		return nil
	}
	return oneOf("logout", l.Scope, guard.LogoutClient, guard.LogoutUser, guard.LogoutToken)
}

// matchesPath reports whether the path is the request's, as the backend understands it:
// where the token is looked for in the path, its parameters do not count.
func matchesPath(path caddyhttp.MatchPath, r *http.Request, extractor *identity.Extractor) bool {
	if path.Match(r) {
		return true
	}
	plain := extractor.Path(r.URL.Path)
	if plain == r.URL.Path {
		return false
	}
	without := r.WithContext(r.Context())
	without.URL = &url.URL{Path: plain}
	return path.Match(without)
}

// logouts readies the logout options for the guard.
func (h *Handler) logouts(ctx caddy.Context, extractor *identity.Extractor) ([]guard.Logout, error) {
	var out []guard.Logout
	for _, l := range h.Logout {
		path := caddyhttp.MatchPath{l.Path}
		if err := path.Provision(ctx); err != nil {
			return nil, fmt.Errorf("logout: %w", err)
		}
		if len(l.Status) == 0 {
			l.Status = []int{2}
		}
		if l.Deny == 0 {
			l.Deny = caddy.Duration(defaultDeny)
		}
		methods := l.methods()
		out = append(out, guard.Logout{
			Matches: func(r *http.Request) bool {
				return slices.Contains(methods, r.Method) && matchesPath(path, r, extractor)
			},
			Unlisted: func(r *http.Request) bool {
				return l.Method == "" && !slices.Contains(methods, r.Method) && matchesPath(path, r, extractor)
			},
			Path: l.Path,
			Deny: time.Duration(l.Deny),
			Success: func(status int) bool {
				for _, configured := range l.Status {
					if caddyhttp.StatusCodeMatches(status, configured) {
						return true
					}
				}
				return false
			},
			Scope: l.Scope,
		})
	}
	return out, nil
}

// checkLogouts refuses a logout that never comes to the guard, since the guard's own
// matcher leaves it out. What a matcher says besides paths and methods, and what
// routes around the guard do, is not looked at.
func (h *Handler) checkLogouts(matcher caddy.ModuleMap) error {
	var methods caddyhttp.MatchMethod
	var paths caddyhttp.MatchPath
	for name, list := range map[string]any{"method": &methods, "path": &paths} {
		if raw, ok := matcher[name]; ok {
			if err := json.Unmarshal(raw, list); err != nil {
				return fmt.Errorf("the matcher of sse_guard: %s: %w", name, err)
			}
		}
	}
	for _, l := range h.Logout {
		switch {
		case len(methods) > 0 && !slices.ContainsFunc(l.methods(), func(m string) bool { return slices.Contains(methods, m) }):
			return fmt.Errorf("logout: %s %s never comes to this guard, whose matcher takes %s only; leave the matcher out, or add the method to it",
				strings.Join(l.methods(), " or "), l.Path, strings.Join(methods, " "))
		case len(paths) > 0 && !anyCovers(paths, l.Path):
			return fmt.Errorf("logout: %s never comes to this guard, whose matcher takes %s only; leave the matcher out, or add the path to it: @name path %[2]s %[1]s",
				l.Path, strings.Join(paths, " "))
		}
	}
	return nil
}

// anyCovers reports whether one of the paths may match what the path of a logout does.
// Where either says more than a path with a wildcard at its end, it may.
func anyCovers(paths caddyhttp.MatchPath, logout string) bool {
	return slices.ContainsFunc(paths, func(path string) bool {
		if strings.ContainsAny(path+logout, "{%") || strings.Contains(logout, "*") {
			return true
		}
		one := caddyhttp.MatchPath{path}
		_ = one.Provision(caddy.Context{}) // it only lowers the case
		ctx := context.WithValue(context.Background(), caddy.ReplacerCtxKey, caddy.NewReplacer())
		return one.Match((&http.Request{URL: &url.URL{Path: logout}}).WithContext(ctx))
	})
}
