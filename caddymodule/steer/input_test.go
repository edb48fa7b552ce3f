package steer

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/reason"
)

func TestQuery_SaysWhatIsWrong(t *testing.T) {
	s := newSite(t, "default")
	for query, want := range map[string]string{
		"limit=0":                              `limit: "0" is not allowed; it is 1 to 1000`,
		"limit=1001":                           `it is 1 to 1000`,
		"limit=all":                            `limit: "all"`,
		"limit=":                               `limit: ""`,
		"cursor=x":                             `cursor: it is none`,
		"cursor=" + strings.Repeat("zz", 16):   `cursor: it is none`,
		"state=dead":                           "live, parked, untracked and ending",
		"key=abc":                              "key: it is a hash",
		"token=secret-token-that-is-raw":       "token: it is a hash as log lines and lists show it: 16 to 64 hex digits",
		"client=" + strings.Repeat("a", 66):    "client: it is a hash",
		"client=" + strings.Repeat("a", 17):    "client: it is a hash",
		"id=1":                                 "id: it is 32 hex digits",
		"id=" + strings.Repeat("0", 32):        "id: it is 32 hex digits",
		"older_than=10":                        `older_than: "10" is not allowed; it is a duration such as 10m`,
		"older_than=-1s":                       "older_than",
		"older_than=0s":                        "older_than",
		"older_than=1000000h":                  "older_than",
		"colour=red":                           "colour is not known; there are: client, cursor, id, key, label.<name>",
		"raw_token=secret":                     "raw_token is not known",
		"zone=a&zone=b":                        "zone: it is given 2 times",
		"zone=&state=live":                     "zone: it is empty; leave it out, or name whom you mean",
		"subject=":                             "subject: it is empty",
		"label.=x":                             "labels: names",
		"label.room=":                          `labels: the value of "room" is empty`,
		"a;b":                                  "query: it cannot be read",
		"%zz":                                  "query: it cannot be read",
		"subject=" + strings.Repeat("a", 1025): "subject: it has 1025 bytes",
		"label.a=&label.b=&label.c=&label.d=&label.e=&label.f=&label.g=&label.h=&label.i=": "labels: 9 are given",
	} {
		p := s.problem(http.StatusBadRequest, http.MethodGet, "streams?"+query, "")
		if want == "colour is not known; there are: client, cursor, id, key, label.<name>" {
			want = "colour is not known; there are: client, cursor, id, key, older_than, state, subject, token, zone, label.<name> and limit"
		}
		require.Contains(t, p.Detail, want, query)
		require.NotContains(t, p.Detail, "secret", query)
	}
	for _, path := range []string{
		"stats?a=b", "stats?zone=", "stats?zone=default&zone=default", "events?a=b", "events?zone=", "health?zone=default",
	} {
		s.problem(http.StatusBadRequest, http.MethodGet, path, "")
	}
	for _, path := range []string{"end?zone=default", "notify?all=true"} {
		s.problem(http.StatusBadRequest, http.MethodPost, path, `{"select":{},"all":true,"data":"x"}`)
	}
}

func TestBody_SaysWhatIsWrong(t *testing.T) {
	s := newSite(t, "default")
	g := s.open(s.zones[0], "a")
	for body, want := range map[string]string{
		`{}`:                       `"all": true`,
		`{"select":{}}`:            `"all": true`,
		`{"select":{"labels":{}}}`: `"all": true`,
		`{"select":null}`:          `"all": true`,
		`{"all":true,"select":{"zone":"default"}}`: "all: it stands beside a select that is empty",
		`[]`:                    "body: all of it: a JSON array is not allowed",
		`"secret"`:              "body: all of it: a JSON string is not allowed",
		`{"select":{"zone":7}}`: "body: select.zone: a JSON number is not allowed",
		`{"select":{"zone":123456789012345678901234567890}}`:          "body: select.zone: a JSON number is not allowed",
		`{"select":{"raw_token":["secret"]}}`:                         "select.raw_token: a JSON array is not allowed",
		`{"selct":{}}`:                                                `body: there is no field "selct"`,
		`{"select":{"tokn":"secret"}}`:                                `body: there is no field "tokn"`,
		`{"select":`:                                                  "body: it is not a JSON object",
		`secret`:                                                      "body: it is not a JSON object",
		`{"all":true} secret`:                                         "body: something follows the object",
		`{"all":true}{"all":true}`:                                    "body: something follows the object",
		`{"select":{"key_parts":[]}}`:                                 "key_parts: there is one at least",
		`{"select":{"key_parts":[""]}}`:                               "key_parts: there is one at least",
		`{"select":{"key_parts":[7]}}`:                                "key_parts: there is one at least",
		`{"select":{"key_parts":[null]}}`:                             "key_parts: there is one at least",
		`{"select":{"key_parts":[{"iss":"i"}]}}`:                      "key_parts: there is one at least",
		`{"select":{"key_parts":[{"sub":"a","raw_token":"secret"}]}}`: "key_parts: there is one at least",
		`{"select":{"key_parts":[{"user":"secret"}]}}`:                "key_parts: there is one at least",
		`{"select":{"key_parts":[{"raw_token":"Bearer "}]}}`:          "key_parts: raw_token: there is no token in it",
		`{"select":{"raw_token":"Bearer "}}`:                          "raw_token: there is no token in it",
	} {
		for _, path := range []string{"end", "notify"} {
			p := s.problem(http.StatusBadRequest, http.MethodPost, path, body)
			require.Contains(t, p.Detail, want, body)
			require.NotContains(t, p.Detail, "secret", body)
		}
	}
	for body, want := range map[string]string{
		`{"all":true,"reason":"superseded"}`:                         "reason: \"superseded\" is not allowed; it is one of revoked, logout, expired, max_age",
		`{"all":true,"reason":"dead"}`:                               "reason",
		`{"all":true,"reason":"max_age","message":"x"}`:              "message: clients are told nothing by the reason max_age",
		`{"all":true,"message":"` + strings.Repeat("x", 1025) + `"}`: "message: it has at most 1024 bytes",
		`{"all":true,"limit":0}`:                                     "limit: 0 is not allowed; it is 1 to 1000",
		`{"all":true,"limit":1001}`:                                  "limit: 1001",
		`{"all":true,"limit":-1}`:                                    "limit: -1",
		`{"all":true,"deny":"10"}`:                                   `deny: "10" is not allowed; it is a duration such as 10m, of 1s to 720h0m0s`,
		`{"all":true,"deny":"1ms"}`:                                  "deny",
		`{"all":true,"deny":""}`:                                     `deny: "" is not allowed`,
		`{"all":true,"deny":"721h"}`:                                 "deny",
		`{"all":true,"data":"x"}`:                                    `there is no field "data"`,
	} {
		require.Contains(t, s.problem(http.StatusBadRequest, http.MethodPost, "end", body).Detail, want, body)
	}
	for body, want := range map[string]string{
		`{"all":true}`:                                                       "data: it is empty",
		`{"all":true,"data":"x","event":"a\nb"}`:                             "event: a name has no line ends",
		`{"all":true,"data":"x","event":"a\rb"}`:                             "event: a name has no line ends",
		`{"all":true,"data":"x","event":"` + strings.Repeat("e", 257) + `"}`: "event: the name has 257 bytes",
		`{"all":true,"data":"` + strings.Repeat("x", mostData+1) + `"}`:      "data: it has 65537 bytes; at most 65536 are allowed",
		`{"all":true,"data":"x","deny":"10m"}`:                               `there is no field "deny"`,
	} {
		require.Contains(t, s.problem(http.StatusBadRequest, http.MethodPost, "notify", body).Detail, want, body)
	}
	require.Equal(t, "data: hello\n\n", g.text(), "nothing has happened")
	require.Empty(t, s.logs.All(), "and nothing that may hold a secret is logged")
}

// TestAttack_EmptyFilter_NamesMoreStreams than whoever filled it in meant: the user's name
// was missing, and the whole zone is left.
func TestAttack_EmptyFilter_NamesMoreStreams(t *testing.T) {
	s := newSite(t, "default")
	g := s.open(s.zones[0], "a")
	for _, name := range []string{"id", "state", "key", "token", "client", "subject", "older_than", "raw_token", "raw_client"} {
		for path, body := range map[string]string{
			"end":    `{"select":{"zone":"default","` + name + `": "" }}`,
			"notify": `{"select":{"zone":"default","` + name + `":""},"data":"x"}`,
		} {
			p := s.problem(http.StatusBadRequest, http.MethodPost, path, body)
			require.Contains(t, p.Detail, "select."+name+": it is empty; leave it out, or name whom you mean", body)
		}
		s.problem(http.StatusBadRequest, http.MethodGet, "streams?zone=default&"+name+"=", "")
	}
	require.Contains(t, s.problem(http.StatusBadRequest, http.MethodPost, "end", `{"select":{"zone":""},"all":true}`).Detail, "select.zone: it is empty")
	require.Equal(t, "data: hello\n\n", g.text(), "nothing has happened")
}

func TestBody_IsBounded(t *testing.T) {
	s := newSite(t, "default")
	for _, body := range []string{
		`{"all":true,"data":"` + strings.Repeat("x", mostBody) + `"}`,
		`{"all":true,"data":"x"}` + strings.Repeat(" ", mostBody),
	} {
		s.problem(http.StatusRequestEntityTooLarge, http.MethodPost, "notify", body)
	}
	spelled := `{"all":true,"data":"` + strings.Repeat(`\u0041`, mostData) + `"}`
	require.Zero(t, s.notify(spelled).Notified)
}

// What a page may send to another site without asking first has other types.
func TestBody_IsNamedAsJSON(t *testing.T) {
	s := newSite(t, "default")
	for _, mediaType := range []string{"text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "text/plain; a=application/json", "application/jsonp", ";"} {
		s.problem(http.StatusUnsupportedMediaType, http.MethodPost, "end", `{"all":true}`, "Content-Type", mediaType)
	}
	require.Equal(t, http.StatusOK, s.do(http.MethodPost, "end", `{"all":true}`, "Content-Type", "Application/JSON; charset=utf-8").status)
}

// Whatever is given, it is refused with a problem, or within its bounds.
func FuzzQuery(f *testing.F) {
	for _, query := range []string{
		"", "zone=a&state=live&limit=7", "label.room=one&older_than=10m", "key=0123456789abcdef", "id=0123456789abcdef0123456789abcdef", "limit=%31", "a;b", "label.=&label.=",
	} {
		f.Add(query)
	}
	f.Fuzz(func(t *testing.T, query string) {
		q, err := readQuery(query, time.Now())
		if err != nil {
			requireProblem(t, err)
			return
		}
		require.True(t, q.limit >= 1 && q.limit <= mostLimit)
		require.True(t, q.filter.All)
		require.LessOrEqual(t, len(q.zone), longest)
		for _, value := range q.filter.Labels {
			require.LessOrEqual(t, len(value), 64)
		}
	})
}

func requireProblem(t *testing.T, err error) {
	t.Helper()
	p, ok := errors.AsType[*problem](err)
	require.True(t, ok, "%T: %v", err, err)
	require.True(t, p.Status >= 400 && p.Status < 500, p)
}

func FuzzBodies(f *testing.F) {
	for _, body := range []string{
		`{"select":{"zone":"a","state":"live"},"deny":"10m","reason":"logout","message":"x","limit":3}`,
		`{"select":{},"all":true,"event":"E","data":"x\ny"}`,
		`{"select":{"raw_token":"t","raw_client":"c","key_parts":["a",{"sub":"s","iss":"i"},{"raw_token":"t"}]}}`,
		`{"select":{"labels":{"room":"one"},"older_than":"1h","id":"0123456789abcdef0123456789abcdef"}}`,
		`{`, `null`, `[]`, `{"select":null}`, `{"all":true}x`,
	} {
		f.Add(body)
	}
	f.Fuzz(func(t *testing.T, body string) {
		request := func() (*httptest.ResponseRecorder, *http.Request) {
			r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", strings.NewReader(body))
			r.Header.Set("Content-Type", "application/json")
			return httptest.NewRecorder(), r
		}
		w, r := request()
		e, err := readEnding(w, r, time.Now())
		if err != nil {
			requireProblem(t, err)
		} else {
			require.Contains(t, reason.ForOperator(), e.Reason)
			require.True(t, e.deny == 0 || e.deny >= leastDeny && e.deny <= mostDeny)
			require.True(t, e.limit >= 0 && e.limit <= mostLimit)
			require.LessOrEqual(t, len(e.Message), longestMessage)
		}
		w, r = request()
		var n NotifyBody
		if err = readBody(w, r, &n); err == nil {
			err = n.check()
		}
		if err != nil {
			requireProblem(t, err)
		} else {
			require.NotContains(t, n.Event, "\n")
			require.LessOrEqual(t, len(n.Data), mostData)
		}
	})
}
