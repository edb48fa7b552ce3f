package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// connection is a client's HTTP/1.1 connection. It does little, so that the
// load costs less than what it measures.
type connection struct {
	net.Conn
	r *bufio.Reader
}

// patience bounds every wait for an answer.
const patience = 30 * time.Second

func dial(ctx context.Context, address string) (*connection, error) {
	d := net.Dialer{Timeout: patience}
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return &connection{Conn: conn, r: bufio.NewReaderSize(conn, 512)}, nil
}

// request is the bytes of a GET request.
func request(path, accept, token string) []byte {
	return fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: ssebench.test\r\nAccept: %s\r\nAuthorization: Bearer %s\r\n\r\n", path, accept, token)
}

// head reads a response's header and checks its status.
func (c *connection) head() (*http.Response, error) {
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		_ = resp.Body.Close()
		return nil, fmt.Errorf("expected status 200, got %s", resp.Status)
	}
	return resp, nil
}

// exchange sends a request and reads its whole response.
func (c *connection) exchange(req []byte) error {
	if _, err := c.Write(req); err != nil {
		return err
	}
	resp, err := c.head()
	if err != nil {
		return err
	}
	n, err := io.Copy(io.Discard, resp.Body)
	if err == nil && n != int64(len(apiBody)) {
		err = fmt.Errorf("expected a body of %d bytes, got %d", len(apiBody), n)
	}
	return errors.Join(err, resp.Body.Close())
}
