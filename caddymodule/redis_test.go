package caddymodule

import (
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
	"github.com/sse-guard/sse-guard/caddymodule/tombstone"
)

func TestRedis_Caddyfile(t *testing.T) {
	for name, c := range map[string]struct{ caddyfile, json string }{
		"address only": {"address redis:6379", `{"addresses":["redis:6379"],"module":"redis"}`},
		"everything": {
			"address rediss://one:6380 two:6379\nsentinel main\nusername {env.U}\npassword {env.P}\n" +
				"tls {\nca a.pem\ncertificate b.pem c.pem\nserver_name redis\n}\nprefix other\nlease 20s\non_error fence\ntimeout 1s",
			`{"addresses":["rediss://one:6380","two:6379"],"sentinel":"main","username":"{env.U}","password":"{env.P}",
				"tls":{"ca":"a.pem","certificate":"b.pem","key":"c.pem","server_name":"redis"},
				"prefix":"other","lease":20000000000,"on_error":"fence","timeout":1000000000,"module":"redis"}`,
		},
		"tls without a block": {"address redis:6379\ntls\nlease 5s", `{"addresses":["redis:6379"],"tls":{},"lease":5000000000,"module":"redis"}`},
		"placeholder":         {"address {env.REDIS}", `{"addresses":["{env.REDIS}"],"module":"redis"}`},
	} {
		t.Run(name, func(t *testing.T) {
			h, err := parse("registry redis {\n" + c.caddyfile + "\n}")
			require.NoError(t, err)
			require.JSONEq(t, c.json, string(h.RegistryRaw))
		})
	}
}

func TestRedis_WrongSettingsSayWhatIsWrong(t *testing.T) {
	for name, c := range map[string]struct {
		caddyfile string
		want      []string
	}{
		"no block":               {"registry redis", []string{"Caddyfile:2", "address is missing", "write: address <host>:<port>"}},
		"empty block":            {"registry redis {\n}", []string{"Caddyfile:", "address is missing"}},
		"an argument":            {"registry redis redis:6379", []string{"Caddyfile:2", `"redis:6379"`, "in a block"}},
		"unknown option":         {"registry redis {\naddres redis:6379\n}", []string{"Caddyfile:3", `"addres"`, "registry redis", "address, lease, on_error"}},
		"no address":             {"registry redis {\naddress\n}", []string{"Caddyfile:3", "address", "0 arguments"}},
		"address without a port": {"registry redis {\naddress redis\n}", []string{"Caddyfile:3", `address: "redis"`, "<host>:<port>"}},
		"port that is none":      {"registry redis {\naddress redis:six\n}", []string{"Caddyfile:3", `"redis:six"`, `"six"`}},
		"unknown scheme":         {"registry redis {\naddress http://redis\n}", []string{"Caddyfile:3", `"http://redis"`, "rediss://"}},
		"twice":                  {"registry redis {\naddress a:1\naddress b:1\n}", []string{"Caddyfile:4", "address is given twice"}},
		"lease too short":        {"registry redis {\naddress a:1\nlease 10ms\n}", []string{"Caddyfile:4", `"10ms"`, "at least 1s"}},
		"timeout too long":       {"registry redis {\naddress a:1\nlease 2s\ntimeout 600ms\n}", []string{"Caddyfile:", "timeout", "600ms", "a quarter of the lease", "2s"}},
		"unknown on_error":       {"registry redis {\naddress a:1\non_error ignore\n}", []string{"Caddyfile:4", `"ignore"`, "allow, deny, fence"}},
		"prefix with a brace":    {"registry redis {\naddress a:1\nprefix a}b\n}", []string{"Caddyfile:4", `"a}b"`, "without braces"}},
		"tls, unknown":           {"registry redis {\naddress a:1\ntls {\ninsecure\n}\n}", []string{"Caddyfile:5", `"insecure"`, "ca <file>"}},
		"tls, an argument":       {"registry redis {\naddress a:1\ntls on\n}", []string{"Caddyfile:4", `"on"`}},
		"tls, no key":            {"registry redis {\naddress a:1\ntls {\ncertificate a.pem\n}\n}", []string{"Caddyfile:5", "certificate", "1 arguments"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parse(c.caddyfile)
			require.Error(t, err)
			for _, part := range c.want {
				assert.ErrorContains(t, err, part)
			}
		})
	}
}

func TestRedis_WrongSettingsInJSON(t *testing.T) {
	for name, c := range map[string]struct{ json, want string }{
		"no address":        {`{"module": "redis"}`, "address is missing"},
		"on_error":          {`{"module": "redis", "addresses": ["a:1"], "on_error": "x"}`, "allow, deny, fence"},
		"key alone":         {`{"module": "redis", "addresses": ["a:1"], "tls": {"key": "k"}}`, "certificate <file> <key>"},
		"unset placeholder": {`{"module": "redis", "addresses": ["{env.SSE_GUARD_UNSET}"]}`, "address"},
		"unset password":    {`{"module": "redis", "addresses": ["a:1"], "password": "{env.SSE_GUARD_UNSET}"}`, "password"},
		"ca that is none":   {`{"module": "redis", "addresses": ["a:1"], "tls": {"ca": "redis_test.go"}}`, "no certificate"},
		"unknown field":     {`{"module": "redis", "addresses": ["a:1"], "colour": "red"}`, "colour"},
	} {
		t.Run(name, func(t *testing.T) {
			require.ErrorContains(t, validateHandler(t, fmt.Sprintf(`{"handler": "sse_guard", "registry": %s}`, c.json)), c.want)
		})
	}
}

// Validating a configuration changes nothing anywhere: it may be done where Redis cannot
// be reached, or is another one.
func TestRedis_IsNotReachedByValidation(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	reached := make(chan bool)
	go func() {
		conn, err := listener.Accept()
		if err == nil {
			_ = conn.Close()
		}
		reached <- err == nil
	}()
	handler := fmt.Sprintf(`{"handler": "sse_guard", "registry": {"module": "redis", "addresses": [%q]}}`, listener.Addr())
	require.NoError(t, validateHandler(t, handler))
	// What it had begun is over by now, as what it opened is closed.
	require.NoError(t, listener.Close())
	require.False(t, <-reached, "a connection was made")
}

// What a configuration stands for may change while it reads the same.
func TestRedis_KnowsWhenFilesHaveChanged(t *testing.T) {
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	write := func(name, content string) { require.NoError(t, os.WriteFile(file(name), []byte(content), 0o600)) }
	write("password", "old")
	write("ca", certificate(t))
	provision := func() string {
		ctx, cancel := caddy.NewContext(caddy.Context{Context: t.Context()})
		defer cancel()
		r := &Redis{
			Addresses: []string{"redis:6379"}, Password: "{file." + file("password") + "}",
			TLS: &RedisTLS{CA: file("ca"), Certificate: file("pair"), Key: file("pair")},
		}
		require.NoError(t, r.Provision(ctx))
		require.NotContains(t, r.options().Identity, "old")
		return r.options().Identity
	}
	write("pair", certificate(t))
	first := provision()
	require.Equal(t, first, provision())
	write("password", "new")
	second := provision()
	require.NotEqual(t, first, second)
	write("pair", certificate(t))
	third := provision()
	require.NotEqual(t, second, third)
	write("ca", certificate(t))
	require.NotEqual(t, third, provision())
}

// certificate returns one with its key, in PEM.
func certificate(t *testing.T) string {
	_, key, err := ed25519.GenerateKey(nil)
	require.NoError(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	signed, err := x509.CreateCertificate(nil, template, template, key.Public(), key)
	require.NoError(t, err)
	encoded, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: signed})) +
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encoded}))
}

type failsToStart struct{}

func (failsToStart) Start() error { return errors.New("of a newer version") }

func TestApp_DoesNotStartWhereARegistryDoesNot(t *testing.T) {
	a := &App{registries: []registry.Starter{failsToStart{}}}
	require.ErrorContains(t, a.Start(), "of a newer version")
}

func TestRedis_Addresses(t *testing.T) {
	for name, c := range map[string]struct {
		r    Redis
		want string // empty: it is allowed
	}{
		"one server":                 {Redis{Addresses: []string{"redis:6379"}}, ""},
		"of IPv6":                    {Redis{Addresses: []string{"[::1]:6379", "redis://[::1]"}}, ""},
		"a URL":                      {Redis{Addresses: []string{"rediss://guard:secret@redis:6380/3"}}, ""},
		"a cluster":                  {Redis{Addresses: []string{"a:1", "b:2", "c:3"}}, ""},
		"Sentinel":                   {Redis{Addresses: []string{"a:1", "b:2"}, Sentinel: "main", SentinelPassword: "{env.P}"}, ""},
		"a database, with Sentinel":  {Redis{Addresses: []string{"redis://a/2", "redis://b/2"}, Sentinel: "main"}, ""},
		"encrypted by tls":           {Redis{Addresses: []string{"rediss://a:1", "b:2"}, TLS: new(RedisTLS)}, ""},
		"no host":                    {Redis{Addresses: []string{":6379"}}, `address: ":6379" is not allowed; it is <host>:<port>, redis://… or rediss://…: no host`},
		"no host in a URL":           {Redis{Addresses: []string{"redis://:6379"}}, "no host"},
		"port 0":                     {Redis{Addresses: []string{"a:0"}}, `port "0"`},
		"a socket":                   {Redis{Addresses: []string{"unix:///run/redis.sock"}}, `scheme "unix"`},
		"a query":                    {Redis{Addresses: []string{"redis://a?master_set=main"}}, "said by options"},
		"a database that is none":    {Redis{Addresses: []string{"redis://a/main"}}, `database "main"`},
		"a database of a cluster":    {Redis{Addresses: []string{"redis://a/1", "redis://b/1"}}, "a cluster, which has none"},
		"some encrypted":             {Redis{Addresses: []string{"rediss://a", "b:2"}}, `"b:2" is not allowed beside "rediss://a"; all are rediss://…`},
		"two users":                  {Redis{Addresses: []string{"redis://x:secret@a", "redis://y:secret@b"}}, "has another user"},
		"password twice":             {Redis{Addresses: []string{"redis://:secret@a"}, Password: "{env.P}"}, "write them once"},
		"sentinel_password alone":    {Redis{Addresses: []string{"a:1"}, SentinelPassword: "secret"}, "write: sentinel <master>"},
		"a password, and wrong":      {Redis{Addresses: []string{"redis://guard:secret@a:port"}}, `"redis://guard:xxxxx@a:port"`},
		"a password with signs":      {Redis{Addresses: []string{"redis://guard:sec%ret@a"}}, `"redis://guard:xxxxx@a"`},
		"a password with an at-sign": {Redis{Addresses: []string{"redis://guard:secret@secret@a:1/x"}}, `"redis://guard:xxxxx@a:1/x"`},
	} {
		t.Run(name, func(t *testing.T) {
			err := c.r.Validate()
			if c.want == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, c.want)
			require.NotContains(t, err.Error(), "secret")
		})
	}
}

// What placeholders stand for is checked as what is written out, and told no more of.
func TestRedis_AddressesInPlaceholders(t *testing.T) {
	t.Setenv("SSE_GUARD_A", "redis://guard:se%7Bcret@a:1")
	t.Setenv("SSE_GUARD_B", "redis://guard:secret@b:two")
	provision := func(addresses ...string) (*Redis, error) {
		ctx, cancel := caddy.NewContext(caddy.Context{Context: t.Context()})
		defer cancel()
		r := &Redis{Addresses: addresses}
		return r, r.Provision(ctx)
	}
	r, err := provision("{env.SSE_GUARD_A}")
	require.NoError(t, err)
	require.Equal(t, []string{"a:1"}, r.client.InitAddress)
	require.Equal(t, "se{cret", r.client.Password)
	_, err = provision("{env.SSE_GUARD_B}")
	require.ErrorContains(t, err, `address: "redis://guard:xxxxx@b:two" is not allowed`)
	require.NotContains(t, err.Error(), "secret")
	_, err = provision("{env.SSE_GUARD_A}", "c:3")
	require.ErrorContains(t, err, `"c:3" has another user`)
	require.NotContains(t, err.Error(), "se{cret")
}

// sharing is a registry's part in a secret.
type sharing struct {
	value []byte
	err   error
	asked int
}

func (s *sharing) Secret(_ context.Context, fresh []byte, _ time.Duration) ([]byte, error) {
	s.asked++
	if s.err != nil {
		return nil, s.err
	}
	if s.value == nil {
		s.value = fresh
	}
	return s.value, nil
}

func TestSharedSecret(t *testing.T) {
	signedBy := func(s *sharedSecret) string {
		signer, err := s.signer(t.Context())
		require.NoError(t, err)
		id, err := signer.Sign(tombstone.Key, "zone", [32]byte{1}, "superseded", time.Unix(1, 0))
		require.NoError(t, err)
		return id
	}
	t.Run("IsOneForAllWhateverTheirStorages", func(t *testing.T) {
		k := new(sharing)
		a, b := newSharedSecret(secretIn(t.TempDir()), k), newSharedSecret(secretIn(t.TempDir()), k)
		require.Equal(t, signedBy(a), signedBy(b))
		signedBy(a)
		require.Equal(t, 2, k.asked, "each asks once an hour")
	})
	t.Run("IsTheStoredOneIfThereIsOne", func(t *testing.T) {
		k := new(sharing)
		own := secretIn(t.TempDir())
		own.stored = newSecretValue()
		signedBy(newSharedSecret(own, k))
		require.Equal(t, own.stored, k.value)
	})
	t.Run("IsTheNodesOwnUntilTheRegistryAnswers", func(t *testing.T) {
		k := &sharing{err: errors.New("away")}
		s := newSharedSecret(secretIn(t.TempDir()), k)
		own := signedBy(s)
		require.Equal(t, sign(t, s.own)[:9], own[:9])
		require.Equal(t, 1, k.asked)
		signedBy(s)
		require.Equal(t, 1, k.asked, "it is asked once a second")
		k.err = nil
		s.put(0)
		require.NotEqual(t, own, signedBy(s))
	})
}
