package caddymodule

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/redis/rueidis"
	"go.uber.org/zap"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
	"github.com/sse-guard/sse-guard/caddymodule/registry/redis"
)

func init() {
	caddy.RegisterModule(Redis{})
}

// Redis keeps the holders in Redis or Valkey, for any number of nodes: one server, one
// that Sentinel watches, or a cluster.
type Redis struct {
	// Where Redis is: `host:port`, `redis://` or `rediss://`; of a cluster or of
	// Sentinel as many of its servers as are known. Default: must be given.
	Addresses []string `json:"addresses,omitempty"`

	// The name of the master that Sentinel watches: the addresses are then Sentinel's.
	// Default: no Sentinel.
	Sentinel string `json:"sentinel,omitempty"`

	// The user at Sentinel, usually a placeholder. Default: none.
	SentinelUsername string `json:"sentinel_username,omitempty"`

	// The password of Sentinel, where it has one of its own, usually a placeholder.
	// Default: none.
	SentinelPassword string `json:"sentinel_password,omitempty"`

	// The user, usually a placeholder. Default: none.
	Username string `json:"username,omitempty"`

	// The password, usually a placeholder. Default: none.
	Password string `json:"password,omitempty"`

	// How connections are encrypted. Default: `rediss://` only.
	TLS *RedisTLS `json:"tls,omitempty"`

	// What the names of all keys in Redis begin with. Default: `sse_guard`.
	Prefix string `json:"prefix,omitempty"`

	// How long a node that is silent keeps what it holds. Default: `10s`.
	Lease caddy.Duration `json:"lease,omitempty"`

	// What a node does while Redis cannot be reached: `allow`, `deny` or `fence`.
	// Default: `allow`.
	OnError redis.OnError `json:"on_error,omitempty"`

	// How long Redis is waited for. Default: `500ms`.
	Timeout caddy.Duration `json:"timeout,omitempty"`

	client rueidis.ClientOption
	// identity is a hash of what client was made of.
	identity string
	logger   *zap.Logger
}

// RedisTLS says how a connection with Redis is encrypted.
type RedisTLS struct {
	// The PEM file with the certificates of who has signed Redis'. Default: the
	// system's.
	CA string `json:"ca,omitempty"`

	// The PEM files with this node's certificate and key. Default: none.
	Certificate string `json:"certificate,omitempty"`
	Key         string `json:"key,omitempty"`

	// The name that the certificate of every server must have. Default: the host that
	// the server is reached by.
	ServerName string `json:"server_name,omitempty"`
}

const (
	leastLease   = time.Second
	leastTimeout = 10 * time.Millisecond
)

// redisOptions are the options in the block of registry redis, in the order of the
// documents.
var redisOptions = []option[*Redis]{
	words(option[*Redis]{
		name: "address", fields: []string{"addresses"}, syntax: "<address...>", defDoc: "must be given",
		doc:      "`host:port`, `redis://` or `rediss://`, as `rediss://[<user>:<password>@]<host>[:<port>][/<database>]`. Several are a cluster's, or Sentinel's.",
		validate: (*Redis).validateAddresses,
	}, func(r *Redis) *[]string { return &r.Addresses }),
	text(option[*Redis]{
		name: "sentinel", syntax: "<master>", defDoc: "no Sentinel",
		doc:      "The addresses are those of Sentinel, which watches a master of this name.",
		validate: (*Redis).validateSentinel,
	}, func(r *Redis) *string { return &r.Sentinel }),
	text(option[*Redis]{
		name: "sentinel_username", syntax: "<placeholder>", defDoc: "none",
		doc: "Who the node is to Sentinel, where that asks for a user.",
	}, func(r *Redis) *string { return &r.SentinelUsername }),
	text(option[*Redis]{
		name: "sentinel_password", syntax: "<placeholder>", defDoc: "none",
		doc: "That of Sentinel, where it has one of its own. `password` is not told to it.",
	}, func(r *Redis) *string { return &r.SentinelPassword }),
	text(option[*Redis]{
		name: "username", syntax: "<placeholder>", defDoc: "none",
		doc: "Who the node is to Redis.",
	}, func(r *Redis) *string { return &r.Username }),
	text(option[*Redis]{
		name: "password", syntax: "<placeholder>", defDoc: "none",
		doc: "As `{env.REDIS_PASSWORD}`.",
	}, func(r *Redis) *string { return &r.Password }),
	{
		name: "tls", syntax: "{ ... }", defDoc: "`rediss://` only",
		doc:   "Connections are encrypted, those with Sentinel too. In a block: `ca <file>` (default: the system's), `certificate <file> <key>`, `server_name <name>` (default: the host that a server is reached by, which a cluster or Sentinel may give as an address).",
		block: (*Redis).unmarshalTLS, validate: (*Redis).validateTLS,
	},
	text(option[*Redis]{
		name: "prefix", syntax: "<name>", defDoc: "`sse_guard`",
		doc:      "What the names of all keys begin with. Nodes with one prefix and zone share holders.",
		validate: (*Redis).validatePrefix,
	}, func(r *Redis) *string { return &r.Prefix }),
	duration(option[*Redis]{
		name: "lease", defDoc: "`10s`",
		doc: "How long a node that died keeps what it held. All nodes must have the same.",
	}, leastLease, func(r *Redis) *caddy.Duration { return &r.Lease }),
	{
		name: "on_error", syntax: "allow|deny|fence", defDoc: "`allow`",
		doc: "What a node does while Redis cannot be reached; see [below](#the-promise).",
		parse: func(r *Redis, args []string) error {
			r.OnError = redis.OnError(args[0])
			return nil
		},
		validate: (*Redis).validateOnError,
	},
	duration(option[*Redis]{
		name: "timeout", defDoc: "`500ms`",
		doc: "How long Redis is waited for before it counts as away: a quarter of the lease at most.",
	}, leastTimeout, func(r *Redis) *caddy.Duration { return &r.Timeout }),
}

// CaddyModule returns the Caddy module information.
func (Redis) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "sse_guard.registries.redis",
		New: func() caddy.Module { return new(Redis) },
	}
}

// UnmarshalCaddyfile sets up the registry from Caddyfile tokens. Syntax:
//
//	registry redis {
//	    address           <address...>
//	    sentinel          <master>
//	    sentinel_username <placeholder>
//	    sentinel_password <placeholder>
//	    username          <placeholder>
//	    password          <placeholder>
//	    tls               { ... }
//	    prefix            <name>
//	    lease             <duration>
//	    on_error          allow|deny|fence
//	    timeout           <duration>
//	}
func (r *Redis) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // its name
	if d.NextArg() {
		return d.Errf("registry redis takes no argument, got %q; its options go in a block", d.Val())
	}
	seen := make(map[string]bool)
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		if err := unmarshalOption(d, r, "registry redis", redisOptions, seen); err != nil {
			return err
		}
	}
	if err := r.Validate(); err != nil {
		return d.WrapErr(err)
	}
	return nil
}

func (r *Redis) unmarshalTLS(d *caddyfile.Dispenser) error {
	if d.NextArg() {
		return d.Errf("option tls takes no argument, got %q; its options go in a block", d.Val())
	}
	r.TLS = new(RedisTLS)
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		name, args := d.Val(), d.RemainingArgs()
		switch {
		case name == "ca" && len(args) == 1:
			r.TLS.CA = args[0]
		case name == "certificate" && len(args) == 2:
			r.TLS.Certificate, r.TLS.Key = args[0], args[1]
		case name == "server_name" && len(args) == 1:
			r.TLS.ServerName = args[0]
		default:
			return d.Errf("tls: %q with %d arguments is not known; write: ca <file>, certificate <file> <key>, or server_name <name>", name, len(args))
		}
	}
	return nil
}

// Validate checks the options, wherever they come from.
func (r *Redis) Validate() error {
	for _, o := range redisOptions {
		if o.validate == nil {
			continue
		}
		if err := o.validate(r); err != nil {
			return fmt.Errorf("registry redis: %w", err)
		}
	}
	if len(r.Addresses) == 0 {
		return errors.New("registry redis: address is missing; write: address <host>:<port>")
	}
	if _, err := r.addressed(r.knownAddresses()); err != nil {
		return fmt.Errorf("registry redis: %w", err)
	}
	if timeout, lease := r.timeout(), r.lease(); timeout > lease/4 {
		return fmt.Errorf("registry redis: timeout: %q is not allowed; it is a quarter of the lease at most, which is %s", timeout, lease)
	}
	return nil
}

func (r *Redis) lease() time.Duration {
	if r.Lease == 0 {
		return 10 * time.Second
	}
	return time.Duration(r.Lease)
}

func (r *Redis) timeout() time.Duration {
	if r.Timeout == 0 {
		return 500 * time.Millisecond
	}
	return time.Duration(r.Timeout)
}

func (r *Redis) validateAddresses() error {
	for _, address := range r.knownAddresses() {
		if _, err := parseRedisAddress(address); err != nil {
			return wrongAddress(address, err)
		}
	}
	return nil
}

// knownAddresses lists those that stand for themselves. The others are known when Caddy
// starts.
func (r *Redis) knownAddresses() []string {
	return slices.DeleteFunc(slices.Clone(r.Addresses), func(address string) bool { return strings.Contains(address, "{") })
}

func (r *Redis) validateSentinel() error {
	if r.Sentinel == "" && (r.SentinelUsername != "" || r.SentinelPassword != "") {
		return errors.New("sentinel_username and sentinel_password are for Sentinel; write: sentinel <master>")
	}
	return nil
}

func (r *Redis) validateOnError() error {
	if r.OnError == "" {
		return nil // the default
	}
	return oneOf("on_error", r.OnError, redis.Allow, redis.Deny, redis.Fence)
}

func (r *Redis) validatePrefix() error {
	if strings.ContainsAny(r.Prefix, "{}* \t\n") {
		return fmt.Errorf("prefix: %q is not allowed; it is a name without braces, asterisks and blanks", r.Prefix)
	}
	return nil
}

func (r *Redis) validateTLS() error {
	if r.TLS != nil && (r.TLS.Certificate == "") != (r.TLS.Key == "") {
		return errors.New("tls: a certificate goes with its key; write: certificate <file> <key>")
	}
	return nil
}

// Provision reads what the options stand for.
func (r *Redis) Provision(ctx caddy.Context) error {
	if err := r.Validate(); err != nil {
		return err
	}
	r.logger = ctx.Logger()
	repl := caddy.NewReplacer()
	expanded := make([]string, len(r.Addresses))
	for i, address := range r.Addresses {
		var err error
		if expanded[i], err = repl.ReplaceOrErr(address, true, true); err != nil {
			return fmt.Errorf("address: %w; it must stand for an address when Caddy starts", err)
		}
	}
	var err error
	if r.client, err = r.addressed(expanded); err != nil {
		return err
	}
	for _, credential := range []struct {
		name, given string
		into        *string
	}{
		{"username", r.Username, &r.client.Username},
		{"password", r.Password, &r.client.Password},
		{"sentinel_username", r.SentinelUsername, &r.client.Sentinel.Username},
		{"sentinel_password", r.SentinelPassword, &r.client.Sentinel.Password},
	} {
		if credential.given == "" {
			continue
		}
		value, err := repl.ReplaceOrErr(credential.given, true, true)
		if err != nil {
			return fmt.Errorf("%s: %w; it must stand for something when Caddy starts", credential.name, err)
		}
		*credential.into = value
	}
	files, err := r.provisionTLS()
	if err != nil {
		return err
	}
	r.identity = identityOf(append(files, slices.Concat(expanded, []string{
		r.client.Username, r.client.Password, r.client.Sentinel.Username, r.client.Sentinel.Password,
	})...))
	return nil
}

// identityOf returns a hash of the parts, which says nothing of passwords.
func identityOf(parts []string) string {
	h := sha256.New()
	for _, part := range parts {
		fmt.Fprintf(h, "%d:%s", len(part), part)
	}
	return string(h.Sum(nil))
}

// provisionTLS returns what is in the files.
func (r *Redis) provisionTLS() (files []string, err error) {
	if r.TLS == nil {
		return nil, nil
	}
	if r.client.TLSConfig == nil {
		r.client.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12} // the name is that of each server
	}
	config := r.client.TLSConfig
	if r.TLS.ServerName != "" {
		config.ServerName = r.TLS.ServerName
	}
	if r.TLS.CA != "" {
		pem, err := os.ReadFile(r.TLS.CA)
		if err != nil {
			return nil, fmt.Errorf("tls: ca: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("tls: ca: %q has no certificate in PEM", r.TLS.CA)
		}
		files = append(files, string(pem))
	}
	if r.TLS.Certificate != "" {
		certificate, certificateErr := os.ReadFile(r.TLS.Certificate)
		key, keyErr := os.ReadFile(r.TLS.Key)
		if err := errors.Join(certificateErr, keyErr); err != nil {
			return nil, fmt.Errorf("tls: certificate: %w", err)
		}
		pair, err := tls.X509KeyPair(certificate, key)
		if err != nil {
			return nil, fmt.Errorf("tls: certificate: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
		files = append(files, string(certificate), string(key))
	}
	return files, nil
}

// Open implements registry.Opener. Redis is not reached before the configuration starts,
// so that one is validated without it.
func (r *Redis) Open(zone string, node registry.Node) (registry.Registry, error) {
	return redis.New(zone, node, r.options()), nil
}

// Renew implements registry.Renewer: passwords and certificates may have been replaced.
func (r *Redis) Renew(opened registry.Registry) {
	if known, ok := registry.As[*redis.Registry](opened); ok {
		o := r.options()
		known.Reconnect(o.Client, o.Identity)
	}
}

func (r *Redis) options() redis.Options {
	o := redis.Options{
		Client: r.client, Identity: r.identity, Prefix: r.Prefix, Lease: r.lease(), Timeout: r.timeout(), OnError: r.OnError, Logger: lastingLogger(),
	}
	if o.Prefix == "" {
		o.Prefix = "sse_guard"
	}
	if o.OnError == "" {
		o.OnError = redis.Allow
	}
	o.Client.Dialer.Timeout = o.Timeout
	o.Client.ConnWriteTimeout = o.Lease
	o.Client.DisableCache, o.Client.DisableRetry = true, true
	o.Client.PipelineMultiplex = -1 // one connection: what is sent first is done first
	o.Client.ClientName = "sse_guard"
	// Where an event of Sentinel or a redirection is missed, it is found so.
	o.Client.ClusterOption.ShardsRefreshInterval = o.Lease
	if r.Sentinel != "" {
		s := &o.Client.Sentinel
		s.MasterSet, s.TLSConfig, s.TopologyRefreshInterval = r.Sentinel, r.client.TLSConfig, o.Lease
		s.Dialer.Timeout, s.ClientName = o.Timeout, o.Client.ClientName
	}
	return o
}

// Interface guards
var (
	_ caddy.Provisioner     = (*Redis)(nil)
	_ caddy.Validator       = (*Redis)(nil)
	_ caddyfile.Unmarshaler = (*Redis)(nil)
	_ registry.Opener       = (*Redis)(nil)
	_ registry.Renewer      = (*Redis)(nil)
)
