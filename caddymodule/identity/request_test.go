package identity

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAcceptsStream(t *testing.T) {
	for name, tt := range map[string]struct {
		accept []string
		want   bool
	}{
		"no Accept":                      {nil, false},
		"empty":                          {[]string{""}, false},
		"as EventSource sends it":        {[]string{"text/event-stream"}, true},
		"any case":                       {[]string{"Text/EVENT-stream"}, true},
		"as an MCP client sends it":      {[]string{"application/json, text/event-stream"}, true},
		"list without spaces":            {[]string{"a/b,text/event-stream,c/d"}, true},
		"list with tabs":                 {[]string{"a/b,\ttext/event-stream\t,c/d"}, true},
		"second field":                   {[]string{"application/json", "text/event-stream"}, true},
		"parameters":                     {[]string{"text/event-stream; charset=utf-8"}, true},
		"weight":                         {[]string{"text/event-stream;q=0.1, a/b;q=0"}, true},
		"small weight":                   {[]string{"text/event-stream;q=0.001"}, true},
		"weight behind parameters":       {[]string{"text/event-stream;charset=utf-8 ; q=0"}, false},
		"weight 0":                       {[]string{"text/event-stream;q=0"}, false},
		"weight 0 in capitals":           {[]string{"text/event-stream; Q=0.000"}, false},
		"weight 0 and another element":   {[]string{"text/event-stream;q=0, text/event-stream;level=1"}, true},
		"weight 0 and another field":     {[]string{"text/event-stream;q=0", "text/event-stream"}, true},
		"weight that is none":            {[]string{"text/event-stream;q=none"}, true},
		"weight without a value":         {[]string{"text/event-stream;q"}, true},
		"parameter that ends with q":     {[]string{"text/event-stream;xq=0"}, true},
		"all types":                      {[]string{"*/*"}, false},
		"all text types":                 {[]string{"text/*"}, false},
		"what a page sends":              {[]string{"text/html,application/xhtml+xml,*/*;q=0.8"}, false},
		"a longer type":                  {[]string{"text/event-streams"}, false},
		"a longer beginning":             {[]string{"xtext/event-stream"}, false},
		"letters that fold to s":         {[]string{"text/event-\u017ftream"}, false},
		"inside a quoted string":         {[]string{`a/b;c="x, text/event-stream, y"`}, false},
		"behind a quoted string":         {[]string{`a/b;c="x, y", text/event-stream`}, true},
		"behind an escaped quote":        {[]string{`a/b;c="x\", text/event-stream", d/e`}, false},
		"weight inside a quoted string":  {[]string{`text/event-stream;c=";q=0"`}, true},
		"behind a backslash":             {[]string{`a/b;c=\, text/event-stream`}, true},
		"a quoted string without an end": {[]string{`a/b;c="x, text/event-stream`}, false},
		"a backslash at the end":         {[]string{`a/b;c="\`}, false},
	} {
		t.Run(name, func(t *testing.T) {
			r := request("/")
			r.Header["Accept"] = tt.accept
			require.Equal(t, tt.want, AcceptsStream(r))
		})
	}
}

// Whoever accepts anything else mostly gets that.
func TestAsksForStream_IfNothingElseIsAccepted(t *testing.T) {
	for name, tt := range map[string]struct {
		accept []string
		want   bool
	}{
		"no Accept":                   {nil, false},
		"as EventSource sends it":     {[]string{"text/event-stream"}, true},
		"as an MCP client sends it":   {[]string{"application/json, text/event-stream"}, false},
		"as urql sends it":            {[]string{"application/graphql-response+json, application/graphql+json, application/json, text/event-stream, multipart/mixed"}, false},
		"all types besides":           {[]string{"text/event-stream, */*;q=0.1"}, false},
		"all text types besides":      {[]string{"text/*, text/event-stream"}, false},
		"another field":               {[]string{"text/event-stream", "a/b"}, false},
		"what is not acceptable":      {[]string{"text/event-stream, a/b;q=0, */*; q=0.0"}, true},
		"twice":                       {[]string{"text/event-stream;q=0.5, text/event-stream", "Text/Event-Stream"}, true},
		"empty elements":              {[]string{", text/event-stream,, ", ""}, true},
		"a quoted comma":              {[]string{`text/event-stream;c="a/b, c/d"`}, true},
		"weight 0 and another type":   {[]string{"text/event-stream;q=0, a/b"}, false},
		"weight 0":                    {[]string{"text/event-stream;q=0"}, false},
		"another type without weight": {[]string{"a/b;q, text/event-stream"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			r := request("/")
			r.Header["Accept"] = tt.accept
			require.Equal(t, tt.want, AsksForStream(r))
			require.Zero(t, testing.AllocsPerRun(10, func() { AsksForStream(r) }))
		})
	}
}

// naiveAsks is AcceptsStream for a field without quoted strings.
func naiveAsks(accept string) bool {
	for element := range strings.SplitSeq(strings.ToLower(accept), ",") {
		parts := strings.Split(element, ";")
		if strings.Trim(parts[0], " \t") != "text/event-stream" {
			continue
		}
		weight := ""
		for _, param := range parts[1:] {
			name, value, _ := strings.Cut(param, "=")
			if strings.Trim(name, " \t") == "q" {
				weight = strings.Trim(value, " \t")
				break
			}
		}
		if weight == "" || weight[0] != '0' || strings.Trim(weight, "0.") != "" {
			return true
		}
	}
	return false
}

func FuzzAcceptsStream(f *testing.F) {
	for _, accept := range []string{
		"", "*/*", "text/event-stream", "a/b, text/event-stream;q=0", `a/b;c="\", text/event-stream`,
		"text/event-stream;q=0.000;q=1,text/event-stream", "TEXT/EVENT-STREAM ; x ; q = 0 ",
	} {
		f.Add(accept)
	}
	f.Fuzz(func(t *testing.T, accept string) {
		r := request("/")
		r.Header["Accept"] = []string{accept}
		asks := AcceptsStream(r)
		require.True(t, asks || !AsksForStream(r))

		if isASCII(accept) {
			if !strings.Contains(accept, `"`) {
				require.Equal(t, naiveAsks(accept), asks)
			}
			r.Header["Accept"] = []string{strings.ToUpper(accept)}
			require.Equal(t, asks, AcceptsStream(r), "in capitals")
		}
		r.Header["Accept"] = []string{"application/json, " + accept}
		require.Equal(t, asks, AcceptsStream(r), "behind another element")
		require.False(t, AsksForStream(r), "behind another type")
		r.Header["Accept"] = []string{accept, "text/event-stream"}
		require.True(t, AcceptsStream(r), "with another field")
	})
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

func TestIsEventStream(t *testing.T) {
	for contentType, want := range map[string]bool{
		"":                                     false,
		"text/event-stream":                    true,
		"Text/Event-Stream":                    true,
		" text/event-stream\t":                 true,
		"text/event-stream;charset=utf-8":      true,
		"text/event-stream ; charset=UTF8":     true,
		"text/event-stream;":                   true,
		"text/event-stream;;=;\"":              true,
		"text/event-stream; a b c":             true,
		"text/event-streams":                   false,
		"text/event-stream, text/html":         true,
		"text/html, Text/Event-Stream; a":      true,
		"text/html; a=\", text/event-stream\"": false,
		"text/event":                           false,
		"text/html;text/event-stream":          false,
		"application/json":                     false,
		"text/event-\u017ftream":               false,
	} {
		t.Run(contentType, func(t *testing.T) {
			h := http.Header{"Content-Type": {contentType}}
			require.Equal(t, want, IsEventStream(h))
			require.Zero(t, testing.AllocsPerRun(10, func() { IsEventStream(h) }))
		})
	}
	require.True(t, IsEventStream(http.Header{"Content-Type": {"text/html", "text/event-stream"}}), "browsers take the last one")
	require.True(t, IsEventStream(http.Header{"Content-Type": {"text/event-stream", "text/html"}}), "others the first")
	require.False(t, IsEventStream(http.Header{}))
	require.False(t, IsEventStream(nil))
}

func BenchmarkAsksForStream(b *testing.B) {
	for name, accept := range map[string]string{
		"EventSource": "text/event-stream",
		"page":        "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
	} {
		b.Run(name, func(b *testing.B) {
			r := request("/", "Accept: "+accept)
			b.ReportAllocs()
			for b.Loop() {
				AsksForStream(r)
			}
		})
	}
}

func BenchmarkIsEventStream(b *testing.B) {
	h := http.Header{"Content-Type": {"text/event-stream; charset=utf-8"}}
	b.ReportAllocs()
	for b.Loop() {
		IsEventStream(h)
	}
}
