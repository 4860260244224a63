package node

import (
	"net/http"
	"time"

	"sluice/api"
	inrtc "sluice/ingest/webrtc"
	"sluice/internal/clientip"
	"sluice/internal/metrics"
	"sluice/internal/problem"
	"sluice/signal"
	"sluice/signal/antmedia"
	"sluice/signal/whep"
	"sluice/signal/whip"
	"sluice/web"
)

// server routes the node's HTTP.
func (n *Node) server(clients *clientip.Resolver) *http.Server {
	mux := http.NewServeMux()
	shared := signal.Config{
		Node: n.cfg.ID, Apps: n.settings.Apps, Allows: n.allows, Authorize: n.authorize, Admit: n.admit,
		ClientAddr: clients.Of, Viewers: n.viewersOf, Log: n.log,
	}
	for _, url := range n.cfg.ICE.Servers {
		s := signal.ICEServer{URL: url}
		if isTURN(url) {
			s.Username, s.Credential = n.cfg.ICE.Username, string(n.cfg.ICE.Credential)
		}
		shared.ICEServers = append(shared.ICEServers, s)
	}
	shared.Relays = n.relays
	sockets := antmedia.Config{
		Player:    antmedia.Playing{Egress: n.out},
		Directory: antmedia.Known{Hub: n.hub, Directory: n.directory},
		Apps:      n.settings.Apps, Allows: n.allows, ICEServers: shared.ICEServers, Relays: n.relays, Authorize: n.authorize, Admit: n.admit,
		ClientAddr: clients.Of, Log: n.log,
	}
	if n.ways.publish {
		in := inrtc.New(inrtc.Config{Hub: n.hub, RTC: n.rtc, Codecs: n.cfg.Codecs, Metrics: n.metrics, Log: n.log})
		n.resources = append(n.resources, whip.New(in, shared))
		sockets.Publisher = antmedia.Publishing{Ingest: in}
	} else {
		mux.HandleFunc("/{app}/whip/", n.noPublishing)
	}
	n.resources = append(n.resources, whep.New(n.out, shared))
	for _, r := range n.resources {
		r.Register(mux)
	}
	n.sockets = antmedia.New(sockets)
	n.sockets.Register(mux)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) })
	mux.HandleFunc("GET /readyz", n.ready)
	mux.Handle("GET /metrics", private(clients, n.metrics.Handler()))
	mux.Handle(metrics.Profiles, n.profiles())
	mux.Handle("GET /load", private(clients, http.HandlerFunc(n.showLoad)))
	mux.Handle("GET /ladder", private(clients, http.HandlerFunc(n.showLadder)))
	n.registerPeers(mux)
	if n.api != nil {
		for _, pattern := range api.Patterns() {
			mux.Handle(pattern, n.api)
		}
	}
	mux.Handle("/", web.Handler(web.Config{Apps: n.settings.Apps, PlayURL: n.cfg.PlayURL, PublishURL: n.cfg.PublishURL}))
	return &http.Server{
		Handler:           n.door(clients, mux),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       20 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    32 << 10,
	}
}

func isTURN(url string) bool { return len(url) > 4 && url[:4] == "turn" }

// ready: a load balancer may send work here.
func (n *Node) ready(w http.ResponseWriter, _ *http.Request) {
	if n.draining.Load() {
		problem.New(problem.Draining, "this node is about to stop").Write(w)
		return
	}
	_, _ = w.Write([]byte("ready\n"))
}

// noPublishing is for pages of any origin to read, as the answers of WHIP are (RFC 9725 §4.2).
func (n *Node) noPublishing(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Access-Control-Allow-Origin", "*")
	if r.Method == http.MethodOptions {
		h.Set("Access-Control-Allow-Methods", "OPTIONS, POST")
		h.Set("Access-Control-Allow-Headers", "Authorization, Content-Type, If-Match, ETag")
		w.WriteHeader(http.StatusNoContent)
		return
	}
	problem.New(problem.Forbidden, "this node is an edge; publish on an origin, which is behind the gateway's publish port").Write(w)
}
