package steer

import (
	"context"
	"net/http"
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/zone"
)

// Stats counts the streams of all zones, as GET stats does.
func (a *API) Stats(ctx context.Context) Stats {
	zones, _ := a.zones("") // fails only for a name
	return statsOfAll(ctx, zones)
}

// StatesHere counts the streams of all zones that this process has, and reports whether
// other nodes may have some, too. It asks none of them.
func (a *API) StatesHere(ctx context.Context) (here States, others bool) {
	zones, _ := a.zones("") // fails only for a name
	for _, z := range zones {
		here.add(statesOf(z.Streams.Census().States))
		all, err := places(ctx, []*zone.Zone{z})
		others = others || len(all) > 1 || err != nil
	}
	return here, others
}

// Streams lists the streams of all zones, as GET streams does page by page, until there
// are so many. There are more if the page has a Next. A node that does not answer is not
// asked again.
func (a *API) Streams(ctx context.Context, most int) Page {
	zones, _ := a.zones("") // fails only for a name
	all, err := places(ctx, zones)
	var page Page
	if err != nil {
		page.Incomplete = lines(err)
	}
	q := listed{limit: mostLimit}
	q.everything()
	for {
		now := time.Now()
		rows, next, answered, err := pageOf(ctx, all, &q)
		for i := range rows {
			page.Streams = append(page.Streams, listedAs(rows[i].zone, &rows[i].row, now))
		}
		if err != nil {
			page.Incomplete, all = join(page.Incomplete, lines(err)), answered
		}
		if page.Next = next; next == "" || len(page.Streams) >= most {
			return page
		}
		q.cursor = next
	}
}

// Refuse answers with a problem document.
func (a *API) Refuse(w http.ResponseWriter, status int, title, detail string) {
	a.answerProblem(w, &problem{Status: status, Title: title, Detail: detail})
}
