// Package caddymodule is what Caddy sees of sse_guard: the HTTP handler, its
// Caddyfile, and the commands. What they do is in the packages below.
package caddymodule

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"

	"github.com/sse-guard/sse-guard/caddymodule/guard"
	"github.com/sse-guard/sse-guard/caddymodule/identity"
	"github.com/sse-guard/sse-guard/caddymodule/reason"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
	"github.com/sse-guard/sse-guard/caddymodule/stream"
	"github.com/sse-guard/sse-guard/caddymodule/zone"
)

func init() {
	caddy.RegisterModule(Handler{})
	httpcaddyfile.RegisterDirective("sse_guard", parseCaddyfile)
	// Before invoke, and so before handle, handle_path, route and reverse_proxy.
	httpcaddyfile.RegisterDirectiveOrder("sse_guard", httpcaddyfile.Before, "invoke")
}

// Handler governs Server-Sent Events streams: it knows which token or client
// holds which `text/event-stream` response of the handlers behind it, ends the
// ones that were superseded with an event, and keeps them from coming back by
// themselves. Everything else passes through untouched.
//
// With no option set, the newest stream of a token on a host and path wins,
// unless it answers a POST, PUT, PATCH or DELETE, and the older one gets a `DUPLICATED_CONNECTION` event and ends.
//
// The guard stops a stranger's request from ending a stream only as far as the
// backend verifies the very credential that the key is made of.
//
// It sets these placeholders, for its key and for the handlers behind it:
//
// Placeholder | Description
// ------------|-------------
// `{sse_guard.key}` | A short hash of the key, as in log lines; no part of the key itself
// `{sse_guard.token}` | A hash of the token; empty without one
// `{sse_guard.client}` | A hash of the client id, within its token or verified user; empty without one
// `{sse_guard.claims.*}` | A claim of the token, if it is good: `sub`, `realm_access.roles`; dots lead into objects, arrays are joined with commas
// `{sse_guard.stream}` | The stream's id; empty while the answer is none
// `{sse_guard.state}` | `live`, `untracked`, `parked` or `refused`; empty while the answer is no stream
// `{sse_guard.reason}` | Why the stream is over, or the request was refused: a `reason` or an `outcome` of the metrics; empty before
type Handler struct {
	// The namespace of keys. Guards with the same zone share holders. Guards of two
	// sites that have a `key` without the host must name their zones, or Caddy does not
	// start: a user of one site could end the streams of another user of the other. A
	// site is the routes of one server for the same hosts, or a site block of a Caddyfile.
	// Default: `default`.
	Zone string `json:"zone,omitempty"`

	// Where to find the token. All sources are looked at; two different
	// tokens in one request that asks for a stream are refused with 400.
	// A `Bearer ` prefix is removed; of the `Authorization` header, other
	// schemes are ignored. A parameter of the `path` (`/events;jsessionid=1234`)
	// counts only if there is no token elsewhere; the default key then has the
	// path without parameters. Default: `header Authorization`, `query token`,
	// `query access_token`, `cookie access_token`.
	Token []identity.TokenSource `json:"token,omitempty"`

	// Where to find the client id, and whether it names a `device` (a browser
	// profile; the default) or a `tab`. A new stream of a tab always replaces
	// its older one. A new stream of a device replaces the device's older one
	// when the key is full and the policy is `supersede`. A client id counts
	// only among streams of the same token, or of the same verified user, since
	// clients choose it.
	// Default: `header X-Client-Id device`, `query client_id device`.
	Client []identity.ClientSource `json:"client,omitempty"`

	// The parts of what may be held only so often, with placeholders.
	// `{sse_guard.token}` and `{sse_guard.client}` are hashes of what was
	// found. A part may come from the backend's response header
	// (`{http.reverse_proxy.header.X-User}`).
	// Default: token, host and path as the client sent it.
	Key []string `json:"key,omitempty"`

	// The methods of the requests that count, in any case; `any` alone stands for
	// all. A stream of another method passes untracked. LLM gateways, whose
	// streams answer a POST, write `any` or `POST`.
	// Default: all but `POST`, `PUT`, `PATCH` and `DELETE`.
	Methods identity.Methods `json:"methods,omitempty"`

	// What to do with a stream when a key part is empty: `pass` it untracked,
	// or `deny` it with 403. Default: `pass`; `deny` where the key has a claim of
	// the token.
	MissingKey string `json:"missing_key,omitempty"`

	// How many may hold a key; 0 tracks without limit. Default: `1`.
	Limit *int `json:"limit,omitempty"`

	// What the limit counts: `streams`, or `clients`, where the streams of one
	// client id count once. Default: `streams`.
	LimitUnit registry.Unit `json:"limit_unit,omitempty"`

	// Who yields when the key is full: `supersede` ends the oldest holder,
	// `reject` refuses the newcomer. Default: `supersede`.
	Policy registry.Policy `json:"policy,omitempty"`

	// When to decide: `auto` decides before the backend is asked if the key
	// can be computed from the request and the present holder carries the
	// same token, or the newcomer is to be rejected and its token was verified
	// here, else when the backend has answered; `response` always
	// waits for the backend's answer. `request` ends the older streams of a
	// user before the backend is asked even if they carry another token, for
	// backends that count connections themselves and would refuse the newcomer
	// because of the older one; it needs `jwt`. A newcomer that the backend then
	// refuses has cost the older stream all the same. Default: `auto`.
	Takeover guard.Takeover `json:"takeover,omitempty"`

	// The statuses with which the backend may refuse a newcomer since it still counts
	// a stream that has just ended, as it does for some milliseconds. A GET without a
	// body that ended an older stream, or waited for one of its own client to be
	// gone, and that is refused so, without `Retry-After`, is sent again after 20,
	// 40, 80, 160 and 320 milliseconds, until the backend has it or `end_timeout` is
	// over. An empty list turns it off. Default: `409`.
	RetryRefused []int `json:"retry_refused,omitzero"`

	// Whose pages can read the streams: origins such as `https://app.example.com`, or
	// `any`. It is needed only where the guard cannot see that the backend lets them,
	// since the answer's `Access-Control-Allow-Origin` is set behind its back, as by a
	// deferred `header` directive. A stream that no page can read is one that any site
	// can ask for in a user's name: it gets a free place and no other, ends nobody, and
	// gives its place to the first who asks, whatever the policy. Default: none.
	AllowOrigin []string `json:"allow_origin,omitempty"`

	// Refuse streams without a token with 401, which stops `EventSource` from
	// asking again. Default: off.
	RequireToken bool `json:"require_token,omitempty"`

	// How tokens are verified. Default: off; the guard then knows a token
	// by its hash only.
	JWT *JWT `json:"jwt,omitempty"`

	// What becomes of a stream at the end of its token's life (`exp`): `renew`
	// ends it with a `TOKEN_EXPIRED` event, unless a later request through a
	// guard of the zone has shown a good token of the same user (`sub`, and
	// `sid` where there is one) with a later end; `end` ends it in any case;
	// `keep` leaves it. It needs `jwt`. Default: `renew`.
	OnExpiry guard.OnExpiry `json:"on_expiry,omitempty"`

	// Requests that log out. They pass to the backend as always; when it answers
	// with success, streams end with a `LOGGED_OUT` event before the answer goes
	// out, and the token is not accepted any more. Default: none.
	Logout []Logout `json:"logout,omitempty"`

	// When takeovers of one key look like a shared account, which is worth a
	// line in the security log. Default: `5 10m`: 5 addresses in 10
	// minutes.
	SharedAccount *SharedAccount `json:"shared_account,omitempty"`

	// How long nothing may be written to a stream until a comment is, which
	// clients ignore: it keeps connections open, and shows whether the client
	// still acknowledges. It comes up to a quarter earlier, so that not all streams
	// beat at once. 0 turns it off. Default: `15s`.
	Heartbeat *caddy.Duration `json:"heartbeat,omitempty"`

	// How long a client may acknowledge nothing until its stream ends. On Linux
	// the kernel knows. Elsewhere, and where the connection cannot be reached
	// (HTTP/3, some listener wrappers), only a client counts as dead that takes
	// nothing in for so long. It must be longer than the heartbeat, without which a
	// client that was idle when it went is not noticed. 0 turns it off.
	// Default: `30s`.
	DeadAfter *caddy.Duration `json:"dead_after,omitempty"`

	// How long the backend may send nothing, not even a comment, until a stream ends
	// and its client comes back. The guard's own heartbeats do not count. Give it
	// more time than a healthy backend needs between two events, or two of its own
	// heartbeats. 0 turns it off. Default: `off`.
	StallAfter *caddy.Duration `json:"stall_after,omitempty"`

	// How long a holder has to prove that it lives, by acknowledging a comment,
	// before a newcomer is rejected because of it; twice the connection's
	// retransmission timeout if that is longer. Where the kernel cannot tell, or a
	// load balancer acknowledges for its clients, the holder is taken to live.
	// 0 turns it off. Default: `1s`.
	Probe *caddy.Duration `json:"probe,omitempty"`

	// How long a place is kept for a client that went away, under the policy
	// `reject`: the same client id, or else the same token, address and
	// User-Agent, gets it back, so that whoever asks most often does not win
	// against a page that reloads. A webhook is told that a client has left once it had
	// that time to come back, under either policy. 0 turns it off. Default: `3s`.
	Reserve *caddy.Duration `json:"reserve,omitempty"`

	// When pages that take the key from each other again and again come to rest
	// (flap damping): a newcomer that takes the key back less than 10 seconds after
	// a client of its token, or verified user, lost it, waits until the key is free
	// once that has happened `count` times. The number halves with each `half_life`.
	// What does not count is a loss whose client shows its tombstone within 3
	// seconds, unless that has gone on for 20 seconds, and more than eleven times.
	// Default: `4 1m`.
	Flap *Flap `json:"flap,omitempty"`

	// How long a stream may live, about: 0.88 to 1.1 times. It then ends between two
	// events, and its client comes back at once with its Last-Event-ID. For
	// backends that would end it with an error otherwise. Default: no limit.
	MaxAge caddy.Duration `json:"max_age,omitempty"`

	// How all streams end when Caddy stops, or no guard of the zone is left after
	// a reload: within the window, and no longer than half of it, their clients
	// being told to come back at different times within it. The window is shorter
	// if Caddy's `grace_period` is. Default: `6s`, half of which, and `end_timeout`,
	// fit into the 5 seconds that systemd allows Caddy.
	Drain *Drain `json:"drain,omitempty"`

	// What a rejected newcomer gets if it asked for a stream: `event`, a
	// stream of one `DUPLICATE_SESSION` event that tells it when to come back;
	// `park`, the same event on a stream that stays open until the key is
	// free; `status`, a 409, after which `EventSource` never comes back.
	// Requests that did not ask for a stream always get the 409.
	// Default: `event`.
	OnReject guard.OnReject `json:"on_reject,omitempty"`

	// When rejected newcomers are told to come back. If set, it is also sent
	// before the first event of each stream. Default: `5s`, for rejected newcomers only.
	Retry caddy.Duration `json:"retry,omitempty"`

	// How a response ends whose client is to come back by itself (`max_age`, a
	// shutdown, a newcomer that is refused for the time being, the end of parking, a
	// stalled backend, a dead client, registry redis with `on_error fence`):
	// `cut` off, which every client takes for a failure and tries again, or `clean`,
	// finished as other responses are, which many take for the end. Default: `cut`.
	ComeBack string `json:"come_back,omitempty"`

	// How long an ended stream may wait for its client to read, or for the rest of
	// an event that is partly sent, before it is cut, and a newcomer for the older stream's upstream
	// request to be gone. Default: `1s`.
	EndTimeout caddy.Duration `json:"end_timeout,omitempty"`

	// How long an unfinished event is held back at most, and up to 0.2s less, so that a
	// client never gets half an event when its stream is ended. Then what is there
	// passes, and the rest as it comes: the body may be no framed event stream. At
	// least 100ms. Default: `250ms`.
	Hold caddy.Duration `json:"hold,omitempty"`

	// How many bytes of an unfinished event are held back, so that a client
	// never gets half an event when its stream is ended. Default: `1MiB`.
	MaxEventSize int64 `json:"max_event_size,omitempty"`

	// Other names for the injected events, by reason: `superseded`,
	// `replaced`, `parked`, `rejected`, `logout`, `revoked`, `expired`. Default: none.
	Events map[reason.Reason]string `json:"events,omitempty"`

	// What the injected events tell a person, by the same reasons, with placeholders,
	// which are replaced when the stream opens. Default: a sentence in English.
	Messages map[reason.Reason]string `json:"messages,omitempty"`

	// The secret that tombstones are signed with, 16 bytes or more; usually a
	// placeholder such as `{env.SSE_GUARD_SECRET}`. Default: made on first
	// use and kept in Caddy's storage, or by registry redis.
	Secret string `json:"secret,omitempty"`

	// Names something of each stream by a placeholder, such as the room it shows:
	// `"room": "{http.request.uri.query.room}"`. Streams can then be listed, counted and
	// ended by it. The placeholders are replaced when the stream opens, so they may be
	// of the backend's response header, too. At most 8 names, of a-z, 0-9 and _. A value
	// has at most 64 bytes; of a longer one the rest is kept as a hash. Default: none.
	Labels map[string]string `json:"labels,omitempty"`

	// Labels whose streams are told how many have the same value. Default: none.
	Presence []Presence `json:"presence,omitempty"`

	// Who is told what becomes of streams. Default: none.
	Webhooks []Webhook `json:"webhooks,omitempty"`

	// Who keeps the holders. Default: `memory`.
	RegistryRaw json.RawMessage `json:"registry,omitempty" caddy:"namespace=sse_guard.registries inline_key=module"`

	// Where a Caddyfile has the directive. Its adapter sets it, for error messages and
	// to tell sites apart. Default: none.
	DefinedAt string `json:"defined_at,omitempty"`

	guard *guard.Guard
	zone  openedZone
	hooks []openedHook
	// zoneNamed says that the configuration names the zone.
	zoneNamed bool
}

const (
	defaultZone = "default"
	// defaultRetry is for rejected newcomers only, so it is not set as Retry.
	defaultRetry = 5 * time.Second

	missingKeyPass = "pass"
	missingKeyDeny = "deny"

	comeBackCut   = "cut"
	comeBackClean = "clean"

	// heldBytes is how much of unfinished events is held back in the whole process.
	heldBytes = 64 << 20
)

// held bounds what the streams of all guards hold back together. They share it as
// they share the process's memory.
var held = stream.NewBudget(heldBytes)

// CaddyModule returns the Caddy module information.
func (Handler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.sse_guard",
		New: func() caddy.Module { return new(Handler) },
	}
}

// Provision sets up the handler. Where it comes from a Caddyfile, its errors say where.
func (h *Handler) Provision(ctx caddy.Context) error {
	if err := h.provision(ctx); err != nil {
		if h.DefinedAt != "" {
			return fmt.Errorf("%s: %w", h.DefinedAt, err)
		}
		return err
	}
	return nil
}

func (h *Handler) provision(ctx caddy.Context) error {
	if err := refuseAtExit(); err != nil {
		return err
	}
	h.zoneNamed = h.Zone != ""
	if err := h.validateGiven(); err != nil {
		return err
	}
	h.setDefaults()
	if err := h.Validate(); err != nil {
		return err // before anything is opened by these values
	}
	secret, err := newSecret(ctx, h.Secret)
	if err != nil {
		return err
	}
	if err := h.openZone(ctx); err != nil {
		return err
	}
	app, err := appOf(ctx)
	if err != nil {
		return err
	}
	app.starts(h.zone.Registry, h.zone.renewer)
	sign := secret.signer
	if k, ok := registry.As[keeper](h.zone.Registry); ok && h.Secret == "" {
		sign = newSharedSecret(secret, k).signer
	}
	config, err := h.config(ctx, app, sign)
	if err != nil {
		return err
	}
	h.guard = guard.New(config)
	if srv, ok := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server); ok {
		srv.RegisterConnContext(withConn)
		srv.RegisterOnShutdown(h.serverStops)
	}
	fingerprint, err := h.fingerprint()
	if err != nil {
		return err
	}
	app.join(h.Zone, member{h.guard, fingerprint, h.JWT.trust()})
	return nil
}

// config is what the options mean to the guard.
func (h *Handler) config(ctx caddy.Context, app *App, sign signs) (guard.Config, error) {
	extractor, err := identity.NewExtractor(h.Token, h.Client)
	if err != nil {
		return guard.Config{}, err
	}
	logouts, err := h.logouts(ctx, extractor)
	if err != nil {
		return guard.Config{}, err
	}
	logger := ctx.Logger()
	config := guard.Config{
		Zone:           h.zone.Zone,
		Identity:       extractor.WithOriginal(originalURL),
		Methods:        h.Methods,
		Key:            h.canonicalKey(),
		KeyFromRequest: h.keyFromRequest(),
		DenyMissing:    h.MissingKey == missingKeyDeny,
		Rule:           registry.Rule{Policy: h.Policy, Limit: *h.Limit, Unit: h.LimitUnit},
		Takeover:       h.Takeover,
		RetryRefused:   h.RetryRefused,
		AllowOrigin:    h.origins(),
		RequireToken:   h.RequireToken,
		Logouts:        logouts,
		Probe:          time.Duration(*h.Probe),
		Flap:           h.Flap.rule(),
		Drain:          zone.Drain{Window: h.drainWindow(ctx), Rate: h.Drain.Rate, EndTimeout: time.Duration(h.EndTimeout)},
		OnReject:       h.OnReject,
		Retry:          time.Duration(h.Retry),
		Names:          h.Events,
		Messages:       h.canonicalMessages(),
		Labels:         h.labels(),
		Presence:       h.presences(),
		Stream: stream.Config{
			EndTimeout:   time.Duration(h.EndTimeout),
			MaxEventSize: int(h.MaxEventSize),
			Hold:         time.Duration(h.Hold),
			Held:         held,
			FinishAll:    h.ComeBack == comeBackClean,
			StallAfter:   time.Duration(*h.StallAfter),
			OpenRetry:    time.Duration(h.Retry),
			Heartbeat:    time.Duration(*h.Heartbeat),
			DeadAfter:    time.Duration(*h.DeadAfter),
			MaxAge:       time.Duration(h.MaxAge),
			Wheel:        h.zone.Wheel,
		},
		OnExpiry: h.OnExpiry,
		Sharing:  guard.Sharing{Addrs: h.SharedAccount.Addresses, Window: time.Duration(h.SharedAccount.Window)},
		Signer:   sign,
		Logger:   logger,
		Security: logger.Named("security"),
	}
	if h.Retry == 0 {
		config.Retry = defaultRetry
	}
	if h.isConstantKey() && !h.meansWhole() {
		logger.Warn("the key has no placeholder of the request: all streams of this guard share it, whoever asks; if that is not meant, write one in braces, such as {sse_guard.token}",
			zap.String("zone", h.Zone), zap.Strings("key", h.Key))
	}
	if config.Observers, err = h.openWebhooks(time.Duration(*h.Reserve)); err != nil {
		return guard.Config{}, err
	}
	if h.Policy == registry.Reject {
		config.Reserve = time.Duration(*h.Reserve)
	}
	if err := h.verifyTokens(&config, app); err != nil {
		return guard.Config{}, err
	}
	return config, nil
}

// verifyTokens lets the guard verify tokens.
func (h *Handler) verifyTokens(config *guard.Config, app *App) error {
	if h.JWT == nil {
		return nil
	}
	verifier, err := app.verifier(h.JWT)
	if err != nil {
		return err
	}
	config.Verifier = verifier
	config.Unverified, config.Optional = h.JWT.Unverified, h.JWT.Optional
	config.Leeway = time.Duration(h.JWT.Leeway)
	if h.JWT.Unverified {
		config.Logger.Warn("jwt unverified: tokens are believed once the backend has answered with a stream; a backend that does not check them lets anybody end anybody's streams",
			zap.String("zone", h.Zone))
	}
	return nil
}

// Cleanup gives the zone back. Streams that still run keep what they use.
func (h *Handler) Cleanup() error {
	h.closeWebhooks() // they ask the zone who holds its keys
	return h.closeZone()
}

// ServeHTTP implements caddyhttp.MiddlewareHandler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	if !ok {
		return caddyhttp.Error(http.StatusInternalServerError, fmt.Errorf("sse_guard: the request has no replacer"))
	}
	e := &environment{r: r, repl: repl}
	if span := trace.SpanFromContext(r.Context()); span.IsRecording() {
		defer e.describe(span, h.Zone) // also where the response is cut, by a panic
	}
	return h.guard.Serve(w, r, next.ServeHTTP, e)
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Handler)(nil)
	_ caddy.Validator             = (*Handler)(nil)
	_ caddy.CleanerUpper          = (*Handler)(nil)
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
)
