package identity

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// request returns a GET of target with the given header fields.
func request(target string, fields ...string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, target, nil)
	for _, field := range fields {
		name, value, _ := strings.Cut(field, ": ")
		r.Header.Add(name, value)
	}
	return r
}

func newExtractor(t testing.TB, tokens []TokenSource, clients []ClientSource) *Extractor {
	x, err := NewExtractor(tokens, clients)
	require.NoError(t, err)
	return x
}

func TestToken_IsFoundWhereBackendsFindIt(t *testing.T) {
	want := mustHash(t, jwt)
	escaped := "%" + "65" + jwt[1:]
	require.Equal(t, "e", jwt[:1])

	for name, r := range map[string]*http.Request{
		"Authorization":                      request("/", "Authorization: Bearer "+jwt),
		"Authorization, scheme in any case":  request("/", "Authorization: bEARER "+jwt),
		"Authorization, many spaces":         request("/", "Authorization:   Bearer     "+jwt+"  "),
		"Authorization, a tab":               request("/", "Authorization: Bearer\t"+jwt),
		"Authorization, second field":        request("/", "Authorization: Basic YTpi", "Authorization: Bearer "+jwt),
		"query token":                        request("/?token=" + jwt),
		"query access_token":                 request("/?a=b&access_token=" + jwt + "&c"),
		"query, name in any case":            request("/?Token=" + jwt),
		"query, name escaped":                request("/?%74oken=" + jwt),
		"query, value escaped":               request("/?token=" + escaped),
		"query, with Bearer":                 request("/?token=Bearer+" + jwt),
		"query, spaces around":               request("/?token=%20" + jwt + "%C2%A0"),
		"query, bad escape behind":           request("/?token=" + jwt + "%"),
		"query, semicolon behind":            request("/?token=" + jwt + ";"),
		"query, semicolon before":            request("/?a=b;token=" + jwt),
		"query, first value empty":           request("/?token=&token=" + jwt),
		"cookie":                             request("/", "Cookie: a=b; access_token="+jwt),
		"cookie, second field":               request("/", "Cookie: a=b", "Cookie: access_token="+jwt),
		"cookie, no space":                   request("/", "Cookie: a=b;access_token="+jwt+";c=d"),
		"cookie, spaces":                     request("/", "Cookie: access_token = "+jwt+" ; c=d"),
		"cookie, quoted":                     request("/", `Cookie: access_token="`+jwt+`"`),
		"cookie, quoted with Bearer":         request("/", `Cookie: access_token="Bearer `+jwt+`"`),
		"cookie, with Bearer":                request("/", "Cookie: access_token=bearer "+jwt),
		"cookie, percent escapes":            request("/", "Cookie: access_token=Bearer%20"+escaped),
		"cookie, backslashes in quotes":      request("/", `Cookie: access_token="\145\`+jwt[1:]+`"`),
		"cookie, value net/http would drop":  request("/", "Cookie: access_token="+jwt+`"`),
		"cookie, name in any case":           request("/", "Cookie: Access_Token="+jwt),
		"the same in all places":             request("/?token="+jwt+"&access_token="+jwt, "Authorization: Bearer "+jwt, "Cookie: access_token="+jwt),
		"the same in two spellings":          request("/?token="+jwt+"%0A", "Authorization: Bearer "+jwt+"="),
		"the same repeated in one place":     request("/?token=" + jwt + "&token=" + jwt),
		"another token where nobody looks":   request("/?other=abc&token="+jwt, "Cookie: session=abc", "X-Token: abc"),
		"another scheme beside it":           request("/?token="+jwt, "Authorization: Basic YTpi"),
		"an empty one beside it":             request("/?access_token=&token="+jwt, "Authorization: Bearer", "Cookie: access_token="),
		"an empty Bearer in a cookie beside": request("/?token="+jwt, `Cookie: access_token="Bearer "`),
	} {
		t.Run(name, func(t *testing.T) {
			token, err := newExtractor(t, nil, nil).Token(r)
			require.NoError(t, err)
			require.Equal(t, want, token.Hash)
		})
	}
}

func TestToken_IsNone(t *testing.T) {
	for name, r := range map[string]*http.Request{
		"nothing":                        request("/"),
		"another scheme":                 request("/", "Authorization: Basic YTpi"),
		"no scheme":                      request("/", "Authorization: "+jwt),
		"a longer scheme":                request("/", "Authorization: Bearerx "+jwt),
		"scheme only":                    request("/", "Authorization: Bearer"),
		"scheme and spaces":              request("/", "Authorization: Bearer   "),
		"empty query":                    request("/?token="),
		"name only":                      request("/?token"),
		"a query of other names":         request("/?tokens=a&xtoken=b&toke=c"),
		"blank query":                    request("/?token=%20%09%EF%BB%BF"),
		"Bearer only in the query":       request("/?token=Bearer"),
		"empty cookie":                   request("/", "Cookie: access_token="),
		"empty quoted cookie":            request("/", `Cookie: access_token=""`),
		"cookies of other names":         request("/", "Cookie: access_token2=a; xaccess_token=b; c"),
		"a query parameter as a cookie":  request("/", "Cookie: token=a"),
		"a header that is no source":     request("/", "X-Token: a"),
		"a name inside another's cookie": request("/", "Cookie: a=access_token=b"),
	} {
		t.Run(name, func(t *testing.T) {
			token, err := newExtractor(t, nil, nil).Token(r)
			require.NoError(t, err)
			require.True(t, token.IsZero())
		})
	}
}

func TestToken_TwoDifferentTokensAreAnError(t *testing.T) {
	const a, b = "secret-a", "secret-b"
	for name, r := range map[string]*http.Request{
		"two places":                    request("/?token="+a, "Authorization: Bearer "+b),
		"two names in one place":        request("/?token=" + a + "&access_token=" + b),
		"query and cookie":              request("/?token="+a, "Cookie: access_token="+b),
		"a repeated header":             request("/", "Authorization: Bearer "+a, "Authorization: Bearer "+b),
		"a repeated parameter":          request("/?token=" + a + "&token=" + b),
		"a repeated cookie":             request("/", "Cookie: access_token="+a+"; access_token="+b),
		"a cookie in two fields":        request("/", "Cookie: access_token="+a, "Cookie: access_token="+b),
		"case":                          request("/?token=" + a + "&token=" + strings.ToUpper(a)),
		"names in different case":       request("/?token=" + a + "&TOKEN=" + b),
		"a value with a semicolon":      request("/?token=" + a + ";" + b),
		"readings of one signature":     request("/?token=" + jwt + "=AAAA"),
		"three, and the third is first": request("/?token="+a+"&token="+b, "Authorization: Bearer "+a),
	} {
		t.Run(name, func(t *testing.T) {
			token, err := newExtractor(t, nil, nil).Token(r)
			require.ErrorIs(t, err, ErrTokensDiffer)
			require.NotContains(t, err.Error(), "secret")
			require.NotContains(t, err.Error(), jwt)
			require.True(t, token.IsZero())
		})
	}
}

func TestToken_IsFoundInConfiguredPlacesOnly(t *testing.T) {
	x := newExtractor(t, []TokenSource{
		{From: Header, Name: "x-api-key"},
		{From: Query, Name: "k&=%"},
		{From: Cookie, Name: "sid"},
	}, nil)
	want := mustHash(t, "abc")
	for name, r := range map[string]*http.Request{
		"header":             request("/", "X-Api-Key: abc"),
		"header with Bearer": request("/", "X-Api-Key: Bearer abc"),
		"query":              request("/?" + url.QueryEscape("k&=%") + "=abc"),
		"cookie":             request("/", "Cookie: sid=abc"),
		"not the defaults":   request("/?token=x", "X-Api-Key: abc", "Authorization: Bearer y", "Cookie: access_token=z"),
	} {
		t.Run(name, func(t *testing.T) {
			token, err := x.Token(r)
			require.NoError(t, err)
			require.Equal(t, want, token.Hash)
		})
	}

	t.Run("a header's quotes are part of the token", func(t *testing.T) {
		token, err := x.Token(request("/", `X-Api-Key: "abc"`))
		require.NoError(t, err)
		require.Equal(t, mustHash(t, `"abc"`), token.Hash)
	})
	t.Run("a token may begin like the scheme", func(t *testing.T) {
		token, err := x.Token(request("/", "X-Api-Key: bearer-abc"))
		require.NoError(t, err)
		require.Equal(t, mustHash(t, "bearer-abc"), token.Hash)
	})
}

func TestToken_EmptyListMeansNowhere(t *testing.T) {
	x := newExtractor(t, []TokenSource{}, []ClientSource{})
	r := request("/?token=a&client_id=b", "Authorization: Bearer c", "X-Client-Id: d", "Cookie: access_token=e")
	token, err := x.Token(r)
	require.NoError(t, err)
	require.True(t, token.IsZero())
	id, _ := x.Client(r, Hash{1})
	require.True(t, id.IsZero())
}

func TestClient(t *testing.T) {
	scope := mustHash(t, jwt)
	x := newExtractor(t, nil, []ClientSource{
		{From: Header, Name: "x-tab-id", Scope: Tab},
		{From: Header, Name: "x-client-id"},
		{From: Query, Name: "client_id", Scope: Device},
		{From: Cookie, Name: "client", Scope: Device},
	})
	long := strings.Repeat("a", 5000)
	for name, tt := range map[string]struct {
		r    *http.Request
		want Hash
		tab  bool
	}{
		"none":                            {r: request("/?client=a", "Cookie: client_id=a")},
		"header":                          {request("/", "X-Client-Id: a"), hashClient(scope, "a", false), false},
		"query":                           {request("/?client_id=a"), hashClient(scope, "a", false), false},
		"query, escaped":                  {request("/?client_i%64=%61"), hashClient(scope, "a", false), false},
		"query, name in any case":         {request("/?CLIENT_ID=a"), hashClient(scope, "a", false), false},
		"cookie":                          {request("/", "Cookie: b=c; client=a"), hashClient(scope, "a", false), false},
		"tab":                             {request("/", "X-Tab-Id: a"), hashClient(scope, "a", true), true},
		"first configured place wins":     {request("/?client_id=b", "X-Tab-Id: a", "X-Client-Id: c"), hashClient(scope, "a", true), true},
		"an empty value is none":          {request("/?client_id=a", "X-Tab-Id: ", "X-Client-Id:   "), hashClient(scope, "a", false), false},
		"an empty value before a value":   {request("/?client_id=+&client_id=a"), hashClient(scope, "a", false), false},
		"white space around":              {request("/?client_id=%09a%20"), hashClient(scope, "a", false), false},
		"only white space is trimmed":     {request("/", `X-Client-Id: "Bearer a"`), hashClient(scope, `"Bearer a"`, false), false},
		"case counts":                     {request("/", "X-Client-Id: A"), hashClient(scope, "A", false), false},
		"long values count in full":       {request("/", "X-Client-Id: "+long), hashClient(scope, long, false), false},
		"a cookie's escapes are not read": {request("/", "Cookie: client=%61"), hashClient(scope, "%61", false), false},
	} {
		t.Run(name, func(t *testing.T) {
			id, tab := x.Client(tt.r, scope)
			require.Equal(t, tt.want, id)
			require.Equal(t, tt.tab, tab)
		})
	}
}

func TestClient_CountsOnlyWithinItsScope(t *testing.T) {
	x := newExtractor(t, nil, nil)
	r := request("/?client_id=a")
	a, _ := x.Client(r, mustHash(t, "token a"))
	b, _ := x.Client(r, mustHash(t, "token b"))
	require.False(t, a.IsZero())
	require.NotEqual(t, a, b)

	id, tab := x.Client(r, Hash{})
	require.True(t, id.IsZero(), "a client id without a token names nobody")
	require.False(t, tab)
}

func TestClient_TabAndDeviceWithOneNameAreTwo(t *testing.T) {
	scope := mustHash(t, jwt)
	require.NotEqual(t, hashClient(scope, "a", true), hashClient(scope, "a", false))
}

func TestNewExtractor_RefusesInvalidSources(t *testing.T) {
	_, err := NewExtractor([]TokenSource{{From: "body", Name: "a"}}, nil)
	require.ErrorContains(t, err, `"body"`)
	_, err = NewExtractor(nil, []ClientSource{{From: Query}})
	require.ErrorContains(t, err, "without a name")
}

func TestNewExtractor_KeepsItsOwnSources(t *testing.T) {
	clients := DefaultClients()
	x := newExtractor(t, nil, clients)
	clients[1].Name = "changed"
	id, _ := x.Client(request("/?client_id=a"), Hash{1})
	require.False(t, id.IsZero())
}

func TestToken_CommonRequestDoesNotAllocate(t *testing.T) {
	x := newExtractor(t, nil, nil)
	for name, r := range map[string]*http.Request{
		"no token":      request("/events"),
		"Authorization": request("/events", "Authorization: Bearer "+jwt),
		"query":         request("/events?a=b&token=" + jwt),
		"cookie":        request("/events", "Cookie: a=b; access_token="+jwt),
	} {
		t.Run(name, func(t *testing.T) {
			require.Zero(t, testing.AllocsPerRun(100, func() { _, _ = x.Token(r) }))
		})
	}
}

func BenchmarkToken(b *testing.B) {
	x := newExtractor(b, nil, nil)
	for name, r := range map[string]*http.Request{
		"none":          request("/events"),
		"Authorization": request("/events", "Authorization: Bearer "+jwt),
		"query":         request("/events?a=b&token=" + jwt),
		"cookie":        request("/events", "Cookie: a=b; access_token="+jwt),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, _ = x.Token(r)
			}
		})
	}
}

func BenchmarkClient(b *testing.B) {
	x := newExtractor(b, nil, nil)
	r := request("/events?client_id=0b6d6b0e-9d0c-4b5c-8a64-2e1d2ef0c1a7")
	scope := mustHash(b, jwt)
	b.ReportAllocs()
	for b.Loop() {
		x.Client(r, scope)
	}
}

var inPath = []TokenSource{{From: Cookie, Name: "JSESSIONID"}, {From: Query, Name: "token"}, {From: Path, Name: "jsessionid"}}

func TestToken_InThePathIsFoundWhereServletContainersFindIt(t *testing.T) {
	x := newExtractor(t, inPath, nil)
	want := mustHash(t, "4D2")
	for name, target := range map[string]string{
		"at the end":             "/events;jsessionid=4D2",
		"in any segment":         "/app;jsessionid=4D2/events",
		"of the root":            "/;jsessionid=4D2",
		"among others":           "/events;a=b;jsessionid=4D2;c",
		"before a query":         "/events;jsessionid=4D2?a=b",
		"name in any case":       "/events;JSessionID=4D2",
		"escaped":                "/events;%6Asessionid=4%442",
		"escaped semicolon":      "/events%3Bjsessionid=4D2",
		"escaped equals sign":    "/events%3Bjsessionid%3D4D2",
		"first one empty":        "/events;jsessionid=;jsessionid=4D2",
		"twice the same":         "/events;jsessionid=4D2;jsessionid=4D2",
		"a file's name behind":   "/events;jsessionid=4D2/a.b",
		"with spaces around":     "/events;jsessionid=%204D2%20",
		"with a space in a name": "/ev%20ents;jsessionid=4D2",
	} {
		t.Run(name, func(t *testing.T) {
			token, err := x.Token(request(target))
			require.NoError(t, err)
			require.Equal(t, want, token.Hash)
		})
	}
	for name, target := range map[string]string{
		"no parameter": "/jsessionid=4D2",
		"empty":        "/events;jsessionid=",
		"a name only":  "/events;jsessionid",
		"another name": "/events;sessionid=4D2",
		"in the query": "/events?a=;jsessionid=4D2",
	} {
		t.Run(name, func(t *testing.T) {
			token, err := x.Token(request(target))
			require.NoError(t, err)
			require.True(t, token.IsZero())
		})
	}
	for name, target := range map[string]string{
		"two":                    "/events;jsessionid=4D2;jsessionid=4D3",
		"two readings of one":    "/events;jsessionid=4D2%3Bjsessionid=4D3",
		"read by some only, too": "/events;jsessionid=4D2%3Ba",
	} {
		t.Run(name, func(t *testing.T) {
			_, err := x.Token(request(target))
			require.ErrorIs(t, err, ErrTokensDiffer)
		})
	}
	token, err := newExtractor(t, nil, nil).Token(request("/events;access_token=4D2"))
	require.NoError(t, err)
	require.True(t, token.IsZero(), "unless it is told to look there")
}

// As Tomcat does, which takes the cookie's session then.
func TestToken_InThePathCountsOnlyWhereThereIsNoOther(t *testing.T) {
	x := newExtractor(t, inPath, nil)
	for _, r := range []*http.Request{
		request("/events;jsessionid=4D2", "Cookie: JSESSIONID=ABC"),
		request("/events;jsessionid=4D2?token=ABC"),
	} {
		token, err := x.Token(r)
		require.NoError(t, err)
		require.Equal(t, mustHash(t, "ABC"), token.Hash)
	}
}

func TestToken_InThePathIsThatOfTheClient(t *testing.T) {
	asked, err := url.Parse("/app/events;jsessionid=4D2")
	require.NoError(t, err)
	x := newExtractor(t, inPath, nil)
	rewritten := request("/events;jsessionid=own")
	token, err := x.WithOriginal(func(*http.Request) *url.URL { return asked }).Token(rewritten)
	require.NoError(t, err)
	require.Equal(t, mustHash(t, "4D2"), token.Hash)
	token, err = x.WithOriginal(func(*http.Request) *url.URL { return nil }).Token(rewritten)
	require.NoError(t, err)
	require.Equal(t, mustHash(t, "own"), token.Hash)
}

func TestPath_IsWithoutParametersWhereTheBackendHasThem(t *testing.T) {
	x := newExtractor(t, inPath, nil)
	for path, want := range map[string]string{
		"/events": "/events", "/events;jsessionid=4D2": "/events", "/app;a=b/events;;c/": "/app/events/", "/;x": "/", "": "",
	} {
		require.Equal(t, want, x.Path(path))
	}
	require.Equal(t, "/events;a", newExtractor(t, nil, nil).Path("/events;a"))
}
