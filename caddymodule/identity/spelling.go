package identity

import (
	"iter"
	"strings"
	"unicode"
)

// queryPairs yields the names and values of a query string, still escaped. It
// drops nothing: url.ParseQuery ignores a pair with a semicolon or a bad escape
// in it, which other backends read. A semicolon separates pairs for some of
// them, so a pair that has one is yielded in both readings.
func queryPairs(query string) iter.Seq2[string, string] {
	return func(yield func(name, value string) bool) {
		for query != "" {
			var pair string
			pair, query, _ = strings.Cut(query, "&")
			name, value, _ := strings.Cut(pair, "=")
			if !yield(name, value) {
				return
			}
			if strings.IndexByte(pair, ';') < 0 {
				continue
			}
			for pair != "" {
				var part string
				part, pair, _ = strings.Cut(pair, ";")
				name, value, _ = strings.Cut(part, "=")
				if !yield(name, value) {
					return
				}
			}
		}
	}
}

// pathPairs yields the names and values of the parameters in the segments of a path
// that is still escaped (RFC 3986 section 3.3), decoded. Tomcat splits before it
// decodes; where the path has an escaped semicolon, the reading of who decodes first is
// yielded too.
func pathPairs(path string) iter.Seq2[string, string] {
	return func(yield func(name, value string) bool) {
		if !yieldParameters(path, yield) {
			return
		}
		if decoded := unescapePercent(path); strings.Count(decoded, ";") != strings.Count(path, ";") {
			yieldParameters(decoded, yield)
		}
	}
}

func yieldParameters(path string, yield func(name, value string) bool) (more bool) {
	for segment := range strings.SplitSeq(path, "/") {
		_, parameters, _ := strings.Cut(segment, ";")
		for parameters != "" {
			var parameter string
			parameter, parameters, _ = strings.Cut(parameters, ";")
			name, value, _ := strings.Cut(parameter, "=")
			if !yield(unescapePercent(name), unescapePercent(value)) {
				return false
			}
		}
	}
	return true
}

// withoutParameters returns a path, not escaped, without the parameters of its
// segments.
func withoutParameters(path string) string {
	if strings.IndexByte(path, ';') < 0 {
		return path
	}
	var b strings.Builder
	for i, segment := range strings.Split(path, "/") {
		if i > 0 {
			b.WriteByte('/')
		}
		name, _, _ := strings.Cut(segment, ";")
		b.WriteString(name)
	}
	return b.String()
}

// cookiePairs yields the names and values in Cookie header fields, as they are
// written. It drops nothing: net/http ignores a cookie with an invalid byte in
// it, which other backends read.
func cookiePairs(fields []string) iter.Seq2[string, string] {
	return func(yield func(name, value string) bool) {
		for _, field := range fields {
			for field != "" {
				var pair string
				pair, field, _ = strings.Cut(field, ";")
				name, value, _ := strings.Cut(pair, "=")
				if !yield(trim(name), trim(value)) {
					return
				}
			}
		}
	}
}

// unescapeQuery decodes a name or value of application/x-www-form-urlencoded.
// A bad escape stands for itself (WHATWG URL 1.3).
func unescapeQuery(s string) string {
	if strings.IndexByte(s, '+') >= 0 {
		s = strings.ReplaceAll(s, "+", " ")
	}
	return unescapePercent(s)
}

// unescapeCookie decodes a cookie's value. RFC 6265 knows no encoding, but
// backends do: Python's http.cookies strips double quotes and resolves the
// backslashes between them, Node and PHP decode percent escapes.
func unescapeCookie(s string) string {
	if len(s) >= 2 && s[0] == '"' && s[len(s)-1] == '"' {
		s = unescapeBackslash(s[1 : len(s)-1])
	}
	return unescapePercent(s)
}

// unescapePercent replaces each % with two hex digits by the byte they stand
// for.
func unescapePercent(s string) string {
	first := strings.IndexByte(s, '%')
	if first < 0 {
		return s
	}
	out := append(make([]byte, 0, len(s)), s[:first]...)
	for i := first; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			high, low := hexValue(s[i+1]), hexValue(s[i+2])
			if high < 16 && low < 16 {
				out = append(out, high<<4|low)
				i += 2
				continue
			}
		}
		out = append(out, s[i])
	}
	return string(out)
}

// unescapeBackslash replaces \ooo, three octal digits, by the byte they stand
// for, and \ before any other byte by that byte.
func unescapeBackslash(s string) string {
	first := strings.IndexByte(s, '\\')
	if first < 0 {
		return s
	}
	out := append(make([]byte, 0, len(s)), s[:first]...)
	for i := first; i < len(s); i++ {
		if s[i] != '\\' || i+1 == len(s) {
			out = append(out, s[i])
			continue
		}
		i++
		if octal, ok := octalValue(s[i:]); ok {
			out = append(out, octal)
			i += 2
			continue
		}
		out = append(out, s[i])
	}
	return string(out)
}

// hexValue returns the value of a hex digit, or 16.
func hexValue(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10
	}
	return 16
}

// octalValue returns the byte that the three octal digits at the start of s
// stand for.
func octalValue(s string) (value byte, ok bool) {
	if len(s) < 3 || s[0] < '0' || s[0] > '3' || s[1] < '0' || s[1] > '7' || s[2] < '0' || s[2] > '7' {
		return 0, false
	}
	return (s[0]-'0')<<6 | (s[1]-'0')<<3 | (s[2] - '0'), true
}

// cutBearer returns value without the scheme Bearer, in any case and with any
// white space after it (RFC 6750 section 2.1, RFC 9110 section 11.4), and
// whether the scheme was there.
func cutBearer(value string) (token string, found bool) {
	const scheme = "bearer"
	value = trim(value)
	if len(value) < len(scheme) || !strings.EqualFold(value[:len(scheme)], scheme) {
		return value, false
	}
	rest := value[len(scheme):]
	token = strings.TrimLeftFunc(rest, isSpace)
	if token != "" && len(token) == len(rest) {
		return value, false // a token that begins with these letters
	}
	return token, true
}

// trim returns s without surrounding white space.
func trim(s string) string {
	if s == "" || isPrintable(s[0]) && isPrintable(s[len(s)-1]) {
		return s
	}
	return strings.TrimFunc(s, isSpace)
}

func isPrintable(c byte) bool { return '!' <= c && c <= '~' }

// isSpace reports whether some backend's trim removes r: Java's removes all up
// to the space, JavaScript's the byte order mark, Python's what Unicode calls
// space.
func isSpace(r rune) bool { return r <= ' ' || r == '\uFEFF' || unicode.IsSpace(r) }
