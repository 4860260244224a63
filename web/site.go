package web

import (
	"bytes"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"path"
	"slices"
	"strings"
	"sync/atomic"

	"sluice/internal/problem"
)

// The Content-Security-Policy of every page: its own origin and nothing else. Only the player for
// embedding may stand in other sites' frames.
const (
	policy      = "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors "
	framedBy    = "*"
	framedByNot = "'none'"
)

// How long browsers keep what they got. Assets have their content's hash in the name (Vite).
const (
	cacheForever = "public, max-age=31536000, immutable"
	cacheAsk     = "no-cache" // may be kept, must be asked for: the ETag answers
)

// site is a loaded build.
type site struct {
	cfg    Config
	start  *template.Template    // of the start page
	listed atomic.Pointer[index] // made of it last
	pages  map[string]*content   // by file name
	assets map[string]*content   // by path, such as "/assets/player-abc.js"
	errors *template.Template
}

// load reads a build into memory and fills in what the pages need to know.
func load(cfg Config, built fs.FS) (*site, error) {
	s := &site{cfg: cfg, pages: map[string]*content{}, assets: map[string]*content{}}
	var err error
	if s.start, err = template.ParseFS(built, "index.html"); err != nil {
		return nil, fmt.Errorf("read page index.html: %w", err)
	}
	if _, err := s.index(); err != nil {
		return nil, err
	}
	for _, name := range []string{"publish.html", "player.html", "play.html"} {
		t, err := template.ParseFS(built, name)
		if err != nil {
			return nil, fmt.Errorf("read page %s: %w", name, err)
		}
		var b bytes.Buffer
		if err := t.Execute(&b, cfg); err != nil {
			return nil, fmt.Errorf("fill page %s: %w", name, err)
		}
		if s.pages[name], err = newContent(name, b.Bytes()); err != nil {
			return nil, err
		}
	}
	if s.errors, err = template.ParseFS(built, "error.html"); err != nil {
		return nil, fmt.Errorf("read page error.html: %w", err)
	}
	err = fs.WalkDir(built, "assets", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := fs.ReadFile(built, name)
		if err != nil {
			return err
		}
		s.assets["/"+name], err = newContent(name, b)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read assets: %w", err)
	}
	return s, nil
}

// index is the start page with the applications of one moment.
type index struct {
	apps    []string
	content *content
}

func (s *site) index() (*content, error) {
	apps := s.cfg.Apps()
	if i := s.listed.Load(); i != nil && slices.Equal(i.apps, apps) {
		return i.content, nil
	}
	var b bytes.Buffer
	if err := s.start.Execute(&b, map[string]any{"Apps": apps, "PlayURL": s.cfg.PlayURL, "PublishURL": s.cfg.PublishURL}); err != nil {
		return nil, fmt.Errorf("fill page index.html: %w", err)
	}
	c, err := newContent("index.html", b.Bytes())
	if err == nil {
		s.listed.Store(&index{slices.Clone(apps), c})
	}
	return c, err
}

// ServeHTTP implements http.Handler.
func (s *site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		problem.New(problem.MethodNotAllowed, "pages are read with GET").Write(w)
		return
	}
	switch p := r.URL.Path; {
	case p == "/":
		s.home(w, r)
	case strings.HasPrefix(p, "/assets/"):
		s.asset(w, r, p)
	case p == "/favicon.ico":
		s.favicon(w, r)
	default:
		s.app(w, r)
	}
}

// app serves the pages of an application.
func (s *site) app(w http.ResponseWriter, r *http.Request) {
	app, page, slash := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	if apps := s.cfg.Apps(); !slices.Contains(apps, app) {
		s.fail(w, r, problem.New(problem.UnknownApp, fmt.Sprintf("no application is called %.40q here; there are: %s", app, strings.Join(apps, ", "))))
		return
	}
	if !slash {
		to := "/" + app + "/"
		if r.URL.RawQuery != "" {
			to += "?" + r.URL.RawQuery
		}
		http.Redirect(w, r, to, http.StatusMovedPermanently)
		return
	}
	switch page {
	case "":
		s.page(w, r, "publish.html")
	case "player.html", "play.html":
		s.page(w, r, page)
	default:
		s.fail(w, r, problem.New(problem.NotFound, fmt.Sprintf("application %s has no page %.40q", app, page)))
	}
}

func (s *site) home(w http.ResponseWriter, r *http.Request) {
	c, err := s.index()
	if err != nil {
		problem.New(problem.Internal, err.Error()).Write(w)
		return
	}
	pageHeaders(w, false)
	w.Header().Set("Cache-Control", cacheAsk)
	c.serve(w, r)
}

func (s *site) page(w http.ResponseWriter, r *http.Request, name string) {
	pageHeaders(w, name == "play.html")
	w.Header().Set("Cache-Control", cacheAsk)
	s.pages[name].serve(w, r)
}

func (s *site) asset(w http.ResponseWriter, r *http.Request, name string) {
	c, ok := s.assets[name]
	if !ok {
		problem.New(problem.NotFound, "no such asset: the page that asked may be older than the server, reload it").Write(w)
		return
	}
	w.Header().Set("Cache-Control", cacheForever)
	c.serve(w, r)
}

// favicon is for those who ask without having read a page.
func (s *site) favicon(w http.ResponseWriter, r *http.Request) {
	for name := range s.assets {
		if ok, _ := path.Match("/assets/favicon-*.svg", name); ok {
			http.Redirect(w, r, name, http.StatusFound)
			return
		}
	}
	problem.New(problem.NotFound, "this build has no icon").Write(w)
}

// fail answers people with a page and programs with problem+json.
func (s *site) fail(w http.ResponseWriter, r *http.Request, p *problem.Problem) {
	if !strings.Contains(r.Header.Get("Accept"), "text/html") {
		p.Write(w)
		return
	}
	var b bytes.Buffer
	data := map[string]string{"Title": p.Code.Title, "Detail": p.Detail, "Code": p.Code.Name}
	if err := s.errors.Execute(&b, data); err != nil {
		p.Write(w)
		return
	}
	pageHeaders(w, false)
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(p.Code.Status)
	_, _ = w.Write(b.Bytes()) // a client that went away is its own report
}

func pageHeaders(w http.ResponseWriter, framed bool) {
	h := w.Header()
	if framed {
		h.Set("Content-Security-Policy", policy+framedBy)
	} else {
		h.Set("Content-Security-Policy", policy+framedByNot)
		h.Set("X-Frame-Options", "DENY") // for browsers that don't know frame-ancestors
	}
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer") // addresses may carry tokens
}

// notBuilt stands in for pages that are not there.
func notBuilt(err error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		pageHeaders(w, false)
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Cache-Control", "no-store")
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprintf(w, `<!doctype html><html lang="en"><meta charset="utf-8"><title>Sluice: pages are missing</title>
<h1>This binary was built without its web pages</h1>
<p>Run <code>make build</code>, which builds them with npm and puts them into the binary, and start it again.</p>
<p>(%s)</p></html>
`, template.HTMLEscapeString(err.Error()))
	})
}
