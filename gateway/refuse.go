package gateway

import (
	"fmt"
	"html"
	"net/http"
	"strings"

	"sluice/internal/problem"
)

// retryAfter is in seconds: by then a node that was started is up.
const retryAfter = "2"

// noNode answers when no node of the door's role takes requests.
func (h *handler) noNode(w http.ResponseWriter, r *http.Request) {
	h.door.refused.Add(1)
	h.g.meters.noNode.Add(h.door.name)
	w.Header().Set("Retry-After", retryAfter)
	h.refuse(w, r, problem.New(problem.NoNode, "No server of this port is ready; try again in a few seconds."))
}

// refuse answers with a problem, or with a page when a person looks.
func (h *handler) refuse(w http.ResponseWriter, r *http.Request, p *problem.Problem) {
	header := w.Header()
	header.Set("Access-Control-Allow-Origin", "*") // a WHIP client on another site must see the code
	header.Set("Access-Control-Expose-Headers", "Retry-After")
	if r.Method != http.MethodGet || !strings.Contains(r.Header.Get("Accept"), "text/html") {
		p.Write(w)
		return
	}
	header.Set("Content-Type", "text/html; charset=utf-8")
	header.Set("Cache-Control", "no-store")
	header.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
	refresh := ""
	if after := header.Get("Retry-After"); after != "" {
		refresh = `<meta http-equiv="refresh" content="` + after + `">`
	}
	w.WriteHeader(p.Code.Status)
	_, _ = fmt.Fprintf(w, page, refresh, p.Code.Title, p.Code.Title, html.EscapeString(p.Detail), p.Code.Status, p.Code.Name)
}

// page takes the refresh tag, title, heading, detail, status and code; only the detail may hold
// words of the client.
const page = `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">%s
<title>%s</title>
<style>
:root{color-scheme:light dark}
body{margin:0;min-height:100vh;display:grid;place-items:center;font:1rem/1.5 system-ui,sans-serif;background:Canvas;color:CanvasText}
main{max-width:26rem;padding:2rem}
h1{font-size:1.4rem;margin:0 0 .5rem}
p{margin:.25rem 0;opacity:.8}
code{font-size:.85rem;opacity:.8}
</style></head>
<body><main><h1>%s</h1><p>%s</p><p><code>%d %s</code></p></main></body></html>
`
