package check

import (
	"context"
	"crypto/rand"
	"io"
	"net/http"
	"net/url"
)

// presence is what one more request found out about streams that all stay open.
//
// It carries two tokens that differ, which a guard refuses before the backend sees
// them, wherever it looks for tokens in the usual places. So it tells a guard that
// counts otherwise than was meant from one that is not there.
type presence struct {
	asked bool
	guard bool // a guard has answered
}

// askPresence sends the request. Its own token is made up, and nobody's.
func (w *watch) askPresence(ctx context.Context) (p presence) {
	if w.config.Method != http.MethodGet {
		return p
	}
	ctx, cancel := context.WithTimeout(ctx, w.config.AnswerTimeout)
	defer cancel()
	twoTokens := w.config
	var err error
	if twoTokens.URL, err = withQuery(w.config.URL, "access_token", rand.Text()); err != nil {
		return p
	}
	r, err := twoTokens.request(ctx, "")
	if err != nil {
		return p
	}
	if r.Header.Get("Authorization") == "" {
		r.Header.Set("Authorization", "Bearer "+rand.Text())
	}
	client := w.config.client()
	defer client.CloseIdleConnections()
	response, err := client.Do(r)
	if err != nil {
		return presence{asked: true}
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusBadRequest {
		return presence{asked: true}
	}
	body, _ := io.ReadAll(io.LimitReader(response.Body, maxBody)) // what has come is what there is
	return presence{asked: true, guard: toldBy(body) != nil}
}

// withQuery adds a parameter, unless the URL has it.
func withQuery(address, name, value string) (string, error) {
	u, err := url.Parse(address)
	if err != nil {
		return "", err
	}
	if !u.Query().Has(name) {
		if u.RawQuery != "" {
			u.RawQuery += "&"
		}
		u.RawQuery += url.Values{name: {value}}.Encode()
	}
	return u.String(), nil
}
