package web

import (
	"compress/gzip"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"
	"testing/fstest"
)

// pages are the templates that git has; the assets are stand-ins for what Vite makes.
func testBuild(t *testing.T) fstest.MapFS {
	t.Helper()
	build := fstest.MapFS{
		"assets/player-0a1b.js":   {Data: []byte(strings.Repeat("export const a = 1;\n", 100))},
		"assets/shared-0a1b.css":  {Data: []byte(strings.Repeat("a{color:red}\n", 100))},
		"assets/favicon-0a1b.svg": {Data: []byte("<svg/>")},
		"about.txt":               {Data: []byte("about")},
	}
	for _, name := range []string{"index.html", "publish.html", "player.html", "play.html", "error.html"} {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		build[name] = &fstest.MapFile{Data: b}
	}
	return build
}

func testHandler(t *testing.T) http.Handler {
	t.Helper()
	cfg := Config{Apps: func() []string { return []string{"live", "WebRTCAppEE"} }, PlayURL: ":5443", PublishURL: `https://x.example/"><b>`}
	return newHandler(cfg, testBuild(t))
}

func get(h http.Handler, target string, headers ...string) *http.Response {
	r := httptest.NewRequest(http.MethodGet, target, nil)
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func read(t *testing.T, r *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestPages(t *testing.T) {
	h := testHandler(t)
	cases := []struct {
		name, path, want string
		framed           bool
	}{
		{"start page", "/", `href="/WebRTCAppEE/player.html"`, false},
		{"publish page", "/live/", `data-testid="start"`, false},
		{"publish page with a query", "/live/?id=a&token=b", `data-testid="start"`, false},
		{"publish page of the other application", "/WebRTCAppEE/", `data-testid="start"`, false},
		{"player", "/live/player.html", `data-testid="stream-name"`, false},
		{"player to embed", "/live/play.html?id=a", `class="embed"`, true},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			res := get(h, c.path)
			if res.StatusCode != http.StatusOK {
				t.Fatalf("status %d", res.StatusCode)
			}
			if body := read(t, res); !strings.Contains(body, c.want) || strings.Contains(body, "{{") {
				t.Errorf("body lacks %s or is not filled in: %s", c.want, body)
			}
			head := res.Header
			for name, want := range map[string]string{
				"Content-Type": "text/html; charset=utf-8", "Cache-Control": "no-cache",
				"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
			} {
				if got := head.Get(name); got != want {
					t.Errorf("%s: %q, want %q", name, got, want)
				}
			}
			csp := head.Get("Content-Security-Policy")
			if !strings.HasPrefix(csp, "default-src 'self'; ") || strings.Contains(csp, "unsafe") {
				t.Errorf("policy %q", csp)
			}
			if framed := strings.HasSuffix(csp, "frame-ancestors *") && head.Get("X-Frame-Options") == ""; framed != c.framed {
				t.Errorf("may be framed: %v, want %v (%q)", framed, c.framed, csp)
			}
			again := get(h, c.path, "If-None-Match", head.Get("ETag"))
			if again.StatusCode != http.StatusNotModified {
				t.Errorf("asked again with ETag %s: status %d", head.Get("ETag"), again.StatusCode)
			}
		})
	}
}

func TestPagesKnowTheirOrigins(t *testing.T) {
	h := testHandler(t)
	body := read(t, get(h, "/live/"))
	if !strings.Contains(body, `<meta name="sluice-play-origin" content=":5443">`) {
		t.Error("the publish page does not know the play port")
	}
	body = read(t, get(h, "/"))
	if strings.Contains(body, `"><b>`) {
		t.Error("the configuration's text is not escaped")
	}
}

func TestRedirects(t *testing.T) {
	h := testHandler(t)
	cases := []struct{ name, path, want string }{
		{"application without slash", "/live", "/live/"},
		{"the query stays", "/live?id=a%20b&token=c", "/live/?id=a%20b&token=c"},
		{"icon", "/favicon.ico", "/assets/favicon-0a1b.svg"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			res := get(h, c.path)
			if got := res.Header.Get("Location"); res.StatusCode/100 != 3 || got != c.want {
				t.Errorf("status %d to %q, want %q", res.StatusCode, got, c.want)
			}
		})
	}
}

func TestErrors(t *testing.T) {
	h := testHandler(t)
	cases := []struct {
		name, method, path, accept string
		status                     int
		code                       string
	}{
		{"unknown application", "GET", "/nope/", "*/*", 404, "unknown_app"},
		{"unknown application, to a person", "GET", "/nope/", "text/html,*/*", 404, "unknown_app"},
		{"markup in the name, to a person", "GET", "/%3Cscript%3Ex/", "text/html", 404, "unknown_app"},
		{"path outside", "GET", "/live/../web.go", "*/*", 404, "not_found"},
		{"host in the path", "GET", "//evil.example/", "*/*", 404, "unknown_app"},
		{"unknown page", "GET", "/live/admin.html", "text/html", 404, "not_found"},
		{"pages only by their address", "GET", "/live/publish.html", "*/*", 404, "not_found"},
		{"files that are no pages", "GET", "/about.txt", "*/*", 404, "unknown_app"},
		{"unknown asset", "GET", "/assets/old-1.js", "text/html", 404, "not_found"},
		{"folder", "GET", "/assets/", "*/*", 404, "not_found"},
		{"method", "POST", "/live/", "*/*", 405, "method_not_allowed"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			r := httptest.NewRequest(c.method, c.path, nil)
			r.Header.Set("Accept", c.accept)
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			res := w.Result()
			if res.StatusCode != c.status {
				t.Fatalf("status %d, want %d", res.StatusCode, c.status)
			}
			body := read(t, res)
			if strings.HasPrefix(res.Header.Get("Content-Type"), "text/html") {
				if !strings.Contains(body, `data-code="`+c.code+`"`) || strings.Contains(body, "<script>x") {
					t.Errorf("page lacks code %s or carries markup: %s", c.code, body)
				}
				return
			}
			var p struct{ Code string }
			if err := json.Unmarshal([]byte(body), &p); err != nil || p.Code != c.code {
				t.Errorf("code %q (%v), want %q", p.Code, err, c.code)
			}
		})
	}
}

func TestAssets(t *testing.T) {
	h := testHandler(t)
	cases := []struct{ name, path, mime, accept, encoding string }{
		{"script", "/assets/player-0a1b.js", "text/javascript; charset=utf-8", "", ""},
		{"script, compressed", "/assets/player-0a1b.js", "text/javascript; charset=utf-8", "br, gzip;q=0.5", "gzip"},
		{"style", "/assets/shared-0a1b.css", "text/css; charset=utf-8", "gzip", "gzip"},
		{"gzip refused", "/assets/shared-0a1b.css", "text/css; charset=utf-8", "gzip;q=0.0, br", ""},
		{"small: not worth compressing", "/assets/favicon-0a1b.svg", "image/svg+xml", "gzip", ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			res := get(h, c.path, "Accept-Encoding", c.accept)
			head := res.Header
			if res.StatusCode != 200 || head.Get("Content-Type") != c.mime || head.Get("Content-Encoding") != c.encoding {
				t.Fatalf("status %d, headers %v", res.StatusCode, head)
			}
			if head.Get("Cache-Control") != "public, max-age=31536000, immutable" || head.Get("Vary") != "Accept-Encoding" {
				t.Errorf("caching: %v", head)
			}
			var body io.Reader = res.Body
			if c.encoding == "gzip" {
				z, err := gzip.NewReader(body)
				if err != nil {
					t.Fatal(err)
				}
				body = z
			}
			got, err := io.ReadAll(body)
			want := testBuild(t)[strings.TrimPrefix(c.path, "/")].Data
			if err != nil || string(got) != string(want) {
				t.Errorf("%d bytes (%v), want %d", len(got), err, len(want))
			}
		})
	}
	if a, b := get(h, cases[0].path), get(h, cases[0].path, "Accept-Encoding", "gzip"); a.Header.Get("ETag") == b.Header.Get("ETag") {
		t.Error("both forms have the same ETag")
	}
}

func TestMissingBuild(t *testing.T) {
	partial := testBuild(t)
	delete(partial, "player.html")
	noAssets := testBuild(t)
	for name := range noAssets {
		if strings.HasPrefix(name, "assets/") {
			delete(noAssets, name)
		}
	}
	cases := map[string]fstest.MapFS{
		"fresh clone": {"about.txt": {Data: []byte("about")}}, "a page is missing": partial, "no assets": noAssets,
	}
	for name, build := range cases {
		t.Run(name, func(t *testing.T) {
			res := get(newHandler(Config{Apps: func() []string { return []string{"live"} }}, build), "/live/")
			if body := read(t, res); res.StatusCode != 503 || !strings.Contains(body, "make build") {
				t.Errorf("status %d: %s", res.StatusCode, body)
			}
		})
	}
}

// TestSources holds the rules that the security policy would otherwise enforce at the user's.
func TestSources(t *testing.T) {
	for name, file := range testBuild(t) {
		if !strings.HasSuffix(name, ".html") {
			continue
		}
		page := string(file.Data)
		for why, bad := range map[string]string{
			"a script without src": `<script(?:\s+type="module")?>`, "a style attribute": `\sstyle=`, "a style element": `<style`,
			"an event attribute": `\son[a-z]+=`, "another host": `(?:src|href)="(?:https?:)?//`,
		} {
			if found := regexp.MustCompile(bad).FindString(page); found != "" {
				t.Errorf("%s has %s: %s", name, why, found)
			}
		}
	}
}

// TestEmbedded looks at what was really compiled in: a complete build or, in a fresh clone, the page that says so.
func TestEmbedded(t *testing.T) {
	h := Handler(Config{Apps: func() []string { return []string{"live"} }})
	res := get(h, "/live/player.html")
	body := read(t, res)
	if res.StatusCode == http.StatusServiceUnavailable {
		if !strings.Contains(body, "make build") {
			t.Errorf("no hint: %s", body)
		}
		return
	}
	for _, m := range regexp.MustCompile(`(?:src|href)="(/assets/[^"]+)"`).FindAllStringSubmatch(body, -1) {
		if res := get(h, m[1]); res.StatusCode != http.StatusOK {
			t.Errorf("the player needs %s: status %d", m[1], res.StatusCode)
		}
	}
}

// TestPlaceholder keeps git's copy of dist/about.txt and the one that the build puts back the same.
func TestPlaceholder(t *testing.T) {
	kept, err := os.ReadFile("dist/about.txt")
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile("public/about.txt")
	if err != nil {
		t.Fatal(err)
	}
	if string(kept) != string(source) {
		t.Error("dist/about.txt and public/about.txt differ: the build would change a committed file")
	}
}
