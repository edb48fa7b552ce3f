package harness

// AppStats is what GET /stats answers: the streams since the last reset, and
// those that were open at that time.
type AppStats struct {
	Open    []AppOpenStream   `json:"open"`
	Opened  int               `json:"opened"`
	Closed  int               `json:"closed"`
	Streams []AppStreamRecord `json:"streams"`
}

// AppOpenStream is a stream that the application is sending now. Age is in seconds.
type AppOpenStream struct {
	Stream int     `json:"stream"`
	Path   string  `json:"path"`
	User   string  `json:"user"`
	Age    float64 `json:"age"`
}

// AppStreamRecord is one stream's life, in seconds since the epoch; ClosedAt is
// nil while it is open. EndedBy is "app" or "client".
type AppStreamRecord struct {
	Stream   int      `json:"stream"`
	Path     string   `json:"path"`
	User     string   `json:"user"`
	OpenedAt float64  `json:"opened_at"`
	ClosedAt *float64 `json:"closed_at"`
	EndedBy  string   `json:"ended_by"`
}
