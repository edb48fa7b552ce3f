package identity

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestDefaultSources_AreValid(t *testing.T) {
	require.NoError(t, ValidateTokens(DefaultTokens()))
	require.NoError(t, ValidateClients(DefaultClients()))
	for _, c := range DefaultClients() {
		require.Equal(t, Device, c.Scope)
	}
}

func TestTokenSources_ErrorsNameWhatWasGivenAndWhatIsAllowed(t *testing.T) {
	for name, tt := range map[string]struct {
		sources []TokenSource
		want    string
	}{
		"unknown place": {
			[]TokenSource{{From: "body", Name: "token"}},
			`token source: unknown place "body", expected "header", "query", "cookie" or "path"`,
		},
		"no place": {
			[]TokenSource{{Name: "token"}},
			`token source: unknown place "", expected "header", "query", "cookie" or "path"`,
		},
		"place in capitals": {
			[]TokenSource{{From: "Header", Name: "token"}},
			`token source: unknown place "Header", expected "header", "query", "cookie" or "path"`,
		},
		"header without a name": {
			[]TokenSource{{From: Header}},
			`token source: header without a name, expected the name of the header`,
		},
		"query without a name": {
			[]TokenSource{{From: Query}},
			`token source: query without a name, expected the name of the query parameter`,
		},
		"header with a colon": {
			[]TokenSource{{From: Header, Name: "X-Token:"}},
			"token source: \"X-Token:\" cannot be the name of a header, expected letters, digits and !#$%&'*+-.^_`|~ only",
		},
		"cookie with a space": {
			[]TokenSource{{From: Cookie, Name: "a b"}},
			"token source: \"a b\" cannot be the name of a cookie, expected letters, digits and !#$%&'*+-.^_`|~ only",
		},
		"header twice": {
			[]TokenSource{{From: Header, Name: "X-Token"}, {From: Query, Name: "x"}, {From: Header, Name: "x-token"}},
			`token source header x-token is given twice, expected each place once`,
		},
		"query twice": {
			[]TokenSource{{From: Query, Name: "a"}, {From: Query, Name: "a"}},
			`token source query a is given twice, expected each place once`,
		},
		"one name in three places": {
			sources: []TokenSource{{From: Query, Name: "a"}, {From: Header, Name: "a"}, {From: Cookie, Name: "a"}},
		},
		"any query name": {
			sources: []TokenSource{{From: Query, Name: "a b:é"}},
		},
		"a name of all signs": {
			sources: []TokenSource{{From: Cookie, Name: "__Host-aZ09!#$%&'*+-.^_`|~"}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			err := ValidateTokens(tt.sources)
			if tt.want == "" {
				require.NoError(t, err)
				return
			}
			require.EqualError(t, err, tt.want)
		})
	}
}

func TestClientSources_ErrorsNameWhatWasGivenAndWhatIsAllowed(t *testing.T) {
	for name, tt := range map[string]struct {
		sources []ClientSource
		want    string
	}{
		"unknown place": {
			[]ClientSource{{From: "path", Name: "id"}},
			`client source: unknown place "path", expected "header", "query" or "cookie"`,
		},
		"unknown scope": {
			[]ClientSource{{From: Header, Name: "X-Id", Scope: "session"}},
			`client source header X-Id: unknown scope "session", expected "device" or "tab"`,
		},
		"twice, with two scopes": {
			[]ClientSource{{From: Header, Name: "X-Id", Scope: Tab}, {From: Header, Name: "x-id"}},
			`client source header x-id is given twice, expected each place once, with one scope`,
		},
		"no scope": {sources: []ClientSource{{From: Cookie, Name: "id"}}},
		"scopes":   {sources: []ClientSource{{From: Query, Name: "a", Scope: Tab}, {From: Query, Name: "b", Scope: Device}}},
	} {
		t.Run(name, func(t *testing.T) {
			err := ValidateClients(tt.sources)
			if tt.want == "" {
				require.NoError(t, err)
				return
			}
			require.EqualError(t, err, tt.want)
		})
	}
}

func TestSources_JSON(t *testing.T) {
	tokens, err := json.Marshal(TokenSource{From: Header, Name: "Authorization"})
	require.NoError(t, err)
	require.JSONEq(t, `{"from":"header","name":"Authorization"}`, string(tokens))

	client, err := json.Marshal(ClientSource{From: Query, Name: "client_id", Scope: Tab})
	require.NoError(t, err)
	require.JSONEq(t, `{"from":"query","name":"client_id","scope":"tab"}`, string(client))
}
