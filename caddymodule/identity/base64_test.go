package identity

import (
	"encoding/base64"
	"testing"

	"github.com/stretchr/testify/require"
)

// The readings of CPython's binascii.a2b_base64, non-strict, where it gives one
// (test_binascii.py), and of Go's lenient decoders.
func TestDecoded(t *testing.T) {
	for text, want := range map[string]string{
		"":             "",
		"YWJj":         "abc",
		"YWI=":         "ab",
		"YWI":          "ab",
		"YQ==":         "a",
		"YQ":           "a",
		"YR":           "a",
		"Y":            "",
		"YWJjY":        "abc",
		"Y=W=I=":       "ab",
		"=YWJj":        "abc",
		"YWJj=":        "abc",
		"YWJj====YWJj": "abcabc",
		"ab==c":        "i",
		"ab==cd":       "i",
		"abc=d":        "i\xb7",
		"ab=c=":        "i\xb7",
		"ab=ab==":      "i\xb6\x9b",
		"ab===":        "i",
		"ab==:":        "i",
		"ab=\n=":       "i",
		"\nab==":       "i",
		"a\nb\r\n==":   "i",
		"-_+/":         "\xfb\xff\xbf",
		"é":            "",
	} {
		t.Run(text, func(t *testing.T) {
			got, _ := appendDecoded([]byte("x"), text)
			require.Equal(t, "x"+want, string(got))
		})
	}
}

func FuzzDecoded(f *testing.F) {
	f.Add("YWJj")
	f.Add("YQ==\n")
	f.Add("Y\r\nQ")
	f.Fuzz(func(t *testing.T, text string) {
		got, agreed := appendDecoded(nil, text)
		for name, encoding := range encodings {
			want, err := encoding.DecodeString(text)
			if err != nil {
				continue
			}
			require.Equal(t, string(want), string(got), name)
			if len(text) <= 76 || text[76] != '\r' {
				require.True(t, agreed, name)
			}
		}
		if agreed {
			again, stillAgreed := appendDecoded(nil, base64.RawURLEncoding.EncodeToString(got))
			require.True(t, stillAgreed)
			require.Equal(t, string(got), string(again))
		}
	})
}
