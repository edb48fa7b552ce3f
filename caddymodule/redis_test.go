package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

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

// Nobody listens there: the guard starts all the same.
func TestRedis_NeedNotBeThereAtTheStart(t *testing.T) {
	require.NoError(t, validateHandler(t,
		`{"handler": "sse_guard", "registry": {"module": "redis", "addresses": ["127.0.0.1:1"], "timeout": 50000000}}`))
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
