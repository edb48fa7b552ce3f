package steer

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"go.uber.org/zap"
)

// problem is an RFC 9457 problem document, as an error. Its type is about:blank.
type problem struct {
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail,omitempty"`
	// Ended and Notified are how many were, although others could not be.
	Ended    *int `json:"ended,omitempty"`
	Notified *int `json:"notified,omitempty"`
	// Zones are those of Health.
	Zones []ZoneHealth `json:"zones,omitempty"`
}

func (p *problem) Error() string { return p.Title + ": " + p.Detail }

// badInput is the answer to what was given wrongly: where, and what is allowed. What was
// given may be a credential, so it is repeated only where it cannot be one.
func badInput(format string, args ...any) *problem {
	return &problem{Status: http.StatusBadRequest, Title: "The request is not understood", Detail: fmt.Sprintf(format, args...)}
}

// unreached is the answer where nodes could not be asked.
func unreached(err error) *problem {
	return &problem{Status: http.StatusBadGateway, Title: "Not all nodes have answered", Detail: lines(err)}
}

// lines is an error of several lines in one.
func lines(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

func (a *API) answerProblem(w http.ResponseWriter, err error) {
	p, ok := errors.AsType[*problem](err)
	if !ok {
		a.Logger.Error("answering an administrator", zap.Error(err))
		p = &problem{Status: http.StatusInternalServerError, Title: "The request could not be answered", Detail: lines(err)}
	}
	body, err := json.Marshal(p)
	if err != nil {
		body = []byte(`{"title":"The problem could not be written","status":500}`)
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(p.Status)
	_, _ = w.Write(append(body, '\n'))
}
