package caddymodule

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/dustin/go-humanize"

	"github.com/sse-guard/sse-guard/caddymodule/guard"
	"github.com/sse-guard/sse-guard/caddymodule/identity"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

func parseCaddyfile(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	handler := new(Handler)
	if err := handler.UnmarshalCaddyfile(h.Dispenser); err != nil {
		return nil, err
	}
	return handler, nil
}

// UnmarshalCaddyfile sets up the handler from Caddyfile tokens. Syntax:
//
//	sse_guard [<matcher>] {
//	    zone           <name>
//	    token          header|query|cookie <name>
//	    client         header|query|cookie <name> [device|tab]
//	    key            <part...>
//	    missing_key    pass|deny
//	    limit          <n> [streams|clients]
//	    policy         supersede|reject
//	    takeover       auto|response|request
//	    require_token
//	    on_reject      event|park|status
//	    retry          <duration>
//	    end_timeout    <duration>
//	    max_event_size <size>
//	    event          <reason> <name>
//	    secret         <placeholder>
//	    jwt {
//	        hmac_secret <placeholder or file> [<kid>]
//	        public_key  <PEM file> [<kid>]
//	        jwks        <url> [<refresh>]
//	        algorithms  <name...>
//	        issuer      <name...>
//	        audience    <name...>
//	        leeway      <duration>
//	        require     <claim...>
//	        optional
//	        unverified
//	    }
//	    on_expiry      renew|end|keep
//	    logout         [<method>] <path> [client|user|token] [<status...>]
//	    shared_account <addresses> <window>|off
//	    heartbeat      <duration>|off
//	    dead_after     <duration>|off
//	    probe          <duration>|off
//	    reserve        <duration>|off
//	    flap           <n> <window>|off
//	    max_age        <duration>
//	    drain          <window> [<rate>]
//	    registry       <module> { ... }
//	}
//
// The options token, client, event, logout, hmac_secret, public_key and jwks may
// be repeated.
func (h *Handler) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // directive name
	if d.NextArg() {
		return d.Errf("sse_guard takes no argument but a matcher, got %q; options go in a block", d.Val())
	}
	seen := make(map[string]bool)
	for d.NextBlock(0) {
		name := d.Val()
		var err error
		switch name {
		case "registry":
			err = h.unmarshalRegistry(d)
		case "jwt":
			err = h.unmarshalJWT(d)
		default:
			err = unmarshalOption(d, h, "sse_guard", options, seen, "jwt", "registry")
		}
		if err != nil {
			return err
		}
		// Asked after each option, so that the error names the line of the one
		// that contradicts an earlier one.
		if err := h.validateContradictions(); err != nil {
			return d.WrapErr(err)
		}
	}
	if err := h.validateWhole(); err != nil {
		return d.WrapErr(err)
	}
	return nil
}

// unmarshalOption reads one of the options of owner's block into target; others
// are the names of those that are read elsewhere.
func unmarshalOption[T any](d *caddyfile.Dispenser, target T, owner string, options map[string]option[T], seen map[string]bool, others ...string) error {
	name := d.Val()
	option, ok := options[name]
	if !ok {
		names := append(slices.Collect(maps.Keys(options)), others...)
		slices.Sort(names)
		return d.Errf("unknown option %q of %s; the options are: %s", name, owner, strings.Join(names, ", "))
	}
	if seen[name] && !option.repeats {
		return d.Errf("option %s is given twice, expected once", name)
	}
	seen[name] = true
	usage := strings.TrimSpace(name + " " + option.syntax)
	args := d.RemainingArgs()
	if len(args) < option.least || option.most >= 0 && len(args) > option.most {
		return d.Errf("option %s does not take %d arguments; write: %s", name, len(args), usage)
	}
	if err := option.set(target, args); err != nil {
		return d.WrapErr(err)
	}
	if d.NextBlock(d.Nesting()) {
		d.Prev() // to the brace: it is on the option's line
		return d.Errf("option %s takes no block; write: %s", name, usage)
	}
	return nil
}

// option is a Caddyfile option that is one line.
type option[T any] struct {
	syntax      string
	least, most int // arguments; most -1: any number
	repeats     bool
	set         func(target T, args []string) error
}

// options by name; jwt and registry, which have a block, are apart.
var options = map[string]option[*Handler]{
	"zone":        text("zone", "<name>", func(h *Handler) *string { return &h.Zone }),
	"secret":      text("secret", "<placeholder>", func(h *Handler) *string { return &h.Secret }),
	"missing_key": word("missing_key", func(h *Handler) *string { return &h.MissingKey }, missingKeyPass, missingKeyDeny),
	"policy":      word("policy", func(h *Handler) *registry.Policy { return &h.Policy }, registry.Supersede, registry.Reject),
	"takeover":    word("takeover", func(h *Handler) *guard.Takeover { return &h.Takeover }, guard.TakeoverAuto, guard.TakeoverResponse, guard.TakeoverRequest),
	"on_expiry":   word("on_expiry", func(h *Handler) *guard.OnExpiry { return &h.OnExpiry }, guard.ExpiryRenew, guard.ExpiryEnd, guard.ExpiryKeep),
	"on_reject":   word("on_reject", func(h *Handler) *guard.OnReject { return &h.OnReject }, guard.RejectEvent, guard.RejectPark, guard.RejectStatus),
	"retry":       duration("retry", func(h *Handler) *caddy.Duration { return &h.Retry }),
	"end_timeout": duration("end_timeout", func(h *Handler) *caddy.Duration { return &h.EndTimeout }),
	"heartbeat":   durationOrOff("heartbeat", func(h *Handler) **caddy.Duration { return &h.Heartbeat }),
	"dead_after":  durationOrOff("dead_after", func(h *Handler) **caddy.Duration { return &h.DeadAfter }),
	"probe":       durationOrOff("probe", func(h *Handler) **caddy.Duration { return &h.Probe }),
	"reserve":     durationOrOff("reserve", func(h *Handler) **caddy.Duration { return &h.Reserve }),
	"max_age":     duration("max_age", func(h *Handler) *caddy.Duration { return &h.MaxAge }),
	"require_token": {set: func(h *Handler, _ []string) error {
		h.RequireToken = true
		return nil
	}},
	"token":          {syntax: "header|query|cookie <name>", least: 2, most: 2, repeats: true, set: setToken},
	"client":         {syntax: "header|query|cookie <name> [device|tab]", least: 2, most: 3, repeats: true, set: setClient},
	"key":            {syntax: "<part...>", least: 1, most: -1, set: setKey},
	"limit":          {syntax: "<n> [streams|clients]", least: 1, most: 2, set: setLimit},
	"max_event_size": {syntax: "<size>", least: 1, most: 1, set: setMaxEventSize},
	"event":          {syntax: "<reason> <name>", least: 2, most: 2, repeats: true, set: setEvent},
	"logout":         {syntax: "[<method>] <path> [client|user|token] [<status...>]", least: 1, most: -1, repeats: true, set: setLogout},
	"shared_account": {syntax: "<addresses> <window>|off", least: 1, most: 2, set: setSharedAccount},
	"flap":           {syntax: "<n> <window>|off", least: 1, most: 2, set: setFlap},
	"drain":          {syntax: "<window> [<rate>]", least: 1, most: 2, set: setDrain},
}

// text is an option of one word or quoted text.
func text(name, syntax string, field func(*Handler) *string) option[*Handler] {
	return option[*Handler]{syntax: syntax, least: 1, most: 1, set: func(h *Handler, args []string) error {
		if strings.TrimSpace(args[0]) == "" {
			return fmt.Errorf("%s: %q is not allowed; write: %s %s", name, args[0], name, syntax)
		}
		*field(h) = args[0]
		return nil
	}}
}

// word is an option with a fixed set of values.
func word[T ~string](name string, field func(*Handler) *T, allowed ...T) option[*Handler] {
	values := make([]string, len(allowed))
	for i, a := range allowed {
		values[i] = string(a)
	}
	return option[*Handler]{syntax: strings.Join(values, "|"), least: 1, most: 1, set: func(h *Handler, args []string) error {
		*field(h) = T(args[0])
		return oneOf(name, T(args[0]), allowed...)
	}}
}

// duration is an option of a duration, which is never zero.
func duration(name string, field func(*Handler) *caddy.Duration) option[*Handler] {
	return option[*Handler]{syntax: "<duration>", least: 1, most: 1, set: func(h *Handler, args []string) (err error) {
		*field(h), err = parseDuration(name, args[0], leastDuration)
		return err
	}}
}

// durationOrOff is an option of a duration that may be turned off.
func durationOrOff(name string, field func(*Handler) **caddy.Duration) option[*Handler] {
	return option[*Handler]{syntax: "<duration>|off", least: 1, most: 1, set: func(h *Handler, args []string) error {
		var d caddy.Duration
		if args[0] != "off" {
			var err error
			if d, err = parseDuration(name, args[0], leastLiveness); err != nil {
				return fmt.Errorf("%w, or off", err)
			}
		}
		*field(h) = &d
		return nil
	}}
}

func parseDuration(name, given string, least time.Duration) (caddy.Duration, error) {
	value, err := caddy.ParseDuration(given)
	if err != nil || value < least {
		return 0, fmt.Errorf("%s: %q is not allowed; it is a duration of at least %s, such as 500ms or 5s", name, given, least)
	}
	return caddy.Duration(value), nil
}

func setToken(h *Handler, args []string) error {
	h.Token = append(h.Token, identity.TokenSource{From: identity.From(args[0]), Name: args[1]})
	return identity.ValidateTokens(h.Token)
}

func setClient(h *Handler, args []string) error {
	source := identity.ClientSource{From: identity.From(args[0]), Name: args[1]}
	if len(args) == 3 {
		source.Scope = identity.Scope(args[2])
	}
	h.Client = append(h.Client, source)
	return identity.ValidateClients(h.Client)
}

func setKey(h *Handler, args []string) error {
	h.Key = args
	return h.validateKey()
}

func setLimit(h *Handler, args []string) error {
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

func setMaxEventSize(h *Handler, args []string) error {
	size, err := humanize.ParseBytes(args[0])
	if err != nil || size < 1 || size > math.MaxInt32 {
		return fmt.Errorf("max_event_size: %q is not allowed; it is a size from 1B to less than 2GiB, such as 256KiB", args[0])
	}
	h.MaxEventSize = int64(size)
	return nil
}

func setEvent(h *Handler, args []string) error {
	reason := registry.Reason(args[0])
	if _, twice := h.Events[reason]; twice {
		return fmt.Errorf("event: %s is renamed twice, expected once", reason)
	}
	if h.Events == nil {
		h.Events = make(map[registry.Reason]string)
	}
	h.Events[reason] = args[1]
	return h.validateEvents()
}

func setLogout(h *Handler, args []string) error {
	var l Logout
	if !strings.HasPrefix(args[0], "/") && !strings.HasPrefix(args[0], "*") && len(args) > 1 {
		l.Method, args = args[0], args[1:]
	}
	l.Path, args = args[0], args[1:]
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
	return l.validate()
}

func setSharedAccount(h *Handler, args []string) error {
	n, window, err := parseTimes("shared_account", "<addresses>", args)
	if err != nil {
		return err
	}
	h.SharedAccount = &SharedAccount{n, window}
	return h.SharedAccount.validate()
}

func setFlap(h *Handler, args []string) error {
	n, window, err := parseTimes("flap", "<n>", args)
	if err != nil {
		return err
	}
	h.Flap = &Flap{n, window}
	return h.Flap.validate()
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

func setDrain(h *Handler, args []string) (err error) {
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

// jwtOptions by name.
var jwtOptions = map[string]option[*JWT]{
	"hmac_secret": {syntax: "<placeholder or file> [<kid>]", least: 1, most: 2, repeats: true, set: func(j *JWT, args []string) error {
		s := HMACSecret{KeyID: kid(args)}
		if strings.Contains(args[0], "{") {
			s.Secret = args[0]
		} else {
			s.File = args[0]
		}
		j.HMACSecrets = append(j.HMACSecrets, s)
		return nil
	}},
	"public_key": {syntax: "<PEM file> [<kid>]", least: 1, most: 2, repeats: true, set: func(j *JWT, args []string) error {
		j.PublicKeys = append(j.PublicKeys, PublicKey{File: args[0], KeyID: kid(args)})
		return nil
	}},
	"jwks": {syntax: "<url> [<refresh>]", least: 1, most: 2, repeats: true, set: func(j *JWT, args []string) (err error) {
		s := KeySet{URL: args[0]}
		if len(args) == 2 {
			s.Refresh, err = parseDuration("jwks", args[1], leastRefresh)
		}
		j.JWKS = append(j.JWKS, s)
		return err
	}},
	"algorithms": words("<name...>", func(j *JWT) *[]string { return &j.Algorithms }),
	"issuer":     words("<name...>", func(j *JWT) *[]string { return &j.Issuers }),
	"audience":   words("<name...>", func(j *JWT) *[]string { return &j.Audiences }),
	"require":    words("<claim...>", func(j *JWT) *[]string { return &j.Require }),
	"leeway": {syntax: "<duration>", least: 1, most: 1, set: func(j *JWT, args []string) (err error) {
		j.Leeway, err = parseDuration("leeway", args[0], 0)
		return err
	}},
	"optional": {set: func(j *JWT, _ []string) error {
		j.Optional = true
		return nil
	}},
	"unverified": {set: func(j *JWT, _ []string) error {
		j.Unverified = true
		return nil
	}},
}

// kid is the optional second argument of a key.
func kid(args []string) string {
	if len(args) == 2 {
		return args[1]
	}
	return ""
}

func words(syntax string, field func(*JWT) *[]string) option[*JWT] {
	return option[*JWT]{syntax: syntax, least: 1, most: -1, set: func(j *JWT, args []string) error {
		*field(j) = args
		return nil
	}}
}

func (h *Handler) unmarshalJWT(d *caddyfile.Dispenser) error {
	if h.JWT != nil {
		return d.Errf("option jwt is given twice, expected once")
	}
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
	if err := h.JWT.validate(); err != nil {
		return d.WrapErr(err)
	}
	return nil
}

func (h *Handler) unmarshalRegistry(d *caddyfile.Dispenser) error {
	if len(h.RegistryRaw) > 0 {
		return d.Errf("option registry is given twice, expected once")
	}
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
