package campaign

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	chunks "github.com/Shopify/toxiproxy/v2/stream"
	"github.com/Shopify/toxiproxy/v2/toxics"
	"github.com/stretchr/testify/require"
)

// deafness is a toxic that loses every third message that Redis pushes to those who
// listen, and nothing else.
type deafness struct{ heard atomic.Int64 }

const deafnessType = "deafness"

func init() { toxics.Register(deafnessType, new(deafness)) }

// deafen puts the toxic on all connections of the node.
func deafen(t testing.TB) func(*node) {
	return func(n *node) { n.toxic(t, "deaf", deafnessType, "downstream", "") }
}

// Pipe implements toxics.Toxic.
func (d *deafness) Pipe(stub *toxics.ToxicStub) {
	in := chunks.NewChanReader(stub.Input)
	in.SetInterrupt(stub.Interrupt)
	r := bufio.NewReader(in)
	for {
		var frame bytes.Buffer
		err := readFrame(r, &frame)
		lost := err == nil && isMessage(frame.Bytes()) && d.heard.Add(1)%3 == 0
		if frame.Len() > 0 && !lost {
			stub.Output <- &chunks.StreamChunk{Data: frame.Bytes(), Timestamp: time.Now()}
		}
		switch {
		case errors.Is(err, chunks.ErrInterrupted):
			return
		case err != nil:
			stub.Close()
			return
		}
	}
}

func isMessage(frame []byte) bool { return bytes.HasPrefix(frame, []byte(">3\r\n$7\r\nmessage\r\n")) }

// readFrame reads one value of RESP3 as it is spelled.
func readFrame(r *bufio.Reader, into *bytes.Buffer) error {
	line, err := r.ReadString('\n')
	into.WriteString(line)
	if err != nil {
		return err
	}
	n, parts := 0, 0
	switch line[0] {
	case '$', '=', '!':
		n, err = strconv.Atoi(strings.TrimSpace(line[1:]))
	case '*', '~', '>':
		parts, err = strconv.Atoi(strings.TrimSpace(line[1:]))
	case '%', '|':
		parts, err = strconv.Atoi(strings.TrimSpace(line[1:]))
		parts *= 2
		if line[0] == '|' {
			parts++ // what the attributes belong to
		}
	}
	if err != nil {
		return fmt.Errorf("reading RESP: %q: %w", line, err)
	}
	if line[0] == '$' || line[0] == '=' || line[0] == '!' {
		if n >= 0 {
			_, err = io.CopyN(into, r, int64(n)+2)
		}
		return err
	}
	for range parts {
		if err := readFrame(r, into); err != nil {
			return err
		}
	}
	return nil
}

func TestReadFrame_ReadsOneValue(t *testing.T) {
	values := []string{
		"+OK\r\n", "-ERR no\r\n", ":1\r\n", "$-1\r\n", "$0\r\n\r\n", "$4\r\na\r\nb\r\n", "_\r\n", "*-1\r\n", "*0\r\n",
		"*2\r\n:1\r\n*1\r\n$1\r\nx\r\n", "%1\r\n+a\r\n~1\r\n:1\r\n", "|1\r\n+a\r\n+b\r\n:7\r\n", ">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\nm\r\n",
	}
	r := bufio.NewReader(strings.NewReader(strings.Join(values, "")))
	for _, want := range values {
		var got bytes.Buffer
		require.NoError(t, readFrame(r, &got))
		require.Equal(t, want, got.String())
		require.Equal(t, want[0] == '>', isMessage(got.Bytes()))
	}
	require.ErrorIs(t, readFrame(r, new(bytes.Buffer)), io.EOF)
}
