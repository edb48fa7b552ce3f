package guard

import "go.uber.org/zap"

// passUncounted says once that this guard lets streams through that it does not
// count, since their requests' method is not one of those that do.
func (g *Guard) passUncounted(method string) {
	g.tellUncounted.Do(func() {
		tell, why := g.Logger.Info, "a stream passes untracked: requests of its method do not count"
		if len(g.Key) > 0 && len(g.Methods) == 0 {
			tell, why = g.Logger.Warn, why+", although there is a key; to count them all, write: methods any"
		}
		tell(why, g.zoneField(), zap.String("cause", "method"), zap.String("method", method))
	})
}
