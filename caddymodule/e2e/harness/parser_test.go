package harness

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func ms(n int) *time.Duration {
	d := time.Duration(n) * time.Millisecond
	return &d
}

// TestParser_FollowsTheStandard reads streams made after WHATWG HTML 9.2.6,
// each in one piece and byte by byte.
func TestParser_FollowsTheStandard(t *testing.T) {
	tests := []struct {
		name   string
		stream string
		want   []Event
		lastID string
		torn   bool
	}{
		{
			name:   "data of several lines",
			stream: "data: YHOO\ndata: +2\ndata: 10\n\n",
			want:   []Event{{Type: "message", Data: "YHOO\n+2\n10"}},
		},
		{
			name:   "ids stay until another comes, and can be emptied",
			stream: ": test stream\n\ndata: first event\nid: 1\n\ndata:second event\n\nid\ndata:  third event\n\n",
			want: []Event{
				{ID: "1", Type: "message", Data: "first event", Comments: []string{"test stream"}},
				{ID: "1", Type: "message", Data: "second event"},
				{Type: "message", Data: " third event"},
			},
		},
		{
			name:   "a field without a colon has an empty value; an unfinished event is dropped",
			stream: "data\n\ndata\ndata\n\ndata:",
			want:   []Event{{Type: "message"}, {Type: "message", Data: "\n"}},
			torn:   true,
		},
		{
			name:   "one space after the colon is dropped",
			stream: "data:test\n\ndata: test\n\n",
			want:   []Event{{Type: "message", Data: "test"}, {Type: "message", Data: "test"}},
		},
		{
			name:   "every line end, and a byte order mark",
			stream: "\uFEFFevent: a\rdata: 1\r\rdata: 2\r\n\r\ndata: 3\n\n",
			want:   []Event{{Type: "a", Data: "1"}, {Type: "message", Data: "2"}, {Type: "message", Data: "3"}},
		},
		{
			name:   "an event without data is none, but its id counts",
			stream: "event: nothing\nid: 7\n\ndata: x\n\n",
			want:   []Event{{ID: "7", Type: "message", Data: "x"}},
			lastID: "7",
		},
		{
			name:   "an id counts only once its block is complete, and never with a NULL in it",
			stream: "id: 1\n\nid: 2\x003\n\nid: 4\n",
			lastID: "1",
			torn:   true,
		},
		{
			name:   "retry takes digits only",
			stream: "retry: 1500\n\nretry: 2s\nretry: -1\ndata: x\n\n",
			want:   []Event{{Type: "message", Data: "x", Retry: ms(1500)}},
		},
		{
			name:   "unknown fields and comments do nothing",
			stream: "datum: x\n: y\n:z\ndata: 1\n\n: heartbeat\n",
			want:   []Event{{Type: "message", Data: "1", Comments: []string{"y", "z"}}},
		},
	}
	for _, test := range tests {
		for _, pieces := range []struct {
			name string
			size int
		}{{"whole", len(test.stream)}, {"byte by byte", 1}} {
			t.Run(test.name+", "+pieces.name, func(t *testing.T) {
				var got []Event
				p := NewParser("", func(e Event) { got = append(got, e) })
				for rest := []byte(test.stream); len(rest) > 0; rest = rest[pieces.size:] {
					_, err := p.Write(rest[:pieces.size])
					require.NoError(t, err)
				}
				require.Equal(t, test.want, got)
				require.Equal(t, test.torn, p.Torn())
				if test.lastID != "" {
					require.Equal(t, test.lastID, p.lastID)
				}
			})
		}
	}
}
