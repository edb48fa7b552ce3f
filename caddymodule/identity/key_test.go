package identity

import (
	"encoding/binary"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestHash_ShortIsForLogs(t *testing.T) {
	require.Empty(t, Hash{}.Short())
	require.Equal(t, "0102030405060708", Hash{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}.Short())
	require.True(t, Hash{}.IsZero())
	require.False(t, Hash{31: 1}.IsZero())
}

func TestKey_MissingPartIsNoKey(t *testing.T) {
	for name, parts := range map[string][]string{
		"no part":    nil,
		"one empty":  {""},
		"first":      {"", "a"},
		"last":       {"a", ""},
		"in between": {"a", "", "b"},
	} {
		t.Run(name, func(t *testing.T) {
			h, ok := Key(parts...)
			require.False(t, ok)
			require.True(t, h.IsZero())
		})
	}
}

func TestKey_DependsOnEveryPartAndItsBorders(t *testing.T) {
	seen := map[Hash][]string{}
	for _, parts := range [][]string{
		{"a"}, {"b"}, {"ab"}, {"a", "b"}, {"b", "a"}, {"a b"}, {"a", " b"}, {"a ", "b"},
		{"a", "b", "c"}, {"ab", "c"}, {"a", "bc"}, {"abc"}, {"a\x00b"},
		{"a\x00\x00\x00\x00\x00\x00\x00\x01b"}, {strings.Repeat("a", 1000)}, {strings.Repeat("a", 1001)},
	} {
		h, ok := Key(parts...)
		require.True(t, ok)
		require.Nil(t, seen[h], "%q and %q share a key", seen[h], parts)
		seen[h] = parts
	}
}

// What can be read back in one way only is different for different lists.
func TestKey_EncodingCanBeReadBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		part := rapid.Custom(func(t *rapid.T) string {
			return string(rapid.SliceOfN(rapid.SampledFrom([]byte{0, 1, 2, 'a', ' '}), 1, 20).Draw(t, "bytes"))
		})
		parts := rapid.SliceOfN(part, 1, 6).Draw(t, "parts")
		encoded, ok := appendKey(nil, parts)
		require.True(t, ok)

		rest := strings.TrimPrefix(string(encoded), keyDomain)
		var read []string
		for rest != "" {
			length := binary.BigEndian.Uint64([]byte(rest[:lengthSize]))
			rest = rest[lengthSize:]
			read = append(read, rest[:length])
			rest = rest[length:]
		}
		require.Equal(t, parts, read)
	})
}

func TestDomains_NoneBeginsAnother(t *testing.T) {
	domains := []string{jwtDomain, opaqueDomain, deviceDomain, tabDomain, keyDomain}
	for i, a := range domains {
		require.Equal(t, len(a)-1, strings.IndexByte(a, 0))
		for _, b := range domains[i+1:] {
			require.NotEqual(t, a, b)
		}
	}
}

func TestDefaultKey(t *testing.T) {
	token := mustHash(t, jwt)
	want, ok := DefaultKey(token, "example.com", "/events")
	require.True(t, ok)

	t.Run("is the key of its parts", func(t *testing.T) {
		h, ok := Key(string(token[:]), "example.com", "/events")
		require.True(t, ok)
		require.Equal(t, h, want)
	})
	t.Run("does not depend on the host's spelling", func(t *testing.T) {
		for _, host := range []string{"EXAMPLE.com", "example.com:8443", "example.com.", "example.com.:443"} {
			h, ok := DefaultKey(token, host, "/events")
			require.True(t, ok)
			require.Equal(t, want, h, host)
		}
	})
	t.Run("depends on token, host and path", func(t *testing.T) {
		for _, tt := range []struct {
			token      Hash
			host, path string
		}{
			{mustHash(t, "other"), "example.com", "/events"},
			{token, "example.org", "/events"},
			{token, "example.com", "/Events"},
		} {
			h, ok := DefaultKey(tt.token, tt.host, tt.path)
			require.True(t, ok)
			require.NotEqual(t, want, h)
		}
	})
	t.Run("is none without a token", func(t *testing.T) {
		h, ok := DefaultKey(Hash{}, "example.com", "/events")
		require.False(t, ok)
		require.True(t, h.IsZero())
	})
	t.Run("is not lost with the host or the path", func(t *testing.T) {
		for _, host := range []string{"", ".", "...", ":80", "[]"} {
			h, ok := DefaultKey(token, host, "")
			require.True(t, ok, host)
			nowhere, _ := DefaultKey(token, "", "/")
			require.Equal(t, nowhere, h, host)
		}
	})
}

func TestNormalizeHost(t *testing.T) {
	for host, want := range map[string]string{
		"":                           "",
		"example.com":                "example.com",
		"Example.COM":                "example.com",
		"example.com:80":             "example.com",
		"example.com:":               "example.com",
		"example.com:http":           "example.com",
		"example.com.":               "example.com",
		"example.com..":              "example.com",
		"example.com.:443":           "example.com",
		"localhost:8080":             "localhost",
		"web1:8080":                  "web1",
		"[example.com]":              "example.com",
		"[example.com]:80":           "example.com",
		"[example.com":               "example.com",
		"example.com]":               "example.com",
		"192.0.2.1":                  "192.0.2.1",
		"192.0.2.1:80":               "192.0.2.1",
		"192.0.2.1.":                 "192.0.2.1",
		"::1":                        "::1",
		"[::1]":                      "::1",
		"[::1]:8080":                 "::1",
		"[0:0:0:0:0:0:0:1]:80":       "::1",
		"[2001:DB8::0001]":           "2001:db8::1",
		"2001:db8:0:0::1":            "2001:db8::1",
		"[::ffff:192.0.2.1]:80":      "192.0.2.1",
		"[fe80::1%Eth0]:80":          "fe80::1%eth0",
		"xn--BCHER-kva.example:8443": "xn--bcher-kva.example",
		"a:b:c":                      "a:b:c",
	} {
		t.Run(host, func(t *testing.T) {
			require.Equal(t, want, NormalizeHost(host))
			require.Equal(t, want, NormalizeHost(want))
		})
	}
}

func BenchmarkDefaultKey(b *testing.B) {
	token := mustHash(b, jwt)
	b.ReportAllocs()
	for b.Loop() {
		DefaultKey(token, "Example.com:8443", "/events")
	}
}
