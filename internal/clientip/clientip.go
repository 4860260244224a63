// Package clientip finds the address of the client behind the proxies that
// are listed as trusted, and writes the X-Forwarded headers for the next hop.
//
// Imports: nothing of ours.
package clientip

import (
	"net/http"
	"net/netip"
	"strings"
)

// maxHops bounds how far back a forged list is followed.
const maxHops = 32

// Resolver knows which peers may speak for somebody else. It is immutable.
type Resolver struct {
	trusted []netip.Prefix
}

// New returns a resolver that believes the headers of the listed proxies, and nobody
// else's. With an empty list the client is always the TCP peer.
func New(trusted []netip.Prefix) *Resolver {
	r := &Resolver{}
	for _, p := range trusted {
		if p.Addr().Is4In6() && p.Bits() >= 96 { // ::ffff:10.0.0.0/104 means 10.0.0.0/8
			p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
		}
		if p.IsValid() {
			r.trusted = append(r.trusted, p.Masked())
		}
	}
	return r
}

// Of returns the client's address: the last hop that is not a trusted proxy, read from
// the nearest proxy back. What stands further away than that is the client's own claim.
// The zero Addr means that even the peer has none (a Unix socket).
func (r *Resolver) Of(req *http.Request) netip.Addr {
	addr, _ := ParseAddr(req.RemoteAddr)
	if !r.trusts(addr) {
		return addr
	}
	hops := hops(req.Header)
	for i := len(hops) - 1; i >= 0 && len(hops)-i <= maxHops; i-- {
		hop, ok := ParseAddr(hops[i])
		if !ok { // "unknown", "_hidden", rubbish: nobody vouches for what is before it
			return addr
		}
		addr = hop
		if !r.trusts(addr) {
			return addr
		}
	}
	return addr
}

// Trusted says whether the peer of a request is a listed proxy.
func (r *Resolver) Trusted(req *http.Request) bool {
	addr, _ := ParseAddr(req.RemoteAddr)
	return r.trusts(addr)
}

// Secure reports that the client's own connection has TLS, as far as trusted proxies say.
func (r *Resolver) Secure(req *http.Request) bool {
	peer, _ := ParseAddr(req.RemoteAddr)
	return req.TLS != nil || r.trusts(peer) && req.Header.Get("X-Forwarded-Proto") == "https"
}

// Forward writes X-Forwarded-For, -Proto and -Host of in to out, for the next hop. A
// trusted peer's headers are continued, anybody else's are replaced. Forwarded is
// dropped: its hops go on in X-Forwarded-For, so that there is one truth.
func (r *Resolver) Forward(out http.Header, in *http.Request) {
	proto, host := "http", in.Host
	if in.TLS != nil {
		proto = "https"
	}
	peer, _ := ParseAddr(in.RemoteAddr)
	var list []string
	if r.trusts(peer) {
		list = hops(in.Header)
		list = list[max(0, len(list)-maxHops):]
		if v := in.Header.Get("X-Forwarded-Proto"); v == "http" || v == "https" {
			proto = v
		}
		if v := in.Header.Get("X-Forwarded-Host"); v != "" {
			host = v
		}
	}
	if peer.IsValid() {
		list = append(list, peer.String())
	}
	out.Del("Forwarded")
	out.Del("X-Forwarded-For")
	if len(list) > 0 {
		out.Set("X-Forwarded-For", strings.Join(list, ", "))
	}
	out.Set("X-Forwarded-Proto", proto)
	out.Set("X-Forwarded-Host", host)
}

func (r *Resolver) trusts(a netip.Addr) bool {
	for _, p := range r.trusted {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// ParseAddr reads an address in every form that proxies write: 192.0.2.1,
// 192.0.2.1:4711 (Azure), 2001:db8::1, [2001:db8::1], [2001:db8::1]:4711, with
// quotes around it or not. A port and a zone are dropped, IPv4 in IPv6 becomes IPv4.
func ParseAddr(s string) (netip.Addr, bool) {
	s = strings.TrimSpace(s)
	if len(s) >= 2 && s[0] == '"' && s[len(s)-1] == '"' {
		s = s[1 : len(s)-1]
	}
	bare := s
	if len(s) >= 2 && s[0] == '[' && s[len(s)-1] == ']' {
		bare = s[1 : len(s)-1]
	}
	a, err := netip.ParseAddr(bare)
	if err != nil {
		ap, err := netip.ParseAddrPort(s)
		if err != nil {
			return netip.Addr{}, false
		}
		a = ap.Addr()
	} else if bare != s && !strings.Contains(bare, ":") { // [192.0.2.1] is no form of anything
		return netip.Addr{}, false
	}
	return a.Unmap().WithZone(""), true
}

// hops returns the hops in the order in which they were added. X-Forwarded-For
// counts before Forwarded: proxies that write the former often pass the latter
// on as the client sent it.
func hops(h http.Header) []string {
	if v := h.Values("X-Forwarded-For"); len(v) > 0 {
		var list []string
		for _, s := range strings.Split(strings.Join(v, ","), ",") {
			if s = strings.TrimSpace(s); s != "" {
				list = append(list, s)
			}
		}
		return list
	}
	return forwarded(strings.Join(h.Values("Forwarded"), ","))
}

// forwarded returns the for= parameters of a Forwarded header, without quotes. RFC 7239 §4
func forwarded(v string) []string {
	var list []string
	for _, element := range splitQuoted(v, ',') {
		if strings.TrimSpace(element) == "" {
			continue
		}
		node := "unknown" // an element without for= hides its hop. RFC 7239 §6
		for _, pair := range splitQuoted(element, ';') {
			name, value, ok := strings.Cut(pair, "=")
			if ok && strings.EqualFold(strings.TrimSpace(name), "for") {
				node = strings.Trim(strings.TrimSpace(value), `"`)
			}
		}
		if node == "" || strings.ContainsAny(node, ", ") { // would read as none or as two hops further on
			node = "unknown"
		}
		list = append(list, node)
	}
	return list
}

// splitQuoted splits at sep outside of quoted strings. RFC 9110 §5.6.4
func splitQuoted(s string, sep byte) []string {
	var parts []string
	quoted, start := false, 0
	for i := 0; i < len(s); i++ {
		switch {
		case quoted && s[i] == '\\':
			i++
		case s[i] == '"':
			quoted = !quoted
		case s[i] == sep && !quoted:
			parts = append(parts, s[start:i])
			start = i + 1
		}
	}
	return append(parts, s[start:])
}
