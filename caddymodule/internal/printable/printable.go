// Package printable makes text of others fit for a terminal: who names a stream, or
// answers a request, is not to move the cursor of who reads of it.
package printable

import (
	"strings"
	"unicode"

	"golang.org/x/text/width"
)

// Text returns text without what a terminal might obey, and cut to at most that many
// columns.
func Text(text string, atMost int) string {
	text = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) { // which leaves out control and format characters
			return -1
		}
		return r
	}, strings.ToValidUTF8(text, "\uFFFD"))
	return Cut(text, atMost)
}

// Width returns how many columns of a terminal text takes: Korean takes two a character
// (UAX #11), a combining accent none.
func Width(text string) (columns int) {
	for _, r := range text {
		columns += columnsOf(r)
	}
	return columns
}

func columnsOf(r rune) int {
	if unicode.In(r, unicode.Mn, unicode.Me) || r >= 0x1160 && r <= 0x11FF || r >= 0xD7B0 && r <= 0xD7FF {
		return 0 // the latter are the vowels and finals of Korean that is spelled by letters
	}
	switch width.LookupRune(r).Kind() {
	case width.EastAsianWide, width.EastAsianFullwidth:
		return 2
	default:
		return 1
	}
}

// Cut cuts text to at most that many columns, the last of which says so.
func Cut(text string, atMost int) string {
	if len(text) <= atMost || Width(text) <= atMost {
		return text
	}
	if atMost <= 0 {
		return ""
	}
	columns := 0
	for i, r := range text {
		if columns += columnsOf(r); columns >= atMost {
			return text[:i] + "…"
		}
	}
	return text
}
