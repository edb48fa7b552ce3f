package identity

import "strings"

// digit is what a byte means in base64: its value, or one of the two below.
type digit = uint8

const (
	skip digit = 0xff // not base64: decoders that accept it ignore it
	pad  digit = 0xfe
)

// digits knows both alphabets of RFC 4648, sections 4 and 5, at once: Python's
// urlsafe_b64decode, Node and PHP accept a mixture.
var digits = func() (table [256]digit) {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
	for i := range table {
		table[i] = skip
	}
	for i := range len(letters) {
		table[letters[i]] = digit(i)
	}
	table['-'], table['+'] = 62, 62
	table['_'], table['/'] = 63, 63
	table['='] = pad
	return table
}()

// appendDecoded appends the bytes that the base64 text s stands for. Texts that
// the decoders of common JWT libraries accept as the same bytes give the same
// bytes here:
//
//   - both alphabets, also mixed;
//   - bytes that are not base64 are skipped (Python and Node skip them all, Go
//     skips CR and LF);
//   - bits behind the last whole byte are ignored (Go, Python, Java);
//   - with or without padding. As in CPython's binascii, non-strict: padding
//     that completes a quantum ends the text, and any other is skipped.
//
// agreed is false where no single reading is right, because decoders in use
// disagree. CPython stopped at padding until 3.13 and now reads on (CPython
// issue 145264), Node stops at the first '=', and jjwt reads '=' inside the
// text as a zero and jumps over two bytes a line if byte 76 is a CR.
func appendDecoded(dst []byte, s string) (out []byte, agreed bool) {
	var (
		quantum uint32
		filled  int // digits in quantum
		pads    int // since the last digit
	)
	for i := range len(s) {
		switch d := digits[s[i]]; d {
		case skip:
		case pad:
			pads++
			if filled >= 2 && filled+pads >= 4 {
				return appendQuantum(dst, quantum, filled), isAgreed(s)
			}
		default:
			pads = 0
			quantum = quantum<<6 | uint32(d)
			if filled++; filled == 4 {
				dst = append(dst, byte(quantum>>16), byte(quantum>>8), byte(quantum))
				filled = 0
			}
		}
	}
	return appendQuantum(dst, quantum, filled), isAgreed(s)
}

// appendQuantum appends the whole bytes of an unfinished quantum.
func appendQuantum(dst []byte, quantum uint32, filled int) []byte {
	switch filled {
	case 2:
		dst = append(dst, byte(quantum>>4))
	case 3:
		dst = append(dst, byte(quantum>>10), byte(quantum>>2))
	}
	return dst
}

// isAgreed reports whether all decoders that accept s read it the same way: its
// padding, if any, follows the last digit and is not more than the text needs.
func isAgreed(s string) bool {
	const line = 76 // of MIME, RFC 2045 section 6.8
	if len(s) > line && s[line] == '\r' {
		return false
	}
	first := strings.IndexByte(s, '=')
	if first < 0 {
		return true
	}
	pads := 0
	for i := first; i < len(s); i++ {
		switch digits[s[i]] {
		case skip:
		case pad:
			pads++
		default:
			return false
		}
	}
	count := 0
	for i := range first {
		if digits[s[i]] < pad {
			count++
		}
	}
	return count%4 >= 2 && count%4+pads <= 4
}
