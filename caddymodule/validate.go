package caddymodule

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/sse-guard/sse-guard/caddymodule/eventstream"
	"github.com/sse-guard/sse-guard/caddymodule/guard"
	"github.com/sse-guard/sse-guard/caddymodule/identity"
	"github.com/sse-guard/sse-guard/caddymodule/reason"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// Validate checks the options. Its errors name the option, what was given and
// what is allowed.
func (h *Handler) Validate() error {
	if err := validateEach(options, h); err != nil {
		return err
	}
	if err := h.validateContradictions(); err != nil {
		return err
	}
	return h.validateWhole()
}

// validateEach checks the options one by one.
func validateEach[T any](options []option[T], target T) error {
	for _, o := range options {
		if o.validate == nil {
			continue
		}
		if err := o.validate(target); err != nil {
			return err
		}
	}
	return nil
}

// leastDuration is the least that a duration may be. A retry is told in
// milliseconds; an end_timeout of nothing would cut a stream before its event.
const leastDuration = time.Millisecond

func oneOf[T ~string](option string, given T, allowed ...T) error {
	if slices.Contains(allowed, given) {
		return nil
	}
	return fmt.Errorf("%s: %q is not allowed; it is one of: %s", option, given, join(allowed, ", "))
}

func texts[T ~string](values []T) []string {
	all := make([]string, len(values))
	for i, v := range values {
		all[i] = string(v)
	}
	return all
}

func join[T ~string](values []T, separator string) string {
	return strings.Join(texts(values), separator)
}

func atLeast(option string, given, least caddy.Duration) error {
	if given >= least {
		return nil
	}
	return fmt.Errorf("%s: %s is not allowed; it is at least %s", option, time.Duration(given), time.Duration(least))
}

// offOrAtLeast is for durations that may be 0 or left out.
func offOrAtLeast(option string, given *caddy.Duration, least time.Duration) error {
	if given == nil || *given == 0 {
		return nil
	}
	return atLeast(option, *given, caddy.Duration(least))
}

func (h *Handler) validateTokens() error { return identity.ValidateTokens(h.Token) }

func (h *Handler) validateClients() error { return identity.ValidateClients(h.Client) }

func (h *Handler) validateKey() error {
	for i, part := range h.Key {
		if strings.TrimSpace(part) == "" {
			return fmt.Errorf("key: part %d is empty; it is a placeholder or a word", i+1)
		}
		// It would be taken for a word, which all requests share.
		if open := strings.LastIndexByte(part, '{'); open > strings.LastIndexByte(part, '}') {
			return fmt.Errorf("key: part %d, %q, opens a placeholder and does not close it; write: {name}", i+1, part)
		}
	}
	return h.validateKeyPlaceholders()
}

// methodName is a token of RFC 9110 section 5.6.2.
var methodName = regexp.MustCompile("^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")

func (h *Handler) validateMethods() error {
	for _, name := range h.Methods {
		switch {
		case strings.EqualFold(name, identity.AnyMethod) && len(h.Methods) > 1:
			return fmt.Errorf("methods: %q stands alone, got %q; write: methods any, or the names of methods", name, strings.Join(h.Methods, " "))
		case !methodName.MatchString(name):
			return fmt.Errorf("methods: %q is not allowed; it is any, or the name of a method, such as GET or POST", name)
		case strings.EqualFold(name, http.MethodHead):
			return fmt.Errorf("methods: %q is not allowed: its answer has no body, and so is no stream; name another method, such as GET", name)
		}
	}
	return nil
}

func (h *Handler) validateLimit() error {
	if *h.Limit < 0 {
		return fmt.Errorf("limit: %d is not allowed; it is 0 (track only) or more", *h.Limit)
	}
	if h.LimitUnit == "" {
		return nil // not given, and its default is not set yet
	}
	return oneOf("limit_unit", h.LimitUnit, registry.Streams, registry.Clients)
}

// badRetryRefused says that given is no status of retry_refused.
func badRetryRefused(given any) error {
	return fmt.Errorf("retry_refused: %#v is not allowed; it is one or more statuses from 400 to 599, such as 409, or off", given)
}

func (h *Handler) validateRetryRefused() error {
	for _, status := range h.RetryRefused {
		if status < 400 || status > 599 {
			return badRetryRefused(status)
		}
	}
	return nil
}

// anyOrigin alone stands for every origin.
const anyOrigin = "any"

func (h *Handler) validateAllowOrigin() error {
	for _, origin := range h.AllowOrigin {
		if origin == anyOrigin && len(h.AllowOrigin) > 1 {
			return fmt.Errorf("allow_origin: %q stands alone, got %q; write: allow_origin any, or the origins", origin, strings.Join(h.AllowOrigin, " "))
		}
		if origin != anyOrigin && !isOrigin(origin) {
			return fmt.Errorf("allow_origin: %q is not allowed; it is any, or an origin as browsers write it: a scheme and a host in lower case, and a port that is not the scheme's own, such as https://app.example.com", origin)
		}
	}
	return nil
}

func isOrigin(text string) bool {
	u, err := url.Parse(text)
	return err == nil && u.Hostname() != "" && u.Scheme+"://"+u.Host == text && strings.ToLower(text) == text &&
		(u.Scheme != "https" || u.Port() != "443") && (u.Scheme != "http" || u.Port() != "80")
}

// origins is what the option allow_origin means to the guard.
func (h *Handler) origins() guard.Origins {
	if slices.Contains(h.AllowOrigin, anyOrigin) {
		return guard.Origins{Any: true}
	}
	return guard.Origins{Named: h.AllowOrigin}
}

func (h *Handler) validateMaxEventSize() error {
	if h.MaxEventSize < 1 || h.MaxEventSize > math.MaxInt32 {
		return fmt.Errorf("max_event_size: %d is not allowed; it is 1 byte to less than 2 GiB", h.MaxEventSize)
	}
	return nil
}

// renamable are the reasons that have an event.
var renamable = reason.WithEvent()

func (h *Handler) validateEvents() error {
	for of, name := range h.Events {
		if err := oneOf("event", of, renamable...); err != nil {
			return err
		}
		if _, err := (eventstream.Event{Name: name}).Append(nil); err != nil || strings.TrimSpace(name) == "" {
			return fmt.Errorf("event %s: the name %q is not allowed; it is one line of text", of, name)
		}
	}
	return nil
}

func (h *Handler) validateMessages() error {
	for of, text := range h.Messages {
		if err := oneOf("message", of, renamable...); err != nil {
			return err
		}
		if strings.TrimSpace(text) == "" {
			return fmt.Errorf("message %s: the text %q is not allowed; it is what a person may read", of, text)
		}
		if err := ownPlaceholdersAmong("message "+string(of), "a message", []string{text}, guardPlaceholders); err != nil {
			return err
		}
	}
	return nil
}

// labelNames is what a label may be called: it is a part of a query's name.
var labelNames = regexp.MustCompile(`^[a-z][a-z0-9_]{0,31}$`)

func (h *Handler) validateLabels() error {
	if len(h.Labels) > registry.MostLabels {
		return fmt.Errorf("label: %d are not allowed; there may be %d", len(h.Labels), registry.MostLabels)
	}
	for name, value := range h.Labels {
		if !labelNames.MatchString(name) {
			return fmt.Errorf("label: the name %q is not allowed; it is 1 to 32 of a-z, 0-9 and _, and begins with a letter", name)
		}
		if err := completePlaceholders("label "+name, value); err != nil {
			return err
		}
		if err := ownPlaceholdersAmong("label "+name, "a label", []string{value}, guardPlaceholders); err != nil {
			return err
		}
	}
	return nil
}

// completePlaceholders refuses a text without a placeholder.
func completePlaceholders(option, text string) error {
	for rest := range placeholders([]string{text}) {
		if name, _, closed := strings.Cut(rest, "}"); closed && name != "" {
			return nil
		}
	}
	return fmt.Errorf("%s: %q is not allowed; it is a placeholder such as {http.request.uri.query.room}, or a text with one: a value that all streams share tells nothing", option, text)
}

// labels are the labels, in the order of their names.
func (h *Handler) labels() (labels []guard.Label) {
	for _, name := range slices.Sorted(maps.Keys(h.Labels)) {
		labels = append(labels, guard.Label{Name: name, Value: canonicalFields(h.Labels[name])})
	}
	return labels
}

// validateContradictions refuses options that cannot both be meant. The defaults
// of those that are not given contradict nothing.
func (h *Handler) validateContradictions() error {
	if h.Heartbeat != nil && h.DeadAfter != nil && *h.DeadAfter != 0 && *h.Heartbeat >= *h.DeadAfter {
		return fmt.Errorf("heartbeat %s is not allowed with dead_after %s: a client that acknowledges nothing is noticed by a heartbeat, which must be the shorter one",
			time.Duration(*h.Heartbeat), time.Duration(*h.DeadAfter))
	}
	if h.Limit != nil && *h.Limit == 0 && h.Policy == registry.Reject {
		return fmt.Errorf("limit 0 only tracks and policy reject only matters at a limit; choose a limit of 1 or more, or leave out policy")
	}
	return nil
}

// validateGiven refuses options that are given and mean nothing under the policy. It is
// asked before defaults are set, which contradict nothing.
func (h *Handler) validateGiven() error {
	if h.Policy == registry.Reject {
		return nil
	}
	const remedy = "under policy supersede, where newcomers are not rejected for a full key; write: policy reject, or leave %s out"
	switch {
	case h.OnReject == guard.RejectPark:
		return fmt.Errorf("on_reject park means nothing "+remedy, "on_reject")
	case h.Probe != nil && *h.Probe > 0:
		return fmt.Errorf("probe %s means nothing "+remedy, time.Duration(*h.Probe), "probe")
	case h.Reserve != nil && *h.Reserve > 0 && len(h.Webhooks) == 0:
		return fmt.Errorf("reserve %s means nothing without a webhook "+remedy, time.Duration(*h.Reserve), "reserve")
	default:
		return nil
	}
}

// noClaims refuses claims in an option's texts, where no token is verified.
func noClaims(option string, texts []string) error {
	for text := range placeholders(texts) {
		if name, _, _ := strings.Cut(text, "}"); strings.HasPrefix(name, claimsPlaceholder) {
			return fmt.Errorf("%s: {%s} needs a jwt block: without it a token has no claims", option, name)
		}
	}
	return nil
}

// validateWhole refuses options that need others which are not there.
func (h *Handler) validateWhole() error {
	verified := h.JWT != nil && !h.JWT.Unverified
	switch {
	case h.Takeover == guard.TakeoverRequest && !verified:
		return errors.New("takeover request needs tokens that are verified here, or anybody could end anybody's streams; add a jwt block with keys, or write: takeover auto")
	case h.Takeover == guard.TakeoverRequest && !h.keyFromRequest():
		return errors.New("takeover request decides before the backend has answered, and the key has a part that is known only then; change the key, or write: takeover auto")
	case h.JWT == nil && h.OnExpiry != "" && h.OnExpiry != guard.ExpiryRenew:
		return fmt.Errorf("on_expiry %s needs a jwt block: without it nobody knows when a token expires", h.OnExpiry)
	case h.JWT != nil && h.JWT.Optional && h.RequireToken:
		return errors.New("require_token and jwt optional cannot both be meant; leave one out")
	case h.JWT != nil && h.JWT.Unverified && len(h.Token) != 1:
		return fmt.Errorf("jwt unverified needs exactly one token option, got %d: it names the one place where the backend reads the token; another one's claims would be anybody's", len(h.Token))
	}
	if h.JWT == nil {
		if err := noClaims("key", h.Key); err != nil {
			return err
		}
		for of, text := range h.Messages {
			if err := noClaims("message "+string(of), []string{text}); err != nil {
				return err
			}
		}
		for name, value := range h.Labels {
			if err := noClaims("label "+name, []string{value}); err != nil {
				return err
			}
		}
	}
	if err := h.validatePresenceLabels(); err != nil {
		return err
	}
	for _, l := range h.Logout {
		// The path is compared before the guard has looked at the request.
		if err := ownPlaceholdersAmong("logout", "its path", []string{l.Path}, nil); err != nil {
			return err
		}
		if l.Scope == guard.LogoutUser && !verified {
			return fmt.Errorf("logout %s user needs tokens that are verified here, or anybody could log anybody out; add a jwt block with keys, or write: logout %[1]s token", l.Path)
		}
	}
	return nil
}
