package caddymodule

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/dustin/go-humanize"

	"github.com/sse-guard/sse-guard/caddymodule/guard"
	"github.com/sse-guard/sse-guard/caddymodule/identity"
	"github.com/sse-guard/sse-guard/caddymodule/reason"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

func parseCaddyfile(h httpcaddyfile.Helper) ([]httpcaddyfile.ConfigValue, error) {
	if !h.Next() {
		return nil, h.ArgErr()
	}
	matcher, err := h.ExtractMatcherSet()
	if err != nil {
		return nil, err
	}
	handler := new(Handler)
	if err := handler.UnmarshalCaddyfile(h.Dispenser); err != nil {
		return nil, err
	}
	if err := handler.checkLogouts(matcher); err != nil {
		return nil, h.WrapErr(err)
	}
	handler.DefinedAt = definedAt(h)
	return h.NewRoute(matcher, handler), nil
}

// definedAt names the directive by its place in the Caddyfile. That of a snippet is
// numbered each time that it is imported, so that no two directives have one name.
func definedAt(h httpcaddyfile.Helper) string {
	h.Reset()
	h.Next()
	place := fmt.Sprintf("%s:%d", h.File(), h.Line())
	if h.IsNamedRoute() {
		place += ", a named route" // it has a State of its own
	}
	key := "sse_guard " + place
	times, _ := h.State[key].(int)
	h.State[key] = times + 1
	if times > 0 {
		place += fmt.Sprintf("%s%d", importSeparator, times+1)
	}
	return place
}

// importSeparator is between the place of a directive in a snippet and the number of
// its import.
const importSeparator = ", import "

// UnmarshalCaddyfile sets up the handler from Caddyfile tokens. Syntax:
//
//	sse_guard [<matcher>] {
//	    zone           <name>
//	    token          header|query|cookie|path <name>  # repeatable
//	    client         header|query|cookie <name> [device|tab]  # repeatable
//	    key            <part...>
//	    methods        any|<name...>
//	    missing_key    pass|deny
//	    limit          <n> [streams|clients]
//	    policy         supersede|reject
//	    takeover       auto|response|request
//	    retry_refused  <status...>|off
//	    allow_origin   any|<origin...>
//	    require_token
//	    on_reject      event|park|status
//	    retry          <duration>
//	    come_back      cut|clean
//	    end_timeout    <duration>
//	    hold           <duration>
//	    max_event_size <size>
//	    event          <reason> <name>  # repeatable
//	    message        <reason> <text>  # repeatable
//	    secret         <placeholder>
//	    jwt {
//	        hmac_secret <placeholder or file> [<kid>] [issuer <name...>]  # repeatable
//	        public_key  <PEM file> [<kid>] [issuer <name...>]  # repeatable
//	        jwks        <url> [<refresh>] [issuer <name...>]  # repeatable
//	        algorithms  <name...>
//	        issuer      <name...>
//	        audience    <name...>
//	        leeway      <duration>
//	        require     <claim...>
//	        optional
//	        unverified
//	    }
//	    on_expiry      renew|end|keep
//	    logout         [<method>] <path> [client|user|token] [<status...>] [deny <duration>]  # repeatable
//	    heartbeat      <duration>|off
//	    dead_after     <duration>|off
//	    stall_after    <duration>|off
//	    probe          <duration>|off
//	    reserve        <duration>|off
//	    flap           <count> [<half-life>]|off
//	    max_age        <duration>
//	    drain          <window> [<rate>]
//	    shared_account <addresses> <window>|off
//	    label          <name> <placeholder>  # repeatable
//	    presence       <label> <event> [<interval>]  # repeatable
//	    webhook        <url> {  # repeatable
//	        secret <placeholder>
//	        events <event...>
//	    }
//	    registry       <module> { ... }
//	}
//
// The options token, client, event, message, logout, label, presence, webhook, hmac_secret, public_key and
// jwks may be repeated.
func (h *Handler) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // directive name
	if d.NextArg() {
		return d.Errf("sse_guard takes no argument but a matcher, got %q; options go in a block", d.Val())
	}
	seen := make(map[string]bool)
	for d.NextBlock(0) {
		if err := unmarshalOption(d, h, "sse_guard", options, seen); err != nil {
			return err
		}
		// Asked after each option, so that the error names the line of the one
		// that contradicts an earlier one.
		if err := h.validateContradictions(); err != nil {
			return d.WrapErr(err)
		}
	}
	if err := h.validateGiven(); err != nil {
		return d.WrapErr(err)
	}
	if err := h.validateWhole(); err != nil {
		return d.WrapErr(err)
	}
	return nil
}

// unmarshalOption reads one of the options of owner's block into target. seen has
// the names of those that were read before.
func unmarshalOption[T any](d *caddyfile.Dispenser, target T, owner string, options []option[T], seen map[string]bool) error {
	name := d.Val()
	o, ok := optionNamed(options, name)
	if !ok {
		return d.Errf("unknown option %q of %s; the options are: %s", name, owner, strings.Join(sortedNames(options), ", "))
	}
	if seen[name] && !o.repeats {
		return d.Errf("option %s is given twice, expected once", name)
	}
	seen[name] = true
	read := o.unmarshalLine
	if o.block != nil {
		read = o.block
	}
	if err := read(target, d); err != nil {
		return err
	}
	if o.validate != nil {
		if err := o.validate(target); err != nil {
			return d.WrapErr(err)
		}
	}
	return nil
}

// unmarshalLine reads an option that has no block.
func (o option[T]) unmarshalLine(target T, d *caddyfile.Dispenser) error {
	args := d.RemainingArgs()
	least, most := arity(o.syntax)
	if len(args) < least || most >= 0 && len(args) > most {
		return d.Errf("option %s does not take %d arguments; write: %s", o.name, len(args), o.usage())
	}
	if err := o.parse(target, args); err != nil {
		return d.WrapErr(err)
	}
	if d.NextBlock(d.Nesting()) {
		d.Prev() // to the brace: it is on the option's line
		return d.Errf("option %s takes no block; write: %s", o.name, o.usage())
	}
	return nil
}

func sortedNames[T any](options []option[T]) []string {
	names := make([]string, len(options))
	for i, o := range options {
		names[i] = o.name
	}
	slices.Sort(names)
	return names
}

func parseDuration(name, given string, least time.Duration) (caddy.Duration, error) {
	value, err := caddy.ParseDuration(given)
	if err != nil || value < least {
		return 0, fmt.Errorf("%s: %q is not allowed; it is a duration of at least %s, such as %s or 5s", name, given, least, max(least, 500*time.Millisecond))
	}
	return caddy.Duration(value), nil
}

func parseToken(h *Handler, args []string) error {
	h.Token = append(h.Token, identity.TokenSource{From: identity.From(args[0]), Name: args[1]})
	return nil
}

func parseClient(h *Handler, args []string) error {
	source := identity.ClientSource{From: identity.From(args[0]), Name: args[1]}
	if len(args) == 3 {
		source.Scope = identity.Scope(args[2])
	}
	h.Client = append(h.Client, source)
	return nil
}

func parseKey(h *Handler, args []string) error {
	h.Key = args
	return nil
}

func parseMethods(h *Handler, args []string) error {
	h.Methods = args
	return nil
}

func parseLimit(h *Handler, args []string) error {
	n, err := strconv.Atoi(args[0])
	if err != nil || n < 0 {
		return fmt.Errorf("limit: %q is not allowed; it is a number, 0 (track only) or more", args[0])
	}
	h.Limit = &n
	if len(args) == 2 {
		h.LimitUnit = registry.Unit(args[1])
		return oneOf("limit", h.LimitUnit, registry.Streams, registry.Clients)
	}
	return nil
}

func parseRetryRefused(h *Handler, args []string) error {
	h.RetryRefused = []int{}
	if len(args) == 1 && args[0] == "off" {
		return nil
	}
	for _, given := range args {
		status, err := strconv.Atoi(given)
		if err != nil {
			return badRetryRefused(given)
		}
		h.RetryRefused = append(h.RetryRefused, status)
	}
	return nil
}

func parseAllowOrigin(h *Handler, args []string) error {
	h.AllowOrigin = args
	return nil
}

func parseMaxEventSize(h *Handler, args []string) error {
	size, err := humanize.ParseBytes(args[0])
	if err != nil || size < 1 || size > math.MaxInt32 {
		return fmt.Errorf("max_event_size: %q is not allowed; it is a size from 1B to less than 2GiB, such as 256KiB", args[0])
	}
	h.MaxEventSize = int64(size)
	return nil
}

func parseEvent(h *Handler, args []string) error {
	of := reason.Reason(args[0])
	if _, twice := h.Events[of]; twice {
		return fmt.Errorf("event: %s is renamed twice, expected once", of)
	}
	if h.Events == nil {
		h.Events = make(map[reason.Reason]string)
	}
	h.Events[of] = args[1]
	return nil
}

func parseMessage(h *Handler, args []string) error {
	of := reason.Reason(args[0])
	if _, twice := h.Messages[of]; twice {
		return fmt.Errorf("message: %s has a message already, expected one", of)
	}
	if h.Messages == nil {
		h.Messages = make(map[reason.Reason]string)
	}
	h.Messages[of] = args[1]
	return nil
}

func parseLabel(h *Handler, args []string) error {
	if _, twice := h.Labels[args[0]]; twice {
		return fmt.Errorf("label: %s has a value already, expected one", args[0])
	}
	if h.Labels == nil {
		h.Labels = make(map[string]string)
	}
	h.Labels[args[0]] = args[1]
	return nil
}

func parseLogout(h *Handler, args []string) error {
	var l Logout
	if !strings.HasPrefix(args[0], "/") && !strings.HasPrefix(args[0], "*") && len(args) > 1 {
		l.Method, args = args[0], args[1:]
	}
	l.Path, args = args[0], args[1:]
	if n := len(args); n >= 2 && args[n-2] == "deny" {
		deny, err := parseDuration("logout: deny", args[n-1], leastDeny)
		if err != nil {
			return err
		}
		l.Deny, args = deny, args[:n-2]
	}
	if len(args) > 0 && (args[0] == "" || args[0][0] > '9') {
		if args[0] == "" {
			return fmt.Errorf("logout: %q is not allowed; it is client, user, token or a status", args[0])
		}
		l.Scope, args = guard.LogoutScope(args[0]), args[1:]
	}
	for _, arg := range args {
		status, err := strconv.Atoi(strings.TrimSuffix(arg, "xx"))
		if err != nil || strings.HasSuffix(arg, "xx") != (status < 10) {
			return fmt.Errorf("logout: the status %q is not allowed; it is a code such as 302, or a class such as 2xx", arg)
		}
		l.Status = append(l.Status, status)
	}
	h.Logout = append(h.Logout, l)
	return nil
}

func parseSharedAccount(h *Handler, args []string) error {
	n, window, err := parseTimes("shared_account", "<addresses>", args)
	if err != nil {
		return err
	}
	h.SharedAccount = &SharedAccount{n, window}
	return nil
}

func parseFlap(h *Handler, args []string) (err error) {
	h.Flap = new(Flap)
	if len(args) == 1 && args[0] == "off" {
		return nil
	}
	h.Flap.Count, err = strconv.Atoi(args[0])
	if err != nil || h.Flap.Count == 0 {
		return fmt.Errorf("flap: %q is not allowed; write: flap <count> [<half-life>], or: flap off", strings.Join(args, " "))
	}
	h.Flap.HalfLife = caddy.Duration(defaultHalfLife)
	if len(args) == 2 {
		h.Flap.HalfLife, err = parseDuration("flap", args[1], leastWindow)
	}
	return err
}

// parseTimes reads a number and the time in which it counts; 0 for off.
func parseTimes(name, what string, args []string) (n int, window caddy.Duration, err error) {
	if len(args) == 1 && args[0] == "off" {
		return 0, 0, nil
	}
	n, err = strconv.Atoi(args[0])
	if err != nil || n == 0 || len(args) != 2 {
		return 0, 0, fmt.Errorf("%s: %q is not allowed; write: %[1]s %[3]s <window>, or: %[1]s off", name, strings.Join(args, " "), what)
	}
	window, err = parseDuration(name, args[1], leastWindow)
	return n, window, err
}

func parseDrain(h *Handler, args []string) (err error) {
	h.Drain = new(Drain)
	if h.Drain.Window, err = parseDuration("drain", args[0], leastWindow); err != nil {
		return err
	}
	if len(args) == 2 {
		if h.Drain.Rate, err = strconv.Atoi(args[1]); err != nil || h.Drain.Rate < 1 {
			return fmt.Errorf("drain: a rate of %q is not allowed; it is how many streams may end a second, 1 or more", args[1])
		}
	}
	return nil
}

func parseHMACSecret(j *JWT, args []string) error {
	kid, issuers, err := keyArgs("hmac_secret", args[1:])
	s := HMACSecret{KeyID: kid, Issuers: issuers}
	if strings.Contains(args[0], "{") {
		s.Secret = args[0]
	} else {
		s.File = args[0]
	}
	j.HMACSecrets = append(j.HMACSecrets, s)
	return err
}

func parsePublicKey(j *JWT, args []string) error {
	kid, issuers, err := keyArgs("public_key", args[1:])
	j.PublicKeys = append(j.PublicKeys, PublicKey{File: args[0], KeyID: kid, Issuers: issuers})
	return err
}

// keyArgs reads what may follow a key: one more argument, and the issuers whose tokens
// the key is for.
func keyArgs(option string, args []string) (more string, issuers []string, err error) {
	const keyword = "issuer"
	given := strings.Join(args, " ")
	if len(args) > 0 && args[0] != keyword {
		more, args = args[0], args[1:]
	}
	switch {
	case len(args) == 0:
		return more, nil, nil
	case args[0] != keyword || len(args) == 1:
		return "", nil, fmt.Errorf("%s: %q is not allowed behind the key; the issuers whose tokens it is for come last: issuer <name...>", option, given)
	}
	return more, args[1:], nil
}

func parseJWKS(j *JWT, args []string) error {
	refresh, issuers, err := keyArgs("jwks", args[1:])
	s := KeySet{URL: args[0], Issuers: issuers}
	if refresh != "" {
		s.Refresh, err = parseDuration("jwks", refresh, leastRefresh)
	}
	j.JWKS = append(j.JWKS, s)
	return err
}

func (h *Handler) unmarshalJWT(d *caddyfile.Dispenser) error {
	if d.NextArg() {
		return d.Errf("option jwt takes no argument, got %q; its options go in a block", d.Val())
	}
	h.JWT = new(JWT)
	seen := make(map[string]bool)
	for d.NextBlock(1) {
		if err := unmarshalOption(d, h.JWT, "jwt", jwtOptions, seen); err != nil {
			return err
		}
	}
	return nil
}

func (h *Handler) unmarshalRegistry(d *caddyfile.Dispenser) error {
	if !d.NextArg() {
		return d.Errf("option registry does not take 0 arguments; write: registry <module>")
	}
	name := d.Val()
	mod, err := caddy.GetModule("sse_guard.registries." + name)
	if err != nil {
		return d.Errf("registry: %q is not known; it is the name of a module in sse_guard.registries, such as memory", name)
	}
	value := mod.New()
	if u, ok := value.(caddyfile.Unmarshaler); ok {
		if err := u.UnmarshalCaddyfile(d.NewFromNextSegment()); err != nil {
			return err
		}
	} else if d.NextArg() || d.NextBlock(d.Nesting()) {
		return d.Errf("registry %s takes no options", name)
	}
	h.RegistryRaw = caddyconfig.JSONModuleObject(value, "module", name, nil)
	return nil
}

// Interface guard
var _ caddyfile.Unmarshaler = (*Handler)(nil)
