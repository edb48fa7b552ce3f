package caddymodule

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/sse-guard/sse-guard/caddymodule/guard"
)

// Logout describes a request that logs out.
type Logout struct {
	// The request's method. Default: any but HEAD and OPTIONS.
	Method string `json:"method,omitempty"`

	// The request's path, as in the `path` matcher: `*` stands for any text. It is
	// the path where the guard stands, so without what `handle_path` removes. The
	// request must pass through the guard: a matcher must not leave it out.
	Path string `json:"path"`

	// Whose streams end: those of the request's `client` id, within its verified
	// user or token; those of its verified `user` (`sub`), whatever their token;
	// or those of its `token`. A client's other tokens, and the token with other
	// client ids, stay good; a user's tokens that were issued before, or that the
	// guard has seen, do not. Default: `client` if the request has a client id,
	// else `token`.
	Scope guard.LogoutScope `json:"scope,omitempty"`

	// The status codes with which the backend says that it has logged out; 2
	// stands for 200 to 299. Default: 2.
	Status []int `json:"status,omitempty"`
}

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

// logouts readies the logout options for the guard.
func (h *Handler) logouts(ctx caddy.Context) ([]guard.Logout, error) {
	var out []guard.Logout
	for _, l := range h.Logout {
		path := caddyhttp.MatchPath{l.Path}
		if err := path.Provision(ctx); err != nil {
			return nil, fmt.Errorf("logout: %w", err)
		}
		if len(l.Status) == 0 {
			l.Status = []int{2}
		}
		out = append(out, guard.Logout{
			Matches: func(r *http.Request) bool {
				return (l.Method == "" || l.Method == r.Method) && path.Match(r)
			},
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
