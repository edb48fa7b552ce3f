package compat

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestTable_ReadsWhatItWrites holds for every word, and for a client that is not to
// be had.
func TestTable_ReadsWhatItWrites(t *testing.T) {
	all := Row{Client: "all", Version: "1", Cells: map[Scene]Cell{}}
	for i, s := range Scenes {
		all.Cells[s] = Cell{Counted: true, Requests: i}
	}
	all.Cells[Idle] = Cell{Words: []Word{Told, NotTold, Rests, GoesOn, ByItself, WhenAsked, Never, Quiet, Disturbed, Raises, LooksEnded}, Counted: true, Requests: 7}
	missing := Row{Client: "none", Version: "not served", Cells: map[Scene]Cell{}}
	for _, s := range Scenes {
		missing.Cells[s] = Cell{}
	}
	rows, err := Parse(Render([]Row{all, missing}))
	require.NoError(t, err)
	assert.Equal(t, []Row{all, missing}, rows)
}

func TestTable_RefusesWhatItDoesNotKnow(t *testing.T) {
	good := Render([]Row{{Client: "c"}})
	_, err := Parse(good + "| c | 1 |\n")
	require.ErrorContains(t, err, "2 columns, not 10")
	_, err = ParseCell("told, sometimes")
	require.ErrorContains(t, err, `"sometimes" is no word`)
}

func TestCell_WorseThan(t *testing.T) {
	for _, test := range []struct{ promised, got, worse string }{
		{"told, rests, 2", "told, rests, 2", ""},
		{"told, rests, 2", "told, rests, 6", ""},
		{"told, rests, 2", "told, rests, 7", "2 requests were promised, and there were 7"},
		{"told, rests, 0", "told, rests, 3", "0 requests were promised, and there were 3"},
		{"told, rests", "told, rests, 300", ""},
		{"told, rests, 2", "not told, rests, 2", `is it told? "told" was promised, and it is "not told"`},
		{"told, rests, 2", "told, goes on, 2", `does it rest? "rests" was promised, and it is "goes on"`},
		{"by itself", "when asked", `does it get the stream? "by itself" was promised, and it is "when asked"`},
		{"when asked", "never", `does it get the stream? "when asked" was promised, and it is "never"`},
		{"when asked", "by itself", ""},
		{"never", "by itself", ""},
		{"quiet", "disturbed", `is it left alone? "quiet" was promised, and it is "disturbed"`},
		{"quiet", "", `is it left alone? "quiet" was promised, and there is no answer`},
		{"raises, when asked", "by itself", ""},
		{"raises, when asked", "looks finished, when asked", `does it know that more was to come? "raises" was promised, and it is "looks finished"`},
		{"", "disturbed", ""},
	} {
		promised, err := ParseCell(test.promised)
		require.NoError(t, err)
		got, err := ParseCell(test.got)
		require.NoError(t, err)
		worse := got.WorseThan(promised)
		if test.worse == "" {
			assert.Empty(t, worse, "%+v", test)
		} else {
			assert.Equal(t, []string{test.worse}, worse, "%+v", test)
		}
	}
}

// TestMerge keeps what was not measured, and drops the rows of clients that are gone.
func TestMerge(t *testing.T) {
	told, not := Cell{Words: []Word{Told}}, Cell{Words: []Word{NotTold}}
	before := []Row{
		{Client: "a", Version: "1", Cells: map[Scene]Cell{Rejected: told, Parked: told}},
		{Client: "gone"},
		{Client: "b", Version: "1", Cells: map[Scene]Cell{Parked: told}},
	}
	measured := []Row{{Client: "a", Version: "2", Cells: map[Scene]Cell{Parked: not}}}
	assert.Equal(t, []Row{
		{Client: "b", Version: "1", Cells: map[Scene]Cell{Parked: told}},
		{Client: "a", Version: "2", Cells: map[Scene]Cell{Rejected: told, Parked: not}},
	}, Merge([]string{"b", "a"}, before, measured))
}
