package harness

import (
	"fmt"
	"strings"
)

// VerifyingSite returns the directives of a site: a VerifyingGuard, and behind it
// the application.
func VerifyingSite(app *FastAPI, jwt string, options ...string) string {
	return VerifyingGuard("", jwt, options...) + "\nreverse_proxy " + app.URL
}

// VerifyingGuard returns a guard's directive with jwt as the lines of its jwt block,
// and these options besides. The matcher may be empty.
func VerifyingGuard(matcher, jwt string, options ...string) string {
	return fmt.Sprintf("sse_guard %s {\njwt {\n%s\n}\n%s\n}", matcher, jwt, strings.Join(options, "\n"))
}

// ByUser is the guard's option that counts streams by user.
const ByUser = "key {sse_guard.claims.sub}"
