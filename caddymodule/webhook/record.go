package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/identity"
	"github.com/sse-guard/sse-guard/caddymodule/reason"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// Record is one thing that has happened, as a receiver reads it. README documents it.
// It has no token, no key and no client id, only the hashes that log lines have too.
type Record struct {
	Event Kind `json:"event"`
	// Reason says why a stream is over, or was refused.
	Reason reason.Reason `json:"reason,omitempty"`
	// Time is when it happened, which may be Source.Reserve before it is posted.
	Time string `json:"time"`
	Zone string `json:"zone"`
	// Stream names the stream.
	Stream string `json:"stream"`
	Key    string `json:"key"`
	Token  string `json:"token,omitempty"`
	Client string `json:"client,omitempty"`
	// Sub is the verified user's name.
	Sub string `json:"sub,omitempty"`
	// Labels are those of the stream that have a value; of one that was refused, as far as
	// they were known.
	Labels map[string]string `json:"labels,omitempty"`

	*Life // of a stream that is over

	// Holders is how many streams hold the key now, or are over and their clients may
	// yet come back; manyHolders at most. Nil: that is not known.
	Holders *int `json:"holders,omitempty"`
	// As names, where Returned, the stream with which the client is back.
	As string `json:"as,omitempty"`

	queued time.Time // when a Sender got it
}

// Life is what a stream was that is over.
type Life struct {
	Since      string  `json:"since"`
	AgeSeconds float64 `json:"age_seconds"`
	// Events and Bytes count what was relayed.
	Events uint64 `json:"events"`
	Bytes  int64  `json:"bytes"`
	// LastEventID is the last id that the application sent; it is left out where it is
	// longer than longestID.
	LastEventID string `json:"last_event_id,omitempty"`
}

// longestID bounds what an application's ids add to a body.
const longestID = 1024

// body is what is posted. A receiver that gets one twice knows it by Delivery.
type body struct {
	Delivery string            `json:"delivery"`
	Batch    []json.RawMessage `json:"batch"`
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z07:00") }

func short(id registry.ID) string { return identity.Hash(id).Short() }

const (
	// mostBody is how many bytes one body has, unless a single record has more. Many
	// receivers take no more than 100 kB.
	mostBody = 64 << 10
	// mostRecords is how many records it has.
	mostRecords = 500
)

// encode writes as many of records as go into one body, one at least, and returns how
// many that are; where there is an error, how many are lost with it.
func encode(id string, records []*Record) (text []byte, n int, err error) {
	b := body{Delivery: id}
	size := 0
	for _, r := range records {
		if r.Life != nil && len(r.LastEventID) > longestID {
			life := *r.Life
			life.LastEventID = ""
			shortened := *r
			shortened.Life = &life
			r = &shortened
		}
		one, err := json.Marshal(r)
		if err != nil {
			return nil, len(b.Batch) + 1, err
		}
		size += len(one) + 1
		if n := len(b.Batch); n == mostRecords || n > 0 && size > mostBody {
			break
		}
		b.Batch = append(b.Batch, one)
	}
	text, err = json.Marshal(b)
	return text, len(b.Batch), err
}

// Sign returns the value of SignatureHeader for a body.
func Sign(secret, body []byte) string {
	mac := hmac.New(sha256.New, secret)
	mac.Write(body)
	return "sha256=" + hex.EncodeToString(mac.Sum(nil))
}
