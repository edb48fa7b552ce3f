package identity

import (
	"crypto/sha256"
	"net"
	"net/netip"
	"strings"
)

// Key returns the hash of a key's parts. The parts are joined with their
// lengths, so that no two lists share a key: "a b" is not "a", "b". It is false
// if there is no part, or an empty one: such a key would be shared by all
// requests that lack the part.
func Key(parts ...string) (h Hash, ok bool) {
	var stack [512]byte
	buf, ok := appendKey(stack[:0], parts)
	if !ok {
		return Hash{}, false
	}
	return sha256.Sum256(buf), true
}

// appendKey appends what Key hashes.
func appendKey(dst []byte, parts []string) (out []byte, ok bool) {
	dst = append(dst, keyDomain...)
	for _, part := range parts {
		if part == "" {
			return dst, false
		}
		dst = appendPart(dst, part)
	}
	return dst, len(parts) > 0
}

// DefaultKey returns the key of a token on one endpoint: its hash, the host in
// the form of NormalizeHost, and the path as it is. It is false if and only if
// there is no token. A client can leave out its host (HTTP/1.0) and its path
// (RFC 9112 section 3.2.2), and must not evade its limit by that, so "." and
// "/" stand in for them.
func DefaultKey(token Hash, host, path string) (Hash, bool) {
	if token.IsZero() {
		return Hash{}, false
	}
	if host = NormalizeHost(host); host == "" {
		host = "."
	}
	if path == "" {
		path = "/"
	}
	return Key(string(token[:]), host, path)
}

// NormalizeHost returns the one spelling of a Host header's value: without port
// and trailing dots, in lower case, IP addresses in the form of RFC 5952
// without brackets. It takes apart what is not valid the way Caddy's host
// matcher does, so that all hosts which lead to a site there are one here.
func NormalizeHost(host string) string {
	if strings.IndexByte(host, ':') < 0 {
		host = trimBrackets(host)
	} else if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	} else {
		host = trimBrackets(host)
	}
	host = strings.ToLower(strings.TrimRight(host, "."))
	if !mayBeIP(host) {
		return host
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		return addr.Unmap().String()
	}
	return host
}

func trimBrackets(host string) string {
	return strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
}

// mayBeIP tells names from addresses without the error that parsing would
// allocate: an address has a colon, or ends with a digit.
func mayBeIP(host string) bool {
	if host == "" {
		return false
	}
	last := host[len(host)-1]
	return '0' <= last && last <= '9' || strings.IndexByte(host, ':') >= 0
}
