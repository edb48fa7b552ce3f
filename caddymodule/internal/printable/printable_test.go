package printable_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/sse-guard/sse-guard/caddymodule/internal/printable"
)

func TestText(t *testing.T) {
	for text, want := range map[string]string{
		"plain text":               "plain text",
		"한국어":                      "한국어",
		"a\x1b[2Jb":                "a[2Jb",
		"line\r\nline\tend\x00\a":  "linelineend",
		"right\u202eleft\u200b":    "rightleft",
		"\xff bytes":               "\uFFFD bytes",
		"\u009b31m":                "31m",
		strings.Repeat("한", 21):    strings.Repeat("한", 9) + "…",
		strings.Repeat("\x1b", 99): "",
	} {
		assert.Equal(t, want, printable.Text(text, 20))
	}
}

func TestCut(t *testing.T) {
	assert.Equal(t, "abc", printable.Cut("abc", 3))
	assert.Equal(t, "ab…", printable.Cut("abcd", 3))
	assert.Equal(t, "…", printable.Cut("abcd", 1))
	assert.Empty(t, printable.Cut("abcd", 0))
	assert.Equal(t, "한국", printable.Cut("한국", 4))
	assert.Equal(t, "한…", printable.Cut("한국어", 4))
	assert.Equal(t, "…", printable.Cut("한국어", 2))
	assert.Equal(t, "e\u0301e\u0301", printable.Cut("e\u0301e\u0301", 2))
}

func TestWidth(t *testing.T) {
	assert.Equal(t, 9, printable.Width("abc한국어"))
	assert.Equal(t, 1, printable.Width("e\u0301"), "a combining accent")
	assert.Equal(t, 2, printable.Width("\u1112\u1161\u11ab"), "한, by its letters")
	assert.Equal(t, 2, printable.Width("Ａ"), "full width")
	assert.Zero(t, printable.Width(""))
}
