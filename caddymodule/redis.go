package caddymodule

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
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
	logger *zap.Logger
}

// RedisTLS says how a connection with Redis is encrypted.
type RedisTLS struct {
	// The PEM file with the certificates of who has signed Redis'. Default: the
	// system's.
	CA string `json:"ca,omitempty"`

	// The PEM files with this node's certificate and key. Default: none.
	Certificate string `json:"certificate,omitempty"`
	Key         string `json:"key,omitempty"`

	// The name that Redis' certificate must have. Default: the host of the address.
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
		doc:      "`host:port`, `redis://` or `rediss://`. Of a cluster, or of Sentinel, several.",
		validate: (*Redis).validateAddresses,
	}, func(r *Redis) *[]string { return &r.Addresses }),
	text(option[*Redis]{
		name: "sentinel", syntax: "<master>", defDoc: "no Sentinel",
		doc: "The addresses are those of Sentinel, which watches a master of this name.",
	}, func(r *Redis) *string { return &r.Sentinel }),
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
		doc:   "Connections are encrypted. In a block: `ca <file>`, `certificate <file> <key>`, `server_name <name>`.",
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
		doc: "What a node does while Redis cannot be reached; see [below](#several-nodes).",
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
//	    address  <address...>
//	    sentinel <master>
//	    username <placeholder>
//	    password <placeholder>
//	    tls      { ... }
//	    prefix   <name>
//	    lease    <duration>
//	    on_error allow|deny|fence
//	    timeout  <duration>
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
	for _, address := range r.Addresses {
		if _, err := parseAddress(address); err != nil {
			return fmt.Errorf("address: %q is not allowed; it is <host>:<port>, redis://… or rediss://…: %w", address, err)
		}
	}
	return nil
}

// parseAddress reads one address. A placeholder is replaced when Caddy starts.
func parseAddress(address string) (rueidis.ClientOption, error) {
	if strings.Contains(address, "{") {
		return rueidis.ClientOption{}, nil
	}
	if strings.Contains(address, "://") {
		return rueidis.ParseURL(address)
	}
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return rueidis.ClientOption{}, err
	}
	if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
		return rueidis.ClientOption{}, fmt.Errorf("port %q", port)
	}
	return rueidis.ClientOption{InitAddress: []string{address}}, nil
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
	for _, address := range r.Addresses {
		expanded, err := repl.ReplaceOrErr(address, true, true)
		if err != nil {
			return fmt.Errorf("address: %w; it must stand for an address when Caddy starts", err)
		}
		one, err := parseAddress(expanded)
		if err != nil || len(one.InitAddress) == 0 {
			return fmt.Errorf("address: %q is none: %w", expanded, err)
		}
		r.client.InitAddress = append(r.client.InitAddress, one.InitAddress...)
		if one.TLSConfig != nil {
			r.client.TLSConfig = one.TLSConfig
		}
		if one.Username != "" || one.Password != "" {
			r.client.Username, r.client.Password = one.Username, one.Password
		}
		if one.SelectDB != 0 {
			r.client.SelectDB = one.SelectDB
		}
	}
	for _, credential := range []struct {
		name, given string
		into        *string
	}{{"username", r.Username, &r.client.Username}, {"password", r.Password, &r.client.Password}} {
		if credential.given == "" {
			continue
		}
		value, err := repl.ReplaceOrErr(credential.given, true, true)
		if err != nil {
			return fmt.Errorf("%s: %w; it must stand for something when Caddy starts", credential.name, err)
		}
		*credential.into = value
	}
	return r.provisionTLS()
}

func (r *Redis) provisionTLS() error {
	if r.TLS == nil {
		return nil
	}
	if r.client.TLSConfig == nil {
		host, _, _ := net.SplitHostPort(r.client.InitAddress[0])
		r.client.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12, ServerName: host}
	}
	config := r.client.TLSConfig
	if r.TLS.ServerName != "" {
		config.ServerName = r.TLS.ServerName
	}
	if r.TLS.CA != "" {
		pem, err := os.ReadFile(r.TLS.CA)
		if err != nil {
			return fmt.Errorf("tls: ca: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return fmt.Errorf("tls: ca: %q has no certificate in PEM", r.TLS.CA)
		}
	}
	if r.TLS.Certificate != "" {
		pair, err := tls.LoadX509KeyPair(r.TLS.Certificate, r.TLS.Key)
		if err != nil {
			return fmt.Errorf("tls: certificate: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return nil
}

// Open implements registry.Opener.
func (r *Redis) Open(zone string, node registry.Node) (registry.Registry, error) {
	o := redis.Options{
		Client: r.client, Prefix: r.Prefix, Lease: r.lease(), Timeout: r.timeout(), OnError: r.OnError, Logger: lastingLogger(),
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
	if r.Sentinel != "" {
		o.Client.Sentinel = rueidis.SentinelOption{
			MasterSet: r.Sentinel, TLSConfig: r.client.TLSConfig, Username: r.client.Username, Password: r.client.Password,
		}
	}
	return redis.Open(zone, node, o)
}

// Interface guards
var (
	_ caddy.Provisioner     = (*Redis)(nil)
	_ caddy.Validator       = (*Redis)(nil)
	_ caddyfile.Unmarshaler = (*Redis)(nil)
	_ registry.Opener       = (*Redis)(nil)
)
