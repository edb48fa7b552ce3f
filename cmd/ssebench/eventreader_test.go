package main

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestEventReader_FindsEvents(t *testing.T) {
	for name, test := range map[string]struct {
		stream string
		want   []string
	}{
		"none":                          {"", nil},
		"without a name":                {"data: 1\n\ndata: 2\n\n", []string{"", ""}},
		"with a name":                   {"id: t\nevent: DUPLICATED_CONNECTION\ndata: {}\n\n", []string{duplicated}},
		"a name counts for one event":   {"event: a\ndata: 1\n\ndata: 2\n\n", []string{"a", ""}},
		"a comment is none":             {": heartbeat\n\ndata: 1\n\n", []string{""}},
		"an unfinished one is none":     {"data: 1\n\ndata: 2\n", []string{""}},
		"a long line is still a line":   {"data: " + strings.Repeat("x", 3*maxLine) + "\n\nevent: b\ndata: 1\n\n", []string{"", "b"}},
		"blank lines alone say nothing": {"\n\n\n", nil},
	} {
		t.Run(name, func(t *testing.T) {
			for how, r := range map[string]io.Reader{
				"at once":   strings.NewReader(test.stream),
				"bytewise":  iotest.OneByteReader(strings.NewReader(test.stream)),
				"with EOF":  iotest.DataErrReader(strings.NewReader(test.stream)),
				"in halves": iotest.HalfReader(strings.NewReader(test.stream)),
			} {
				var got []string
				events := eventReader{r: r}
				require.NoError(t, events.read(func(name string) { got = append(got, name) }), how)
				assert.Equal(t, test.want, got, how)
			}
		})
	}
}

func TestEventReader_ReportsABrokenStream(t *testing.T) {
	broken := errors.New("broken")
	events := eventReader{r: io.MultiReader(strings.NewReader("data: 1\n\n"), iotest.ErrReader(broken))}
	n := 0
	require.ErrorIs(t, events.read(func(string) { n++ }), broken)
	assert.Equal(t, 1, n)
}

func TestCountdown_IsDoneAtTheLastEvent(t *testing.T) {
	c := newCountdown(2)
	c.one()
	select {
	case <-c.done:
		t.Fatal("done too early")
	default:
	}
	c.one()
	<-c.done
	c.one() // one too many does no harm

	(*countdown)(nil).one() // nothing is expected
}
