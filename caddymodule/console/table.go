package console

import (
	"io"
	"slices"
	"strings"

	"github.com/sse-guard/sse-guard/caddymodule/internal/printable"
)

// widest is how wide a column is at most, in columns of the terminal.
const widest = 60

// table is text in columns.
type table struct {
	head     []string
	right    []int // columns whose text is to the right
	optional []int // columns that are left out where they are empty
	rows     [][]string
}

func (t *table) row(cells ...string) {
	for i := range cells {
		cells[i] = printable.Text(cells[i], widest)
	}
	t.rows = append(t.rows, cells)
}

// widths are those of the columns; 0: it is left out.
func (t *table) widths() []int {
	widths := make([]int, len(t.head))
	for _, row := range t.rows {
		for i, cell := range row {
			widths[i] = max(widths[i], printable.Width(cell))
		}
	}
	for i, name := range t.head {
		if widths[i] > 0 || !slices.Contains(t.optional, i) {
			widths[i] = max(widths[i], printable.Width(name))
		}
	}
	return widths
}

// lines are the head and the rows, each at most that wide.
func (t *table) lines(width int) []string {
	widths := t.widths()
	lines := make([]string, 0, len(t.rows)+1)
	for _, row := range slices.Insert(slices.Clone(t.rows), 0, t.head) {
		var line strings.Builder
		for i, cell := range row {
			if widths[i] == 0 {
				continue
			}
			if line.Len() > 0 {
				line.WriteString("  ")
			}
			pad := strings.Repeat(" ", widths[i]-printable.Width(cell))
			if slices.Contains(t.right, i) {
				line.WriteString(pad + cell)
			} else {
				line.WriteString(cell + pad)
			}
		}
		lines = append(lines, printable.Cut(strings.TrimRight(line.String(), " "), width))
	}
	return lines
}

func (t *table) print(out io.Writer, width int) {
	_, _ = io.WriteString(out, strings.Join(t.lines(width), "\n")+"\n") // a reader that left wants no more
}
