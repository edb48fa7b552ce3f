// Package printable makes text of others fit for a terminal: who names a stream, or
// answers a request, is not to move the cursor of who reads of it.
package printable

import (
	"strings"
	"unicode"
)

// Text returns text without what a terminal might obey, and cut to at most that many
// characters.
func Text(text string, atMost int) string {
	text = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) { // which leaves out control and format characters
			return -1
		}
		return r
	}, strings.ToValidUTF8(text, "\uFFFD"))
	return Cut(text, atMost)
}

// Cut cuts text to at most that many characters, the last of which says so.
func Cut(text string, atMost int) string {
	if len(text) <= atMost {
		return text
	}
	runes := []rune(text)
	switch {
	case len(runes) <= atMost:
		return text
	case atMost <= 0:
		return ""
	default:
		return string(runes[:atMost-1]) + "…"
	}
}
