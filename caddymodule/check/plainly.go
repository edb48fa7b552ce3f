package check

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/url"
	"strings"
	"syscall"

	"github.com/sse-guard/sse-guard/caddymodule/internal/printable"
)

// plainly says why there is no answer.
func plainly(err error) string {
	var (
		noHost    *net.DNSError
		unknown   x509.UnknownAuthorityError
		otherName x509.HostnameError
		invalid   x509.CertificateInvalidError
		record    tls.RecordHeaderError
		alert     tls.AlertError
	)
	text := err.Error()
	switch {
	case errors.As(err, &noHost):
		return "there is no host " + clean(noHost.Name)
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return "the network has no way to that host"
	case errors.As(err, &unknown):
		return "TLS: the certificate is from an authority that this machine does not know"
	case errors.As(err, &otherName):
		return "TLS: " + clean(otherName.Error())
	case errors.As(err, &invalid):
		return "TLS: " + clean(invalid.Error())
	case errors.As(err, &record), strings.Contains(text, "HTTP response to HTTPS client"):
		return "TLS: the server speaks plain HTTP there"
	case errors.As(err, &alert):
		return "TLS: the server refuses: " + clean(alert.Error())
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
		return "the server closed the connection without an answer"
	case errors.Is(err, context.Canceled):
		return "the check was stopped"
	}
	// Errors of net/http repeat the URL, which may have a token in it.
	if inner := (*url.Error)(nil); errors.As(err, &inner) {
		return clean(inner.Err.Error())
	}
	return clean(text)
}

// isTLS reports whether the error is about certificates or the protocol of TLS.
func isTLS(err error) bool { return strings.HasPrefix(plainly(err), "TLS: ") }

// clean makes text of a server fit for a terminal.
func clean(text string) string {
	const longest = 200
	return printable.Text(text, longest)
}
