package harness

// AppRequest is a request as it reached the application. Status is nil until
// it answered; Done says that the exchange is over.
type AppRequest struct {
	Method  string      `json:"method"`
	Path    string      `json:"path"`
	Query   string      `json:"query"`
	Headers [][2]string `json:"headers"` // names in lower case
	Status  *int        `json:"status"`
	Done    bool        `json:"done"`
}

// Header returns the values of a header in the order they came; name is in lower case.
func (r AppRequest) Header(name string) []string {
	var values []string
	for _, h := range r.Headers {
		if h[0] == name {
			values = append(values, h[1])
		}
	}
	return values
}
