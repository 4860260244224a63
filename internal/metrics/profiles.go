package metrics

import (
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
)

// Profiles is where profiles are. They say much of a process, and making one costs processor time.
const Profiles = "/debug/pprof/"

// profilesAtOnce bounds what profiles cost: each may take half a minute.
const profilesAtOnce = 2

// ProfilesHandler answers GET /debug/pprof/… for whom allowed says yes; refuse answers the others.
func ProfilesHandler(allowed func(*http.Request) bool, refuse http.HandlerFunc) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc(Profiles, pprof.Index)
	mux.HandleFunc(Profiles+"cmdline", refuse) // it may have secrets
	mux.HandleFunc(Profiles+"profile", pprof.Profile)
	mux.HandleFunc(Profiles+"symbol", pprof.Symbol)
	mux.HandleFunc(Profiles+"trace", pprof.Trace)
	slots := make(chan struct{}, profilesAtOnce)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !allowed(r) || r.Method != http.MethodGet {
			refuse(w, r)
			return
		}
		select {
		case slots <- struct{}{}:
			defer func() { <-slots }()
			mux.ServeHTTP(w, r)
		default:
			w.Header().Set("Retry-After", "30")
			http.Error(w, "two profiles are being made; ask again later", http.StatusServiceUnavailable)
		}
	})
}

// Local reports whether somebody on this machine asks, by a name of this machine and without a proxy: a web page that makes its own
// name stand for 127.0.0.1 does not.
func Local(r *http.Request) bool {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil || !peer.Addr().Unmap().IsLoopback() {
		return false
	}
	for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-Ip", "Via", "Origin"} {
		if r.Header.Get(name) != "" {
			return false
		}
	}
	host, _, err := net.SplitHostPort(r.Host)
	if err != nil {
		host = r.Host
	}
	if a, err := netip.ParseAddr(host); err == nil {
		return a.Unmap().IsLoopback()
	}
	return host == "localhost"
}
