package registry

import (
	"context"
	"slices"
)

// ChooseSuspects is for registries: it returns at most MostSuspects of those who hold a
// key, the oldest first, as Admission.Suspects describes. The node is asked of some of them
// how long their clients have been silent. It is called with no lock held.
func ChooseSuspects(ctx context.Context, node Node, asked, all []StreamID) []StreamID {
	if len(all) <= MostSuspects {
		return all
	}
	var rows []Row
	for _, id := range asked {
		page, _, err := node.List(ctx, Filter{Selector: Selector{ID: id}}, "", 1)
		if err != nil {
			continue // the oldest are taken
		}
		for _, row := range page {
			if row.State == StateLive && !row.LastAck.IsZero() {
				rows = append(rows, row)
			}
		}
	}
	slices.SortStableFunc(rows, func(a, b Row) int { return a.LastAck.Compare(b.LastAck) })

	var chosen []StreamID
	for _, row := range rows[:min(len(rows), MostSuspects)] {
		chosen = append(chosen, row.Holder.ID)
	}
	for _, id := range all {
		if len(chosen) < MostSuspects && !slices.Contains(chosen, id) {
			chosen = append(chosen, id)
		}
	}
	return chosen
}
