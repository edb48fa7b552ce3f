package demo

import (
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestVisitors_ForgetThoseWhoLeftWhenThereAreMany(t *testing.T) {
	v := newVisitors()
	v.open("stays", "s")
	for i := range 3 * maxVisitors {
		token := strconv.Itoa(i)
		v.open(token, "x")
		v.close(token, "x")
	}
	require.LessOrEqual(t, len(v.byHash), maxVisitors)
	require.Equal(t, state{Open: 1, Opened: 1, Streams: []string{"s"}}, v.state("stays"))
}

func TestVisitors_NeverForgetAnOpenStream(t *testing.T) {
	v := newVisitors()
	for i := range 2 * maxVisitors {
		v.open(strconv.Itoa(i), "x")
	}
	require.Len(t, v.byHash, 2*maxVisitors)
	for i := range 2 * maxVisitors {
		v.close(strconv.Itoa(i), "x")
		require.Zero(t, v.state(strconv.Itoa(i)).Open)
	}
}
