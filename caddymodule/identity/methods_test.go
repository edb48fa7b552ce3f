package identity

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestMethods_Count(t *testing.T) {
	for method, want := range map[string]struct{ usually, any, post bool }{
		"GET":     {true, true, false},
		"get":     {true, true, false},
		"POST":    {false, true, true},
		"post":    {false, true, true},
		"PUT":     {false, true, false},
		"PATCH":   {false, true, false},
		"DELETE":  {false, true, false},
		"QUERY":   {true, true, true},
		"OPTIONS": {true, true, false},
		"CONNECT": {true, true, false},
		"TRACE":   {true, true, false},
	} {
		t.Run(method, func(t *testing.T) {
			require.Equal(t, want.usually, Methods(nil).Count(method))
			require.Equal(t, want.any, Methods{AnyMethod}.Count(method))
			require.Equal(t, want.post, Methods{"POST", "query"}.Count(method))
		})
	}
}
