package identity

import (
	"testing"

	"github.com/stretchr/testify/require"
)

type pair struct{ name, value string }

func TestQueryPairs_DropNothing(t *testing.T) {
	for query, want := range map[string][]pair{
		"":          nil,
		"a":         {{"a", ""}},
		"a=":        {{"a", ""}},
		"a=b=c":     {{"a", "b=c"}},
		"a=%zz&%=+": {{"a", "%zz"}, {"%", "+"}},
		"&a=1&&b=2": {{"", ""}, {"a", "1"}, {"", ""}, {"b", "2"}},
		"a=1;b=2":   {{"a", "1;b=2"}, {"a", "1"}, {"b", "2"}},
		"a=1;":      {{"a", "1;"}, {"a", "1"}},
	} {
		t.Run(query, func(t *testing.T) {
			var got []pair
			for name, value := range queryPairs(query) {
				got = append(got, pair{name, value})
			}
			require.Equal(t, want, got)
		})
	}
}

func TestPairs_StopWhenAsked(t *testing.T) {
	const query = "a=1;b=2&c=3"
	for stop := 1; stop <= 4; stop++ {
		seen := 0
		for range queryPairs(query) {
			if seen++; seen == stop {
				break
			}
		}
		require.Equal(t, stop, seen)
	}
	for name := range cookiePairs([]string{"a=1; b=2", "c=3"}) {
		require.Equal(t, "a", name)
		break
	}
}

func TestUnescapeQuery(t *testing.T) {
	for text, want := range map[string]string{
		"":            "",
		"abc":         "abc",
		"a+b":         "a b",
		"%2b%2B":      "++",
		"%e2%82%ac":   "€",
		"%":           "%",
		"%4":          "%4",
		"%zz%4z%z4":   "%zz%4z%z4",
		"%%41":        "%A",
		"%2541":       "%41",
		"a%00b%ff":    "a\x00b\xff",
		"a%41b%4Ac%4": "aAbJc%4",
	} {
		t.Run(text, func(t *testing.T) {
			require.Equal(t, want, unescapeQuery(text))
		})
	}
}

func TestUnescapeCookie(t *testing.T) {
	for text, want := range map[string]string{
		``:              ``,
		`abc`:           `abc`,
		`"abc"`:         `abc`,
		`""`:            ``,
		`"`:             `"`,
		`"abc`:          `"abc`,
		`a+b`:           `a+b`,
		`%41"`:          `A"`,
		`"\101\377"`:    "A\xff",
		`"\"\\"`:        `"\`,
		`"\400\18\189"`: `40018189`,
		`"a\"`:          `a\`,
		`\101`:          `\101`,
	} {
		t.Run(text, func(t *testing.T) {
			require.Equal(t, want, unescapeCookie(text))
		})
	}
}
