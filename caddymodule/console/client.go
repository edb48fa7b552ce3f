// Package console is the command line's side of the admin API: a client, the filters
// that name streams, and what is printed of the answers. It knows nothing of Caddy but
// how its admin endpoint answers.
package console

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"

	"github.com/sse-guard/sse-guard/caddymodule/internal/printable"
)

// Client asks the admin API of one Caddy. Its errors say in plain words what to do.
type Client struct {
	// HTTP reaches the admin endpoint, whatever its network is.
	HTTP *http.Client
	// Base begins the URLs of the admin endpoint, without a final slash.
	Base string
	// Origin is that of the requests; empty: they have none.
	Origin string
	// Address is the admin endpoint as the user knows it.
	Address string
}

const (
	prefix = "/sse_guard/"
	// maxAnswer is how much is read of an answer; 1,000 streams are less than 1 MiB.
	maxAnswer = 64 << 20
	// longestWords is how many characters are shown of what others say.
	longestWords = 500
)

// get asks for what is at the path, and reads the JSON of the answer into to.
func (c *Client) get(ctx context.Context, path string, query url.Values, to any) error {
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	return c.do(ctx, http.MethodGet, path, nil, to)
}

// post sends JSON, and reads that of the answer into to.
func (c *Client) post(ctx context.Context, path string, body, to any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	return c.do(ctx, http.MethodPost, path, text, to)
}

func (c *Client) do(ctx context.Context, method, path string, body []byte, to any) error {
	r, err := http.NewRequestWithContext(ctx, method, c.Base+prefix+path, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("the admin address %s cannot be used: %w", c.Address, err)
	}
	r.Header.Set("Accept", "application/json")
	if c.Origin != "" {
		r.Header.Set("Origin", c.Origin)
	}
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	response, err := c.HTTP.Do(r)
	if err != nil {
		return c.unreachable(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return c.unreachable(err)
	}
	if response.StatusCode != http.StatusOK {
		return c.refused(response, text)
	}
	if err := json.Unmarshal(text, to); err != nil {
		return fmt.Errorf("what answers at %s is not Caddy's admin endpoint, or has another version of this module: %w", c.Address, err)
	}
	return nil
}

// unreachable says why there is no answer.
func (c *Client) unreachable(err error) error {
	var noHost *net.DNSError
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("nobody listens at %s: does Caddy run, and is its admin endpoint on (admin off turns it off) and there? "+
			"--address, --config or the environment variable CADDY_ADMIN names another", c.Address)
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("this user may not open the admin endpoint %s", c.Address)
	case errors.As(err, &noHost):
		return fmt.Errorf("the admin endpoint's host is not known: %s", printable.Text(noHost.Name, longestWords))
	}
	if inner := (*url.Error)(nil); errors.As(err, &inner) {
		err = inner.Err
	}
	return fmt.Errorf("the admin endpoint at %s does not answer: %s", c.Address, printable.Text(err.Error(), longestWords))
}

// InputError is what the admin API says of input that it does not accept.
type InputError struct{ error }

// refused says what an answer is that is not 200.
func (c *Client) refused(response *http.Response, body []byte) error {
	mediaType, _, _ := mime.ParseMediaType(response.Header.Get("Content-Type")) // empty where it cannot be read
	var said struct {
		Title, Detail string // of this module
		Error         string // of Caddy
		Ended         *int
		Notified      *int
	}
	isJSON := json.Unmarshal(body, &said) == nil
	switch {
	case isJSON && mediaType == "application/problem+json":
		text := strings.TrimSuffix(said.Title+": "+said.Detail, ": ")
		switch {
		case said.Ended != nil:
			text += fmt.Sprintf(" (ended: %s)", streams(*said.Ended))
		case said.Notified != nil:
			text += fmt.Sprintf(" (notified: %s)", streams(*said.Notified))
		}
		err := errors.New(printable.Text(text, longestWords))
		if response.StatusCode == http.StatusBadRequest {
			return InputError{err}
		}
		return err
	case response.StatusCode == http.StatusNotFound:
		return fmt.Errorf("the Caddy at %s has no admin API of sse_guard: was it built with this module, and is that its admin endpoint?", c.Address)
	case isJSON && said.Error != "":
		return fmt.Errorf("the admin endpoint at %s refuses, with status %d: %s", c.Address, response.StatusCode, printable.Text(said.Error, longestWords))
	default:
		return fmt.Errorf("what answers at %s, with status %d, is not Caddy's admin endpoint", c.Address, response.StatusCode)
	}
}

// streams says how many.
func streams(n int) string {
	if n == 1 {
		return "1 stream"
	}
	return fmt.Sprintf("%d streams", n)
}
