package harness

// Protocol is how a client speaks to its server.
type Protocol string

// HTTP2 and HTTP3 are for https:// URLs, H2C for http:// ones, HTTP1 for both.
const (
	HTTP1 Protocol = "HTTP/1.1"
	HTTP2 Protocol = "HTTP/2"
	H2C   Protocol = "HTTP/2 without TLS"
	HTTP3 Protocol = "HTTP/3"
)
