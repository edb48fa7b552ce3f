package caddymodule

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/sse-guard/sse-guard/caddymodule/guard"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// option is all that is known of one option. T is the configuration it belongs
// to: *Handler or *JWT.
//
// The Caddyfile parser, the defaults and Validate read it. The tables of options
// in README and the syntax over UnmarshalCaddyfile are written from it;
// Caddyfile.example, the JSON fields and their comments are tested against it. To
// add an option, add its field and its row: the tests say what else is missing.
type option[T any] struct {
	// name is the option's name in a Caddyfile.
	name string
	// fields are the JSON fields that hold the option; empty: one of its name.
	fields []string
	// syntax is what follows the name: <value>, [optional], this|that and
	// <many...>; [word <value>] is two words or none. At its end, "|off" replaces all arguments, and "{ ... }" is a
	// block. The number of arguments is derived from it, see arity.
	syntax string
	// def is the default as it would be written behind the name, one line for each
	// time that the option is given. Empty: nothing is set.
	def string
	// defDoc describes the default in documents. Empty: def says it all.
	defDoc string
	// doc says what the option does.
	doc string
	// repeats is whether the option may be given more than once.
	repeats bool

	// parse sets the option from the arguments of one line. Its errors name the
	// option, what was given and what is allowed; the caller adds file and line.
	parse func(target T, args []string) error
	// block replaces parse where an option has a block. It begins with d at the
	// option's name, and its errors have file and line.
	block func(target T, d *caddyfile.Dispenser) error
	// validate checks the option, wherever it comes from: a Caddyfile, JSON or its
	// default. Nil: every value is good.
	validate func(target T) error
	// fill sets the option to what it is in defaults, unless target has it. Nil
	// where def is empty.
	fill func(target, defaults T)
}

// options are the options of the directive sse_guard, in the order of the
// documents.
var options = []option[*Handler]{
	text(option[*Handler]{
		name: "zone", syntax: "<name>", def: defaultZone,
		doc:      "Namespace of keys. Guards with one zone share holders. Where guards of several sites have a `key` without the host, each names its zone, or Caddy does not start.",
		validate: func(h *Handler) error { return noPlaceholders("zone", h.Zone) },
	}, func(h *Handler) *string { return &h.Zone }),
	{
		name: "token", syntax: "header|query|cookie|path <name>", repeats: true,
		def:   "header Authorization\nquery token\nquery access_token\ncookie access_token",
		doc:   "Where the token is. `path` is a parameter such as `/events;jsessionid=…`, and counts only if no other source has one.",
		parse: parseToken, validate: (*Handler).validateTokens, fill: fillTokens,
	},
	{
		name: "client", syntax: "header|query|cookie <name> [device|tab]", repeats: true,
		def:   "header X-Client-Id device\nquery client_id device",
		doc:   "Where the client id is, and what it names.",
		parse: parseClient, validate: (*Handler).validateClients, fill: fillClients,
	},
	{
		name: "key", syntax: "<part...>", defDoc: "token, host and path as the client sent it",
		doc:   "What may be held only so often; placeholders.",
		parse: parseKey, validate: (*Handler).validateKey,
	},
	{
		name: "methods", syntax: "any|<name...>", defDoc: "all but `POST`, `PUT`, `PATCH` and `DELETE`",
		doc:   "The methods of the requests that count. Streams of others pass untracked.",
		parse: parseMethods, validate: (*Handler).validateMethods,
	},
	word(option[*Handler]{
		name: "missing_key", def: missingKeyPass, defDoc: "`pass`; `deny` where the key has a claim of the token",
		doc:  "A part of the key is empty: the stream passes untracked, or is refused with 403.",
		fill: fillMissingKey,
	}, func(h *Handler) *string { return &h.MissingKey }, missingKeyPass, missingKeyDeny),
	{
		name: "limit", fields: []string{"limit", "limit_unit"}, syntax: "<n> [streams|clients]", def: "1 streams",
		doc:   "Holders per key; 0 only tracks; `clients` counts a device's tabs once.",
		parse: parseLimit, validate: (*Handler).validateLimit, fill: fillLimit,
	},
	word(option[*Handler]{
		name: "policy", def: "supersede",
		doc: "The newest wins, which is who asked last, or the first stays.",
	}, func(h *Handler) *registry.Policy { return &h.Policy }, registry.Supersede, registry.Reject),
	word(option[*Handler]{
		name: "takeover", def: "auto",
		doc: "When it is decided who has the key. `auto`: before the backend is asked, where the same token holds the key or a verified newcomer is to be rejected, else when it has answered. `response`: always when it has answered. `request` (needs `jwt`): as `auto`, and streams of other tokens of the same user end before the backend is asked, too. Only requests that ask for a stream and nothing else (`Accept: text/event-stream`, as `EventSource` does) are decided before.",
	}, func(h *Handler) *guard.Takeover { return &h.Takeover }, guard.TakeoverAuto, guard.TakeoverResponse, guard.TakeoverRequest),
	{
		name: "retry_refused", syntax: "<status...>|off", def: "409",
		doc:   "Statuses with which a backend refuses a newcomer because it still counts the stream that has just ended for it. The backend is asked again after 20, 40, 80, 160 and 320 ms, within `end_timeout`, if the request is a GET without a body and the answer has no `Retry-After`.",
		parse: parseRetryRefused, validate: (*Handler).validateRetryRefused, fill: fillRetryRefused,
	},
	{
		name: "allow_origin", syntax: "any|<origin...>", defDoc: "none",
		doc:   "Whose pages can read the streams, where `Access-Control-Allow-Origin` is set after the guard has seen the answer's header, as by a deferred `header` directive. See [below](#other-sites).",
		parse: parseAllowOrigin, validate: (*Handler).validateAllowOrigin,
	},
	toggle(option[*Handler]{
		name: "require_token", defDoc: "off",
		doc: "Streams without a token get 401.",
	}, func(h *Handler) *bool { return &h.RequireToken }),
	word(option[*Handler]{
		name: "on_reject", def: "event",
		doc: "What a rejected newcomer gets: an event, a stream that stays open until the key is free (only under `policy reject`), or a 409. With `status` every other temporary refusal is a status too, and closes an `EventSource` for ever.",
	}, func(h *Handler) *guard.OnReject { return &h.OnReject }, guard.RejectEvent, guard.RejectPark, guard.RejectStatus),
	duration(option[*Handler]{
		// Unset is not the same as 5s: only then streams open without it.
		name: "retry", defDoc: "`" + defaultRetry.String() + "`",
		doc: "When a rejected newcomer comes back. If set, it is also sent before the first event of every stream.",
	}, leastDuration, func(h *Handler) *caddy.Duration { return &h.Retry }),
	word(option[*Handler]{
		name: "come_back", def: comeBackCut,
		doc: "How a response ends whose client is to come back: cut off, or finished like any other.",
	}, func(h *Handler) *string { return &h.ComeBack }, comeBackCut, comeBackClean),
	duration(option[*Handler]{
		name: "end_timeout", def: "1s",
		doc: "How long an ended stream waits for a client that does not read, and for the rest of an event that is partly sent.",
	}, leastDuration, func(h *Handler) *caddy.Duration { return &h.EndTimeout }),
	duration(option[*Handler]{
		name: "hold", def: "250ms",
		doc: "How long an event that the backend has not finished is held back at most; up to 0.2s less.",
	}, leastLiveness, func(h *Handler) *caddy.Duration { return &h.Hold }),
	{
		name: "max_event_size", syntax: "<size>", def: "1MiB",
		doc:   "How much of an event that the backend has not finished is held back; then it passes.",
		parse: parseMaxEventSize, validate: (*Handler).validateMaxEventSize,
		fill: fillZero(func(h *Handler) *int64 { return &h.MaxEventSize }),
	},
	{
		name: "event", fields: []string{"events"}, syntax: "<reason> <name>", repeats: true, defDoc: "none",
		doc:   "Renames an injected event: `" + join(renamable, "`, `") + "`.",
		parse: parseEvent, validate: (*Handler).validateEvents,
	},
	{
		name: "message", fields: []string{"messages"}, syntax: "<reason> <text>", repeats: true, defDoc: "a sentence in English",
		doc:   "The `message` of an injected event, for a person to read, for the same reasons as above. It may have placeholders, which are replaced when the stream opens.",
		parse: parseMessage, validate: (*Handler).validateMessages,
	},
	text(option[*Handler]{
		name: "secret", syntax: "<placeholder>", defDoc: "made on first use and kept in Caddy's storage, or by registry redis",
		doc: "What tombstones are signed with: 16 bytes or more.",
	}, func(h *Handler) *string { return &h.Secret }),
	{
		name: "jwt", syntax: "{ ... }", defDoc: "off",
		doc:   "Verify tokens; see below.",
		block: (*Handler).unmarshalJWT, validate: func(h *Handler) error { return h.JWT.validate() },
	},
	word(option[*Handler]{
		name: "on_expiry", def: "renew",
		doc: "At the token's `exp`: end the stream unless a later token of the same session came; end it; leave it.",
	}, func(h *Handler) *guard.OnExpiry { return &h.OnExpiry }, guard.ExpiryRenew, guard.ExpiryEnd, guard.ExpiryKeep),
	{
		name: "logout", syntax: "[<method>] <path> [client|user|token] [<status...>] [deny <duration>]", repeats: true, defDoc: "none",
		doc:   "A request that logs out. Default method: `POST` and `DELETE`; scope: `client` if the request has a client id that a stream has too, else `token`; status: `2xx`; `deny`, how long a token without `exp`, such as a session id, is not accepted: `30s`.",
		parse: parseLogout, validate: (*Handler).validateLogouts,
	},
	durationOrOff(option[*Handler]{
		name: "heartbeat", def: "15s",
		doc: "A comment is sent where nothing else was for that long, or up to a quarter less.",
	}, func(h *Handler) **caddy.Duration { return &h.Heartbeat }),
	durationOrOff(option[*Handler]{
		name: "dead_after", def: "30s",
		doc: "A client that has acknowledged nothing for that long is ended. Longer than `heartbeat`.",
	}, func(h *Handler) **caddy.Duration { return &h.DeadAfter }),
	durationOrOff(option[*Handler]{
		name: "stall_after", def: "off",
		doc: "A stream whose backend has sent nothing for that long ends, and its client comes back.",
	}, func(h *Handler) **caddy.Duration { return &h.StallAfter }),
	durationOrOff(option[*Handler]{
		name: "probe", def: "1s",
		doc: "Under `policy reject`: how long a holder has to prove that it lives before a newcomer is rejected because of it.",
	}, func(h *Handler) **caddy.Duration { return &h.Probe }),
	durationOrOff(option[*Handler]{
		name: "reserve", def: "3s",
		doc: "Under `policy reject`: how long a place is kept for a client that went away. With a `webhook`, under either policy: how long such a client may take to come back before it is told of.",
	}, func(h *Handler) **caddy.Duration { return &h.Reserve }),
	{
		name: "flap", syntax: "<count> [<half-life>]|off", def: "4 1m",
		doc:   "A newcomer that takes the key back is parked once so many take-backs count; the count halves with each half-life. See [below](#pages-that-flap).",
		parse: parseFlap, validate: func(h *Handler) error { return h.Flap.validate() },
		fill: fillZero(func(h *Handler) **Flap { return &h.Flap }),
	},
	duration(option[*Handler]{
		name: "max_age", defDoc: "no limit",
		doc: "A stream ends between two events at about that age (0.88 to 1.1 times), and its client comes back.",
	}, leastWindow, func(h *Handler) *caddy.Duration { return &h.MaxAge }),
	{
		name: "drain", syntax: "<window> [<rate>]", def: "6s",
		doc:   "How all streams end when Caddy stops: within half of that time, at 20 a second, or faster if there are many; at `<rate>` a second or more if that is faster still.",
		parse: parseDrain, validate: func(h *Handler) error { return h.Drain.validate() },
		fill: fillZero(func(h *Handler) **Drain { return &h.Drain }),
	},
	{
		name: "shared_account", syntax: "<addresses> <window>|off", def: "5 10m",
		doc:   "When takeovers of one key look like a shared account: one line in the security log.",
		parse: parseSharedAccount, validate: func(h *Handler) error { return h.SharedAccount.validate() },
		fill: fillZero(func(h *Handler) **SharedAccount { return &h.SharedAccount }),
	},
	{
		name: "label", fields: []string{"labels"}, syntax: "<name> <placeholder>", repeats: true, defDoc: "none",
		doc:   "Names something of a stream, such as the room it shows, so that streams can be listed, counted and ended by it; see [below](#operate-admin-api). Placeholders are replaced when the stream opens. At most 8.",
		parse: parseLabel, validate: (*Handler).validateLabels,
	},
	{
		name: "presence", syntax: "<label> <event> [<interval>]", repeats: true, defDoc: "none",
		doc:   "Tells streams that have the same value of a label how many they are, by an event of that name, whenever that changes, at most once in `<interval>` (`" + defaultPresence.String() + "`); see [the recipe](#tell-a-page-how-many-are-there).",
		parse: parsePresence, validate: (*Handler).validatePresence,
	},
	{
		name: "webhook", fields: []string{"webhooks"}, syntax: "<url> { ... }", repeats: true, defDoc: "none",
		doc:   "Who is told, by signed JSON, what becomes of streams; see [the recipe](#tell-the-backend-why-a-stream-ended).",
		block: (*Handler).unmarshalWebhook, validate: (*Handler).validateWebhooks,
	},
	{
		name: "registry", syntax: "<module> { ... }", defDoc: "`memory`", // set by openZone
		doc:   "Who keeps the holders: this process, or `redis { ... }` for [several nodes](#several-nodes).",
		block: (*Handler).unmarshalRegistry,
	},
}

// jwtOptions are the options in the block of the option jwt, in the order of the
// documents.
var jwtOptions = []option[*JWT]{
	{
		name: "hmac_secret", fields: []string{"hmac_secrets"}, syntax: "<placeholder or file> [<kid>] [issuer <name...>]", repeats: true, defDoc: "none",
		doc:   "For HS256, HS384, HS512. With `issuer`, for the tokens of these only, as for the other keys.",
		parse: parseHMACSecret, validate: (*JWT).validateHMACSecrets,
	},
	{
		name: "public_key", fields: []string{"public_keys"}, syntax: "<PEM file> [<kid>] [issuer <name...>]", repeats: true, defDoc: "none",
		doc:   "RSA, EC or Ed25519 keys, or certificates: every key in the file counts, so put no CA into it. Each is good for the algorithms of its kind only.",
		parse: parsePublicKey, validate: (*JWT).validatePublicKeys,
	},
	{
		name: "jwks", syntax: "<url> [<refresh>] [issuer <name...>]", repeats: true, defDoc: "none",
		doc:   "A published key set, fetched anew every hour unless said otherwise.",
		parse: parseJWKS, validate: (*JWT).validateJWKS,
	},
	words(option[*JWT]{
		name: "algorithms", syntax: "<name...>", defDoc: "all of each key's kind",
		doc: "Accept only these. `none` is never accepted.",
	}, func(j *JWT) *[]string { return &j.Algorithms }),
	words(option[*JWT]{
		name: "issuer", fields: []string{"issuers"}, syntax: "<name...>", defDoc: "those behind the keys, or else anybody who has the keys",
		doc: "Who must have issued the token (`iss`): any of these. Where there are several issuers and several keys, each key names its own.",
	}, func(j *JWT) *[]string { return &j.Issuers }),
	words(option[*JWT]{
		name: "audience", fields: []string{"audiences"}, syntax: "<name...>", defDoc: "not looked at",
		doc: "Whom the token must be for (`aud`): any of these.",
	}, func(j *JWT) *[]string { return &j.Audiences }),
	orZero(duration(option[*JWT]{
		name: "leeway", defDoc: "`0s`",
		doc: "How far clocks may differ.",
	}, leastDuration, func(j *JWT) *caddy.Duration { return &j.Leeway })),
	words(option[*JWT]{
		name: "require", syntax: "<claim...>", defDoc: "none",
		doc: "Claims that must be there.",
	}, func(j *JWT) *[]string { return &j.Require }),
	toggle(option[*JWT]{
		name: "optional", defDoc: "off",
		doc: "Streams without a token pass, untracked.",
	}, func(j *JWT) *bool { return &j.Optional }),
	toggle(option[*JWT]{
		name: "unverified", defDoc: "off",
		doc: "Only the backend has the keys; see the recipe.",
	}, func(j *JWT) *bool { return &j.Unverified }),
}

// optionNamed finds an option by its name in a Caddyfile.
func optionNamed[T any](options []option[T], name string) (option[T], bool) {
	i := slices.IndexFunc(options, func(o option[T]) bool { return o.name == name })
	if i < 0 {
		return option[T]{}, false
	}
	return options[i], true
}

// usage is how the option is written.
func (o option[T]) usage() string { return strings.TrimSpace(o.name + " " + o.syntax) }

// setDefaults sets the options that the configuration leaves out, as if the lines
// of the table's defaults were in it.
func (h *Handler) setDefaults() {
	defaults := new(Handler)
	for _, o := range options {
		if o.def == "" {
			continue
		}
		for line := range strings.SplitSeq(o.def, "\n") {
			if err := o.parse(defaults, strings.Fields(line)); err != nil {
				panic(fmt.Sprintf("the table of options: the default %q: %v", line, err))
			}
		}
		o.fill(h, defaults)
	}
}

// syntaxWord is one argument of a syntax. Within <> it may have blanks.
var syntaxWord = regexp.MustCompile(`(<[^>]*>|[^\s<])+`)

// arity is how many arguments a syntax allows; most is -1 where it has no bound.
func arity(syntax string) (least, most int) {
	syntax = strings.TrimSuffix(syntax, "{ ... }")
	optional := false // the brackets may have several words
	for _, word := range syntaxWord.FindAllString(syntax, -1) {
		optional = optional || strings.HasPrefix(word, "[")
		if !optional {
			least++
		}
		optional = optional && !strings.HasSuffix(word, "]")
		if strings.Contains(word, "...") {
			return least, -1 // nothing follows it
		}
		most++
	}
	if strings.HasSuffix(syntax, "|off") {
		least = 1
	}
	return least, most
}
