// Package web serves the pages people open in a browser: the start page, the publish page, the
// player and the player for other sites to embed. They are built from the TypeScript in this
// folder and compiled into the binary; they talk to nothing but their own origin.
//
// Imports: internal/problem.
package web

import (
	"embed"
	"io/fs"
	"net/http"
)

// dist is what npm builds. In a fresh clone it holds one small file, so that the package compiles.
//
//go:embed all:dist
var dist embed.FS

// Config says for whom the pages are.
type Config struct {
	// Apps are the applications that have pages, at this moment.
	Apps func() []string
	// PlayURL is the origin of the links to the player, PublishURL that of the links to the publish
	// page: "https://live.example.com:5443", or ":5443" for that port of the host a page was opened
	// by. Empty: the page's own origin.
	PlayURL, PublishURL string
}

// Handler serves for each application "/{app}/", "/{app}/player.html" and "/{app}/play.html", and
// "/", "/assets/…" and "/favicon.ico". Everything else is not found; a mux gives it what nobody else takes.
func Handler(cfg Config) http.Handler {
	built, err := fs.Sub(dist, "dist")
	if err != nil {
		return notBuilt(err)
	}
	return newHandler(cfg, built)
}

// newHandler serves the pages of a build; without a complete one it says what to do.
func newHandler(cfg Config, built fs.FS) http.Handler {
	s, err := load(cfg, built)
	if err != nil {
		return notBuilt(err)
	}
	return s
}
