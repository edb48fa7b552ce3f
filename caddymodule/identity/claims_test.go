package identity

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// claimsOf returns the Claims of a payload, with numbers as they are written.
func claimsOf(t *testing.T, payload string) *Claims {
	t.Helper()
	return NewClaims(decodeClaims(t, payload, true))
}

func decodeClaims(t *testing.T, payload string, useNumber bool) (values map[string]any) {
	t.Helper()
	decoder := json.NewDecoder(strings.NewReader(payload))
	if useNumber {
		decoder.UseNumber()
	}
	require.NoError(t, decoder.Decode(&values))
	return values
}

func TestClaims_TextOfEveryType(t *testing.T) {
	c := claimsOf(t, `{
		"text": "a b", "empty": "", "yes": true, "no": false, "null": null,
		"roles": ["user", "admin"], "one": ["user"], "none": [], "mixed": ["a", 1, true, null, ["b", "c"], {"d": 1e1}],
		"object": {"b": 1, "a": [1e3]}, "nothing": {}
	}`)
	for name, want := range map[string]string{
		"text":    "a b",
		"empty":   "",
		"yes":     "true",
		"no":      "false",
		"null":    "",
		"absent":  "",
		"":        "",
		"Text":    "",
		"roles":   "user,admin",
		"one":     "user",
		"none":    "",
		"mixed":   `a,1,true,,b,c,{"d":1e1}`,
		"object":  `{"a":[1e3],"b":1}`,
		"nothing": "{}",
	} {
		require.Equal(t, want, c.Text(name), name)
	}
}

func TestClaims_NumbersAreWrittenWithoutExponent(t *testing.T) {
	for number, want := range map[string]string{
		"0":                      "0",
		"-0":                     "-0",
		"42":                     "42",
		"-42":                    "-42",
		"1e3":                    "1000",
		"1E3":                    "1000",
		"1.5e3":                  "1500",
		"1e-3":                   "0.001",
		"1.50":                   "1.50",
		"1700000000":             "1700000000",
		"9007199254740993":       "9007199254740993",
		"12345678901234567890":   "12345678901234567890",
		"1e21":                   "1000000000000000000000",
		"0.00000001":             "0.00000001",
		"1e400":                  "1e400",
		"-1e400":                 "-1e400",
		"1e-400":                 "0",
		"123456789012345678e-17": "1.2345678901234567",
	} {
		require.Equal(t, want, claimsOf(t, `{"n":`+number+`}`).Text("n"), number)
	}
	for number, want := range map[string]string{"1e21": "1000000000000000000000", "1.50": "1.5", "1e-7": "0.0000001"} {
		c := NewClaims(decodeClaims(t, `{"n":`+number+`}`, false))
		require.Equal(t, want, c.Text("n"), "decoded as float64: %s", number)
	}
}

func TestClaims_NamesLeadIntoObjects(t *testing.T) {
	c := claimsOf(t, `{
		"realm_access": {"roles": ["user", "admin"]},
		"resource_access": {"my.client": {"roles": ["a"]}, "account": {"roles": ["b"], "null": null}},
		"https://example.com/role": "editor",
		"https://example.com/user": {"name": "alice", "a.b": {"c.d": "deep"}},
		"a": {"b": {"c": "by parts"}, "b.c": "by the longer inner name"},
		"x": {"y": "inner"}, "x.y": "itself",
		"n": {"m": "inner"}, "n.m": null,
		"p": {"q": {"r": "found"}}, "p.q": {"s": 1},
		"text": "a", "list": [{"z": 1}], "": {"": "e"}
	}`)
	for name, want := range map[string]string{
		"realm_access.roles":               "user,admin",
		"resource_access.my.client.roles":  "a",
		"resource_access.account.roles":    "b",
		"resource_access.account.null":     "",
		"https://example.com/role":         "editor",
		"https://example.com/user.name":    "alice",
		"https://example.com/user.a.b.c.d": "deep",
		"a.b.c":                            "by the longer inner name",
		"x.y":                              "itself",
		"n.m":                              "",
		"p.q.r":                            "found",
		"p.q.s":                            "1",
		"realm_access.absent":              "",
		"realm_access.roles.0":             "",
		"text.a":                           "",
		"list.z":                           "",
		"absent.roles":                     "",
		".":                                "",
		"..":                               "",
		"x.":                               "",
		".x":                               "",
	} {
		require.Equal(t, want, c.Text(name), name)
		require.Equal(t, want != "", c.Present(name), name)
	}
}

func TestClaims_PresentUnlessNull(t *testing.T) {
	c := claimsOf(t, `{"empty":"","zero":0,"no":false,"none":[],"nothing":{},"null":null,"in":{"null":null,"empty":""}}`)
	for name, want := range map[string]bool{
		"empty": true, "zero": true, "no": true, "none": true, "nothing": true, "in.empty": true,
		"null": false, "in.null": false, "absent": false, "": false,
	} {
		require.Equal(t, want, c.Present(name), name)
	}
}

func TestClaims_HasOneValueOrOneOfAnArray(t *testing.T) {
	c := claimsOf(t, `{
		"role": "user", "roles": ["user", "admin", 7, true, null, ["nested"]], "none": [], "null": null,
		"n": 1e3, "yes": true, "empty": "", "realm_access": {"roles": ["editor"]}
	}`)
	for _, has := range [][2]string{
		{"role", "user"}, {"roles", "user"}, {"roles", "admin"}, {"roles", "7"}, {"roles", "true"}, {"roles", "nested"},
		{"n", "1000"}, {"yes", "true"}, {"empty", ""}, {"realm_access.roles", "editor"},
	} {
		require.True(t, c.Has(has[0], has[1]), has)
	}
	for _, lacks := range [][2]string{
		{"role", "use"}, {"role", "User"}, {"role", ""}, {"roles", "user,admin"}, {"roles", "editor"}, {"roles", "admin "},
		{"roles", ""}, {"none", ""}, {"null", ""}, {"absent", ""}, {"n", "1e3"}, {"yes", "1"}, {"realm_access", "editor"},
	} {
		require.False(t, c.Has(lacks[0], lacks[1]), lacks)
	}
}

func TestClaims_Times(t *testing.T) {
	for value, want := range map[string]time.Time{
		"1700000000":     time.Unix(1700000000, 0),
		"1.7e9":          time.Unix(1700000000, 0),
		"1700000000.75":  time.Unix(1700000000, 75e7),
		"0":              time.Unix(0, 0),
		"0.5":            time.Unix(0, 5e8),
		"-1":             time.Unix(0, 0),
		"-1e400":         time.Unix(0, 0),
		"253402300799":   time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC),
		"253402300799.5": {},
		"253402300800":   {},
		"9.3e18":         {},
		"1e30":           {},
		"1e400":          {},
		"null":           {},
		"true":           {},
		`"1700000000"`:   {},
		`[1700000000]`:   {},
		`{}`:             {},
	} {
		for _, useNumber := range []bool{true, false} {
			if !useNumber && strings.Contains(value, "e400") {
				continue // no float64
			}
			c := NewClaims(decodeClaims(t, `{"exp":`+value+`,"iat":`+value+`}`, useNumber))
			require.True(t, want.Equal(c.Expires), "exp %s: %v", value, c.Expires)
			require.True(t, want.Equal(c.IssuedAt), "iat %s: %v", value, c.IssuedAt)
			require.Equal(t, want.IsZero(), c.Expires.IsZero())
		}
	}
	require.True(t, claimsOf(t, `{}`).Expires.IsZero())
	require.True(t, claimsOf(t, `{}`).IssuedAt.IsZero())
}

func TestClaims_SubjectIsSubWithinIss(t *testing.T) {
	payloads := []string{
		`{"sub":"alice"}`,
		`{"sub":"alice","iss":"a"}`,
		`{"sub":"alice","iss":"b"}`,
		`{"sub":"bob","iss":"a"}`,
		`{"sub":"Alice","iss":"a"}`,
		`{"sub":"ba","iss":"a"}`,
		`{"sub":"a","iss":"ab"}`,
	}
	seen := map[Hash]string{}
	for _, payload := range payloads {
		c := claimsOf(t, payload)
		require.False(t, c.Subject.IsZero())
		require.Empty(t, seen[c.Subject], payload)
		seen[c.Subject] = payload

		again := claimsOf(t, strings.Replace(payload, "{", `{"exp":1,"aud":"x","sid":"s","jti":"1",`, 1))
		require.Equal(t, c.Subject, again.Subject, "nothing else counts")
		require.Equal(t, c.Sub, again.Sub)
	}
}

func TestClaims_SessionIsSidWithinSubject(t *testing.T) {
	payloads := []string{
		`{"sub":"alice","iss":"a"}`,
		`{"sub":"alice","iss":"a","sid":"1"}`,
		`{"sub":"alice","iss":"a","sid":"2"}`,
		`{"sub":"alice","iss":"b","sid":"1"}`,
		`{"sub":"bob","iss":"a","sid":"1"}`,
		`{"sub":"alice1","iss":"a"}`,
	}
	seen := map[Hash]string{}
	for _, payload := range payloads {
		c := claimsOf(t, payload)
		require.False(t, c.Session.IsZero())
		require.NotEqual(t, c.Subject, c.Session)
		require.Empty(t, seen[c.Session], payload)
		seen[c.Session] = payload
	}
	one, number := claimsOf(t, `{"sub":"a","sid":"1"}`), claimsOf(t, `{"sub":"a","sid":1}`)
	require.Equal(t, one.Session, number.Session, "some issuers count their sessions")
	empty, none := claimsOf(t, `{"sub":"a","sid":""}`), claimsOf(t, `{"sub":"a"}`)
	require.Equal(t, none.Session, empty.Session)
}

func TestClaims_NobodyHasNoSubject(t *testing.T) {
	for _, payload := range []string{`{}`, `{"sub":""}`, `{"sub":null}`, `{"sub":true}`, `{"sub":["alice"]}`, `{"iss":"a","sid":"1"}`} {
		c := claimsOf(t, payload)
		require.Empty(t, c.Sub, payload)
		require.True(t, c.Subject.IsZero(), payload)
		require.True(t, c.Session.IsZero(), payload)
	}
	require.False(t, NewClaims(nil).Present("sub"))
}

// Some applications number their users.
func TestClaims_ANumberIsASubject(t *testing.T) {
	number, text := claimsOf(t, `{"sub":42}`), claimsOf(t, `{"sub":"42"}`)
	require.Equal(t, "42", number.Sub)
	require.Equal(t, text.Subject, number.Subject)
}
