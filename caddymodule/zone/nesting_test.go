package zone

import (
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestNesting_IsLearnedFromRequests(t *testing.T) {
	n := newNesting()
	site := Route{Guard: "site", Host: "example.com", Path: "/events"}
	admin := site
	admin.Path = "/admin"
	require.False(t, n.Innermost(site), "nothing is known")
	n.Note(site, false)
	require.True(t, n.Innermost(site))
	require.True(t, n.Innermost(admin), "none was ever seen behind it")
	n.Note(admin, true)
	require.False(t, n.Innermost(admin))
	require.False(t, n.Innermost(site), "it has to be seen again")
	n.Note(site, false)
	require.True(t, n.Innermost(site))
	n.Note(admin, false)
	require.False(t, n.Innermost(admin), "another request may pass it again")
	inner := site
	inner.Depth = 1
	require.False(t, n.Innermost(inner), "the same guard further inside is another one")
}

func TestNesting_IsBounded(t *testing.T) {
	n := newNesting()
	r := Route{Guard: "site", Path: "/nested"}
	n.Note(r, true)
	for i := range mostRoutes + 10 {
		r.Path = strconv.Itoa(i)
		n.Note(r, false)
	}
	require.Equal(t, mostRoutes, n.routes.Len())
	require.True(t, n.Innermost(r), "the latest")
	r.Path = "0"
	require.False(t, n.Innermost(r), "forgotten")
}
