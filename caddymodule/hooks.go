package caddymodule

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/sse-guard/sse-guard/caddymodule/event"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
	"github.com/sse-guard/sse-guard/caddymodule/webhook"
)

// Webhook is a URL of a backend that is told what becomes of its streams, by signed
// POSTs of JSON. It is tried again for 5 minutes where it fails, and holds up no stream.
type Webhook struct {
	// Where to post to, with placeholders that are replaced when Caddy starts.
	// Redirects are not followed.
	URL string `json:"url"`

	// What bodies are signed with, 16 bytes or more; usually a placeholder such as
	// `{env.WEBHOOK_SECRET}`. The header `X-SSE-Guard-Signature-256` is `sha256=` and
	// the hexadecimal HMAC-SHA-256 of the body. Default: none, it must be given.
	Secret string `json:"secret"`

	// What is posted: `admitted`, that a stream opened; `ended`, why one is over;
	// `rejected`, that a newcomer was refused or parked; `returned`, that a client was
	// back in time, in place of `ended`. Default: `admitted ended rejected`.
	Events []webhook.Kind `json:"events,omitempty"`
}

// webhookOptions are the options in the block of the option webhook, in the order of
// the documents.
var webhookOptions = []option[*Webhook]{
	text(option[*Webhook]{
		name: "secret", syntax: "<placeholder>", defDoc: "none, it must be given",
		doc: "What bodies are signed with: 16 bytes or more.",
	}, func(w *Webhook) *string { return &w.Secret }),
	{
		name: "events", syntax: "<event...>", defDoc: "`" + join(defaultKinds, " ") + "`",
		doc:   "What is posted: `" + join(webhook.Kinds(), "`, `") + "`.",
		parse: parseKinds, validate: (*Webhook).validateKinds,
	},
}

var defaultKinds = []webhook.Kind{webhook.Admitted, webhook.Ended, webhook.Rejected}

// leastHookSecret is how many bytes a secret has, so that nobody guesses it.
const leastHookSecret = 16

func parseKinds(w *Webhook, args []string) error {
	for _, arg := range args {
		w.Events = append(w.Events, webhook.Kind(arg))
	}
	return nil
}

func (w *Webhook) validateKinds() error {
	for i, kind := range w.Events {
		if err := oneOf("events", kind, webhook.Kinds()...); err != nil {
			return err
		}
		if slices.Contains(w.Events[:i], kind) {
			return fmt.Errorf("events: %q is given twice, expected once", kind)
		}
	}
	return nil
}

func (h *Handler) unmarshalWebhook(d *caddyfile.Dispenser) error {
	if args := d.CountRemainingArgs(); args != 1 {
		return d.Errf("option webhook does not take %d arguments; write: webhook <url> { secret <placeholder> }", args)
	}
	var w Webhook
	d.AllArgs(&w.URL)
	seen := make(map[string]bool)
	for d.NextBlock(1) {
		if err := unmarshalOption(d, &w, "webhook", webhookOptions, seen); err != nil {
			return err
		}
	}
	h.Webhooks = append(h.Webhooks, w)
	return nil
}

func (h *Handler) validateWebhooks() error {
	for i, w := range h.Webhooks {
		if err := validateEach(webhookOptions, &w); err != nil {
			return fmt.Errorf("webhook: %w", err)
		}
		if strings.TrimSpace(w.Secret) == "" {
			return errors.New("webhook: a secret is missing, without which anybody could post; write in its block: secret {env.WEBHOOK_SECRET}")
		}
		if !strings.Contains(w.URL, "{") {
			if _, err := hookURL(w.URL); err != nil {
				return err
			}
		}
		if slices.ContainsFunc(h.Webhooks[:i], func(other Webhook) bool { return other.URL == w.URL }) {
			return errors.New("webhook: one URL is given twice, and would be told twice; name its events in one block")
		}
	}
	return nil
}

// hookURL reads the URL of a webhook. Its errors do not tell what may be secret in it.
func hookURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return nil, errors.New("webhook: that is no URL; it begins with https:// or http://")
	case u.Hostname() == "":
		return nil, errors.New("webhook: the URL has no host; it begins with https:// or http://")
	case u.Scheme != "https" && u.Scheme != "http":
		return nil, fmt.Errorf("webhook: %q is not allowed; it begins with https:// or http://", webhook.Origin(u))
	case u.Fragment != "":
		return nil, fmt.Errorf("webhook: a fragment, behind #, is not allowed in the URL of %s: no receiver sees it", webhook.Origin(u))
	}
	return u, nil
}

// hooks keeps senders while guards use them, and streams that may have something to
// tell: over a reload nothing is lost, or posted twice.
var hooks = caddy.NewUsagePool()

// hookKey is what guards share a sender by.
type hookKey struct {
	url    string
	secret [sha256.Size]byte
}

// pooledHook is a sender in the pool, or one that was.
type pooledHook struct {
	*webhook.Sender
	// until is when Caddy stops, whatever is not posted; nil: it does not stop.
	until atomic.Pointer[time.Time]
}

// retiredHooks are the senders that no guard uses any more, and no stream, until they
// have posted what waits.
var retiredHooks sync.Map // by *pooledHook

// hookFlush is how long Caddy waits for its last posts when it stops.
const hookFlush = 5 * time.Second

// allHooks are the senders in the pool, and those that have something to post yet.
func allHooks() (all []*pooledHook) {
	hooks.Range(func(_, hook any) bool {
		all = append(all, hook.(*pooledHook))
		return true
	})
	retiredHooks.Range(func(hook, _ any) bool {
		all = append(all, hook.(*pooledHook))
		return true
	})
	return all
}

// flushHooks posts what waits, before Caddy stops. All senders begin at once, and all
// calls together wait for hookFlush at most. Senders that no guard uses are closed.
func flushHooks() {
	all, until := allHooks(), time.Now().Add(hookFlush)
	for _, hook := range all {
		hook.hurryUntil(until)
	}
	for _, hook := range all {
		hook.flush()
		if _, retired := retiredHooks.Load(hook); retired {
			hook.Close()
		}
	}
}

// hurryUntil has what waits posted, for Caddy stops. The first call tells until when.
func (p *pooledHook) hurryUntil(until time.Time) {
	p.until.CompareAndSwap(nil, &until)
	p.Hurry()
}

// flush posts what waits.
func (p *pooledHook) flush() {
	p.hurryUntil(time.Now().Add(hookFlush))
	ctx, cancel := context.WithDeadline(context.Background(), *p.until.Load())
	defer cancel()
	p.Flush(ctx)
}

// Destruct implements caddy.Destructor. No guard uses the sender any more, and no stream.
func (p *pooledHook) Destruct() error {
	if stopsOnly() {
		p.flush()
		p.Close()
		return nil
	}
	retired := new(byte) // it may be used again, and retire again
	retiredHooks.Store(p, retired)
	go func() {
		p.Finish()
		retiredHooks.CompareAndDelete(p, retired)
	}()
	return nil
}

// openedHook is a handler's hold on a sender.
type openedHook struct {
	*pooledHook
	key hookKey
}

// openWebhooks readies the webhooks, and returns who tells them of this guard.
func (h *Handler) openWebhooks(reserve time.Duration) (event.Observers, error) {
	var observers event.Observers
	for _, w := range h.Webhooks {
		expand := newExpander()
		address, secret := expand.one("its URL", w.URL), expand.one("secret", w.Secret)
		if expand.err != nil {
			return nil, fmt.Errorf("webhook: %w", expand.err)
		}
		u, err := hookURL(address)
		if err != nil {
			return nil, err
		}
		if len(secret) < leastHookSecret {
			return nil, fmt.Errorf("webhook: a secret of %d bytes is not allowed; it has at least %d", len(secret), leastHookSecret)
		}
		key := hookKey{address, sha256.Sum256([]byte(secret))}
		value, _, err := hooks.LoadOrNew(key, func() (caddy.Destructor, error) {
			return &pooledHook{Sender: webhook.New(u, []byte(secret), lastingLogger())}, nil
		})
		if err != nil {
			return nil, err
		}
		hook := openedHook{value.(*pooledHook), key}
		h.hooks = append(h.hooks, hook)
		kinds := w.Events
		if len(kinds) == 0 {
			kinds = defaultKinds
		}
		observers = append(observers, streamHook{hook, hook.Observe(webhook.Source{
			Zone: h.Zone, Holders: h.zone.Registry, Kinds: kinds, Reserve: reserve,
		})})
	}
	return observers, nil
}

// streamHook has the streams of a guard keep its sender in the pool, so that those of a
// configuration that was replaced have told their ends before the process does.
type streamHook struct {
	openedHook
	observer *webhook.Observer
}

// Observe implements event.Observer.
func (s streamHook) Observe(e event.Event) {
	if _, ok := e.(event.Admitted); ok {
		hooks.LoadOrStore(s.key, s.pooledHook)
	}
	s.observer.Observe(e)
	if ended, ok := e.(event.Ended); ok && ended.Held {
		_, _ = hooks.Delete(s.key) // Destruct has no error
	}
}

// closeWebhooks gives the senders back. If Caddy stops, all streams have ended, and what
// they told is posted first; if it exits, endAll does that.
func (h *Handler) closeWebhooks() {
	if stopsOnly() {
		flushHooks()
	}
	for _, hook := range h.hooks {
		_, _ = hooks.Delete(hook.key) // Destruct has no error
	}
	h.hooks = nil
}

// Interface guards
var (
	_ caddy.Destructor = (*pooledHook)(nil)
	_ event.Observer   = streamHook{}
	_ webhook.Finder   = registry.Registry(nil)
)
