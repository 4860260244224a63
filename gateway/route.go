package gateway

import (
	"net/http"
	"strings"

	"sluice/cluster"
	"sluice/internal/problem"
	"sluice/media"
)

// kind is what a request wants of the gateway.
type kind int

const (
	toAny     kind = iota // page, asset, REST, panel: any node of the port
	toNode                // a session's own URL: the node in it
	newSetup              // POST that begins a WHIP or WHEP session
	newSocket             // upgrade of /{app}/websocket
	toSelf                // /gateway/healthz
	toNobody              // what is for operators, who ask the node itself
)

// route is a request, understood.
type route struct {
	kind kind
	key  media.Key // its stream, if the URL names one
	node string    // for toNode

	backup bool // for newSetup: the stream's backup publisher comes

	events bool // the answer is a session's events, and does not end
}

// signals reports that the body is an SDP or a candidate: small, and worth keeping for a second try.
func (rt route) signals() bool { return rt.kind == newSetup || rt.kind == toNode }

// parseRoute reads /{app}/{whip|whep}/{id}[/{node}.{random}], /{app}/websocket…, /{app}/streams/{file} and
// takes everything else as toAny. Its error is the answer.
func parseRoute(r *http.Request) (route, *problem.Problem) {
	path := strings.TrimPrefix(r.URL.Path, "/")
	if path == "gateway/healthz" {
		return route{kind: toSelf}, nil
	}
	if path == "metrics" || path == "load" || path == "ladder" || path == "scaling" || path == "debug" || strings.HasPrefix(path, "debug/") || strings.HasPrefix(path, ".node") {
		return route{kind: toNobody}, nil
	}
	seg := strings.SplitN(path, "/", 5)
	if len(seg) < 2 {
		return route{}, nil
	}
	switch seg[1] {
	case "websocket":
		if r.Method == http.MethodGet && isUpgrade(r.Header) {
			return route{kind: newSocket}, nil
		}
	case "whip", "whep":
		rt, refused := signalRoute(r.Method, seg)
		rt.backup = rt.kind == newSetup && wantsBackup(r)
		return rt, refused
	case "streams":
		if len(seg) >= 3 {
			key, err := media.NewKey(seg[0], streamOf(seg[2]))
			if err == nil {
				return route{key: key}, nil
			}
		}
	}
	return route{}, nil
}

// wantsBackup is a guess at what ?backup says: the node reads it.
func wantsBackup(r *http.Request) bool {
	v := r.URL.Query().Get("backup")
	return v != "" && v != "0" && v != "false"
}

func signalRoute(method string, seg []string) (route, *problem.Problem) {
	events := len(seg) == 5 && seg[4] == "events"
	layer := len(seg) == 5 && seg[4] == "layer"
	if len(seg) < 3 || len(seg) > 4 && !events && !layer || method == http.MethodOptions {
		return route{}, nil // any node knows the answer; a preflight must not fail because a node is gone
	}
	key, err := media.NewKey(seg[0], seg[2])
	if err != nil {
		return route{}, problem.New(problem.BadName, err.Error())
	}
	if len(seg) == 3 {
		if method == http.MethodPost {
			return route{kind: newSetup, key: key}, nil
		}
		return route{key: key}, nil
	}
	node, random, ok := strings.Cut(seg[3], ".")
	if !ok || random == "" || cluster.CheckNodeID(node) != nil {
		return route{}, problem.New(problem.NoSession, "The session in the URL was not made here; start a new one.")
	}
	return route{kind: toNode, key: key, node: node, events: events && method == http.MethodGet}, nil
}

// streamOf cuts a file name under /{app}/streams/ to what is likely the stream's id: stream1.m3u8,
// stream1_adaptive.m3u8, stream1_480p1000kbps.m3u8, stream1000000012.ts and so on. A wrong
// guess costs a cold edge, not an error: any node can answer.
func streamOf(file string) string {
	name, ext, _ := strings.Cut(file, ".")
	if ext == "ts" || ext == "m4s" || ext == "mp4" || ext == "fmp4" {
		if n := len(name) - 9; n > 0 && strings.Trim(name[n:], "0123456789") == "" {
			name = name[:n] // %09d. antmedia.md §3.2
		}
	}
	if i := strings.LastIndexByte(name, '_'); i > 0 {
		rest := name[i+1:]
		if rest == "adaptive" || strings.HasSuffix(rest, "kbps") || rest == "" {
			name = strings.TrimRight(name[:i], "_")
		}
	}
	return name
}

func isUpgrade(h http.Header) bool {
	for _, v := range h.Values("Upgrade") {
		if strings.EqualFold(strings.TrimSpace(v), "websocket") {
			return true
		}
	}
	return false
}

// appOf returns the application of a path.
func appOf(path string) string {
	app, _, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	return app
}
