package demo

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"net/http"
	"path"
	"time"
)

//go:embed page
var files embed.FS

// policy lets the page load its own files and talk to its own origin, and
// nothing else.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; " +
	"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// mediaTypes names the types of the embedded files. The system's own table is
// not asked: some systems have "text/plain" for a script.
var mediaTypes = map[string]string{
	".css":  "text/css; charset=utf-8",
	".html": "text/html; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".svg":  "image/svg+xml",
}

// asset is an embedded file.
type asset struct {
	name string
	body []byte
	etag string
}

// ServeHTTP serves the file. A browser asks for it again each time, so that a
// page never meets a script of another version.
func (a asset) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", mediaTypes[path.Ext(a.name)])
	w.Header().Set("Cache-Control", "no-cache")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("ETag", a.etag)
	http.ServeContent(w, r, a.name, time.Time{}, bytes.NewReader(a.body))
}

// assets returns what the page loads, by name.
func assets() map[string]asset {
	entries, err := files.ReadDir("page")
	if err != nil {
		panic(err) // the files are part of this program
	}
	found := make(map[string]asset)
	for _, entry := range entries {
		if entry.Name() != "index.html" {
			found[entry.Name()] = newAsset(entry.Name())
		}
	}
	return found
}

func newAsset(name string) asset {
	body, err := files.ReadFile(path.Join("page", name))
	if err != nil {
		panic(err) // the files are part of this program
	}
	sum := sha256.Sum256(body)
	return asset{name: name, body: body, etag: `"` + hex.EncodeToString(sum[:8]) + `"`}
}

// servePage serves the page itself. It is not stored: an answer from a cache
// would come without its cookie.
func servePage(w http.ResponseWriter, r *http.Request) {
	page := newAsset("index.html")
	w.Header().Set("Content-Type", mediaTypes[path.Ext(page.name)])
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Security-Policy", policy)
	w.Header().Set("Referrer-Policy", "no-referrer")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	http.ServeContent(w, r, page.name, time.Time{}, bytes.NewReader(page.body))
}
