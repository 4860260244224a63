package api

import (
	"embed"
	"net/http"
)

// files are the page that shows the OpenAPI document.
//
//go:embed page
var files embed.FS

// pagePolicy: its own files and the document, nothing else.
const pagePolicy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// page serves it. Everybody may read it, as the document: it says what is in docs/control.md.
func (a *API) page() {
	for path, file := range map[string]struct{ name, mime string }{
		"/openapi":     {"page/openapi.html", "text/html; charset=utf-8"},
		"/openapi.js":  {"page/openapi.js", "text/javascript; charset=utf-8"},
		"/openapi.css": {"page/openapi.css", "text/css; charset=utf-8"},
	} {
		a.mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) {
			b, err := files.ReadFile(file.name)
			if err != nil {
				a.fail(r.Context(), w, err)
				return
			}
			h := w.Header()
			h.Set("Content-Type", file.mime)
			h.Set("Content-Security-Policy", pagePolicy)
			h.Set("Cache-Control", "no-cache")
			_, _ = w.Write(b) // a client that went away is its own report
		})
	}
}
