package caddymodule

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// In JSON there is no file and line; the option, what was given and what is
// allowed are told all the same.
func TestValidate_ErrorsNameOptionAndAllowedValues(t *testing.T) {
	c := newConfiguration(t, storageIn(t.TempDir()))
	t.Setenv("SSE_GUARD_EMPTY", "")
	t.Setenv("SSE_GUARD_SHORT", "hunter2")
	for name, test := range map[string]struct {
		config string
		want   []string
	}{
		"policy":                    {`{"policy": "first"}`, []string{"policy", `"first"`, "supersede, reject"}},
		"takeover":                  {`{"takeover": "request"}`, []string{"takeover", `"request"`, "auto, response"}},
		"on_reject":                 {`{"on_reject": "drop"}`, []string{"on_reject", `"drop"`, "event, park, status"}},
		"missing_key":               {`{"missing_key": "ignore"}`, []string{"missing_key", `"ignore"`, "pass, deny"}},
		"limit":                     {`{"limit": -1}`, []string{"limit", "-1", "0 (track only) or more"}},
		"limit_unit":                {`{"limit_unit": "users"}`, []string{"limit_unit", `"users"`, "streams, clients"}},
		"retry":                     {`{"retry": -1}`, []string{"retry", "-1ns", "at least 0s"}},
		"end_timeout":               {`{"end_timeout": "1us"}`, []string{"end_timeout", "1µs", "at least 1ms"}},
		"negative max_event_size":   {`{"max_event_size": -1}`, []string{"max_event_size", "-1", "1 byte to less than 2 GiB"}},
		"too large max_event_size":  {`{"max_event_size": 2147483648}`, []string{"max_event_size", "2147483648", "less than 2 GiB"}},
		"token place":               {`{"token": [{"from": "body", "name": "t"}]}`, []string{"token", `"body"`, `"header", "query" or "cookie"`}},
		"token without a name":      {`{"token": [{"from": "query"}]}`, []string{"token", "without a name"}},
		"token twice":               {`{"token": [{"from": "query", "name": "t"}, {"from": "query", "name": "t"}]}`, []string{"token", "given twice"}},
		"client scope":              {`{"client": [{"from": "query", "name": "c", "scope": "window"}]}`, []string{"client", `"window"`, `"device" or "tab"`}},
		"empty key part":            {`{"key": ["a", " "]}`, []string{"key", "part 2 is empty", "a placeholder or a word"}},
		"unclosed placeholder":      {`{"key": ["{http.request.host} {http.request.ur"]}`, []string{"key", "part 1", "{http.request.ur", "write: {name}"}},
		"event of unknown reason":   {`{"events": {"kicked": "X"}}`, []string{"event", `"kicked"`, "superseded, replaced, parked, rejected"}},
		"event without a name":      {`{"events": {"superseded": " "}}`, []string{"event superseded", `" "`, "one line of text"}},
		"event name of two lines":   {`{"events": {"superseded": "a\nb"}}`, []string{"event superseded", `"a\nb"`, "one line of text"}},
		"reject without a limit":    {`{"limit": 0, "policy": "reject"}`, []string{"limit 0", "policy reject", "a limit of 1 or more"}},
		"secret of unset variable":  {`{"secret": "{env.SSE_GUARD_EMPTY}"}`, []string{"secret", "{env.SSE_GUARD_EMPTY}", "empty", "at least 16 bytes"}},
		"secret of unknown name":    {`{"secret": "{vault.key}"}`, []string{"secret", "{vault.key}", "unrecognized", "at least 16 bytes"}},
		"secret that is too short":  {`{"secret": "{env.SSE_GUARD_SHORT}"}`, []string{"secret", "7 bytes", "at least 16"}},
		"registry that is unknown":  {`{"registry": {"module": "etcd"}}`, []string{"registry", "etcd"}},
		"registry without a module": {`{"registry": {}}`, []string{"registry", "module"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := c.handlerOrErr(test.config)
			require.Error(t, err)
			for _, part := range test.want {
				require.ErrorContains(t, err, part)
			}
			require.NotContains(t, err.Error(), "hunter2", "a secret is not told")
		})
	}
}

func TestValidate_AcceptsTheBounds(t *testing.T) {
	c := newConfiguration(t, storageIn(t.TempDir()))
	for _, config := range []string{
		`{"limit": 0}`,
		`{"limit": 0, "policy": "supersede"}`,
		`{"limit": 1, "policy": "reject"}`,
		`{"end_timeout": "1ms"}`,
		`{"retry": 0}`,
		`{"max_event_size": 1}`,
		`{"max_event_size": 2147483647}`,
		`{"secret": "0123456789abcdef"}`,
		`{"key": ["{http.request.host}{http.request.uri.path}", "a word"]}`,
	} {
		_, err := c.handlerOrErr(config)
		require.NoError(t, err, config)
	}
}
