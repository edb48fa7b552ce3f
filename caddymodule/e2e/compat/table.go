package compat

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Scene is what happens to a client, and a column of the table.
type Scene string

// The scenes, as README says what they are.
const (
	Superseded  Scene = "superseded"
	GoneAndBack Scene = "gone and back"
	Rejected    Scene = "rejected"
	Parked      Scene = "parked"
	Idle        Scene = "idle"
	Rotated     Scene = "rotated"
	Drained     Scene = "drained"
	LoggedOut   Scene = "logged out"
)

// Scenes are the columns, in their order.
var Scenes = []Scene{Superseded, GoneAndBack, Rejected, Parked, Idle, Rotated, Drained, LoggedOut}

// Word is one thing that a client did in a scene.
type Word string

// The words, as README says what they mean.
const (
	Told       Word = "told"
	NotTold    Word = "not told"
	Rests      Word = "rests"
	GoesOn     Word = "goes on"
	ByItself   Word = "by itself"
	WhenAsked  Word = "when asked"
	Never      Word = "never"
	Quiet      Word = "quiet"
	Disturbed  Word = "disturbed"
	Raises     Word = "raises"
	LooksEnded Word = "looks finished"
)

// grades rank the words that answer the same question: 0 is the worst answer.
var grades = map[Word]struct {
	question string
	rank     int
}{
	Told: {"is it told?", 1}, NotTold: {"is it told?", 0},
	Rests: {"does it rest?", 1}, GoesOn: {"does it rest?", 0},
	ByItself: {"does it get the stream?", 2}, WhenAsked: {"does it get the stream?", 1}, Never: {"does it get the stream?", 0},
	Quiet: {"is it left alone?", 1}, Disturbed: {"is it left alone?", 0},
	Raises: {"does it know that more was to come?", 1}, LooksEnded: {"does it know that more was to come?", 0},
}

// Cell is how a client fared in a scene.
type Cell struct {
	Words    []Word
	Counted  bool // whether the scene counts requests
	Requests int  // in 20 seconds
}

// String returns the cell's text in the table.
func (c Cell) String() string {
	var parts []string
	for _, w := range c.Words {
		parts = append(parts, string(w))
	}
	if c.Counted {
		parts = append(parts, strconv.Itoa(c.Requests))
	}
	return strings.Join(parts, ", ")
}

// ParseCell reads what String wrote.
func ParseCell(text string) (Cell, error) {
	var c Cell
	for part := range strings.SplitSeq(text, ",") {
		part = strings.TrimSpace(part)
		if part == "" {
			continue
		}
		if n, err := strconv.Atoi(part); err == nil && n >= 0 && !c.Counted {
			c.Counted, c.Requests = true, n
			continue
		}
		if _, ok := grades[Word(part)]; !ok {
			return Cell{}, fmt.Errorf("%q is no word of the table of clients", part)
		}
		c.Words = append(c.Words, Word(part))
	}
	return c, nil
}

// WorseThan says in what the cell is worse than what was promised; nothing if it is
// not. Counts of requests vary with timing: up to twice as many, and two more, pass.
func (c Cell) WorseThan(promised Cell) []string {
	var worse []string
	for _, want := range promised.Words {
		g := grades[want]
		answer := slices.IndexFunc(c.Words, func(w Word) bool { return grades[w].question == g.question })
		switch {
		case answer < 0 && g.rank > 0:
			// Who comes back by itself is not asked whether it knows more was to come.
			if g.question == grades[Raises].question && slices.Contains(c.Words, ByItself) {
				continue
			}
			worse = append(worse, fmt.Sprintf("%s %q was promised, and there is no answer", g.question, want))
		case answer >= 0 && grades[c.Words[answer]].rank < g.rank:
			worse = append(worse, fmt.Sprintf("%s %q was promised, and it is %q", g.question, want, c.Words[answer]))
		}
	}
	if promised.Counted && c.Requests > 2*promised.Requests+2 {
		worse = append(worse, fmt.Sprintf("%d requests were promised, and there were %d", promised.Requests, c.Requests))
	}
	return worse
}

// Row is how one client fared.
type Row struct {
	Client  string
	Version string // or why there is no such client here
	Cells   map[Scene]Cell
}

// Render returns the table, in Markdown.
func Render(rows []Row) string {
	var b strings.Builder
	b.WriteString("| client | version |")
	for _, s := range Scenes {
		fmt.Fprintf(&b, " %s |", s)
	}
	b.WriteString("\n" + strings.Repeat("| --- ", len(Scenes)+2) + "|\n")
	for _, r := range rows {
		fmt.Fprintf(&b, "| %s | %s |", r.Client, r.Version)
		for _, s := range Scenes {
			fmt.Fprintf(&b, " %s |", r.Cells[s])
		}
		b.WriteString("\n")
	}
	return b.String()
}

// Parse reads what Render wrote.
func Parse(table string) ([]Row, error) {
	var rows []Row
	lines := strings.Split(strings.TrimSpace(table), "\n")
	for _, line := range lines[min(2, len(lines)):] {
		fields := strings.Split(strings.Trim(line, "|"), "|")
		if len(fields) != len(Scenes)+2 {
			return nil, fmt.Errorf("the row %q of the table of clients has %d columns, not %d", line, len(fields), len(Scenes)+2)
		}
		r := Row{Client: strings.TrimSpace(fields[0]), Version: strings.TrimSpace(fields[1]), Cells: map[Scene]Cell{}}
		for i, s := range Scenes {
			c, err := ParseCell(fields[i+2])
			if err != nil {
				return nil, fmt.Errorf("%s, %s: %w", r.Client, s, err)
			}
			r.Cells[s] = c
		}
		rows = append(rows, r)
	}
	return rows, nil
}

// Merge returns the rows of order's clients, in that order: measured ones where
// there are, cell by cell, else those of before.
func Merge(order []string, before, measured []Row) []Row {
	var merged []Row
	find := func(rows []Row, client string) *Row {
		if i := slices.IndexFunc(rows, func(r Row) bool { return r.Client == client }); i >= 0 {
			return &rows[i]
		}
		return nil
	}
	for _, client := range order {
		row := Row{Client: client, Cells: map[Scene]Cell{}}
		for _, from := range []*Row{find(before, client), find(measured, client)} {
			if from == nil {
				continue
			}
			row.Version = from.Version
			for s, c := range from.Cells {
				if len(c.Words) > 0 {
					row.Cells[s] = c
				}
			}
		}
		merged = append(merged, row)
	}
	return merged
}
