package check

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestParser_ReadsAsABrowserDoes(t *testing.T) {
	long := strings.Repeat("x", maxEvent+1)
	for name, test := range map[string]struct {
		stream string
		want   []event
		lastID string
		retry  time.Duration // 0: none
	}{
		"one":                       {"data: a\n\n", []event{{"message", "a"}}, "", 0},
		"named, with id and retry":  {"id: 7\nretry: 20\nevent: e\ndata: a\n\n", []event{{"e", "a"}}, "7", 20 * time.Millisecond},
		"lines end in three ways":   {"data: a\r\ndata: b\rdata: c\n\r\n", []event{{"message", "a\nb\nc"}}, "", 0},
		"byte order mark":           {"\uFEFFdata: a\n\n", []event{{"message", "a"}}, "", 0},
		"comments and empty blocks": {":\n\nevent: none\n\n: x\ndata:a\n\n", []event{{"message", "a"}}, "", 0},
		"an unfinished one":         {"id: 1\ndata: a\n\nid: 2\ndata: b\n", []event{{"message", "a"}}, "1", 0},
		"an id with a null":         {"id: 1\n\nid: 2\x00\ndata: a\n\n", []event{{"message", "a"}}, "1", 0},
		"a retry that is no number": {"retry: 1s\ndata: a\n\n", []event{{"message", "a"}}, "", 0},
		"a retry of weeks":          {"retry: 4000000000\n\n", nil, "", maxRetry},
		"a line that is too long":   {"data: " + long + "\n\ndata: b\n\n", []event{{"message", ""}, {"message", "b"}}, "", 0},
		"lines that are too many":   {"data: " + long[:maxEvent/2+1] + "\ndata: " + long[:maxEvent/2] + "\n\n", []event{{"message", ""}}, "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			for _, size := range []int{1, 3, len(test.stream)} {
				var got []event
				p := &parser{onEvent: func(e event) { got = append(got, e) }}
				for rest := []byte(test.stream); len(rest) > 0; {
					n, err := p.Write(rest[:min(size, len(rest))])
					require.NoError(t, err)
					rest = rest[n:]
				}
				require.Equal(t, test.want, got)
				assert.Equal(t, test.lastID, p.lastID)
				if test.retry == 0 {
					assert.Nil(t, p.retry)
				} else if assert.NotNil(t, p.retry) {
					assert.Equal(t, test.retry, *p.retry)
				}
			}
		})
	}
}
