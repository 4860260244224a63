package clientip

import (
	"crypto/tls"
	"net/http"
	"net/netip"
	"strings"
	"testing"
)

var proxies = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}

var ofCases = []struct {
	name, peer, xff, fwd, want string
}{
	{"no proxy", "192.0.2.1:1000", "", "", "192.0.2.1"},
	{"no proxy, v6", "[2001:db8::1]:1000", "", "", "2001:db8::1"},
	{"v4 in v6 socket", "[::ffff:192.0.2.1]:1000", "", "", "192.0.2.1"},
	{"zone is dropped", "[fe80::1%eth0]:1000", "", "", "fe80::1"},
	{"stranger's header is not believed", "192.0.2.1:1000", "198.51.100.7", "for=198.51.100.7", "192.0.2.1"},
	{"unix socket", "@", "198.51.100.7", "", "invalid IP"},
	{"proxy without header", "10.0.0.1:1", "", "", "10.0.0.1"},
	{"ip", "10.0.0.1:1", "198.51.100.7", "", "198.51.100.7"},
	{"ip:port of Azure", "10.0.0.1:1", "198.51.100.7:50123", "", "198.51.100.7"},
	{"bare v6", "10.0.0.1:1", "2001:db8::7", "", "2001:db8::7"},
	{"v6 in brackets", "10.0.0.1:1", "[2001:db8::7]", "", "2001:db8::7"},
	{"[v6]:port", "10.0.0.1:1", "[2001:db8::7]:443", "", "2001:db8::7"},
	{"v4 in v6", "10.0.0.1:1", "::ffff:198.51.100.7", "", "198.51.100.7"},
	{"list: client forged the first", "10.0.0.1:1", "1.2.3.4, 198.51.100.7", "", "198.51.100.7"},
	{"list: two proxies", "10.0.0.1:1", "1.2.3.4,198.51.100.7:5 , 10.0.0.2:80", "", "198.51.100.7"},
	{"list: proxies of both families", "[fd00::1]:1", "198.51.100.7, [fd00::2]:80, 10.0.0.2", "", "198.51.100.7"},
	{"list over two lines", "10.0.0.1:1", "198.51.100.7\n10.0.0.2", "", "198.51.100.7"},
	{"only proxies", "10.0.0.1:1", "10.0.0.3, 10.0.0.2", "", "10.0.0.3"},
	{"rubbish stops the walk", "10.0.0.1:1", "198.51.100.7, what, 10.0.0.2", "", "10.0.0.2"},
	{"empty elements", "10.0.0.1:1", ", 198.51.100.7,,", "", "198.51.100.7"},
	{"brackets around v4", "10.0.0.1:1", "[198.51.100.7]", "", "10.0.0.1"},
	{"forwarded", "10.0.0.1:1", "", "for=198.51.100.7", "198.51.100.7"},
	{"forwarded, v6 and port", "10.0.0.1:1", "", `For="[2001:db8::7]:4711"`, "2001:db8::7"},
	{"forwarded, list", "10.0.0.1:1", "", `for=1.2.3.4, for=198.51.100.7;proto=https;by=10.0.0.9,proto=http; for=10.0.0.2`, "198.51.100.7"},
	{"forwarded, comma in quotes", "10.0.0.1:1", "", `for=198.51.100.7;x="a,for=1.2.3.4"`, "198.51.100.7"},
	{"forwarded, hidden", "10.0.0.1:1", "", `for=198.51.100.7, for=_hidden`, "10.0.0.1"},
	{"forwarded, without for", "10.0.0.1:1", "", `for=198.51.100.7, proto=https`, "10.0.0.1"},
	{"x-forwarded-for counts first", "10.0.0.1:1", "198.51.100.7", "for=1.2.3.4", "198.51.100.7"},
	{"very long list of proxies", "10.0.0.1:1", "198.51.100.7" + strings.Repeat(", 10.0.0.2", 100), "", "10.0.0.2"},
}

func request(peer, xff, fwd string) *http.Request {
	r := &http.Request{RemoteAddr: peer, Host: "example.com", Header: http.Header{}}
	for _, v := range strings.Split(xff, "\n") {
		if v != "" {
			r.Header.Add("X-Forwarded-For", v)
		}
	}
	if fwd != "" {
		r.Header.Set("Forwarded", fwd)
	}
	return r
}

func TestOf(t *testing.T) {
	r := New(proxies)
	for _, c := range ofCases {
		t.Run(c.name, func(t *testing.T) {
			if got := r.Of(request(c.peer, c.xff, c.fwd)).String(); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

func TestMappedPrefix(t *testing.T) {
	r := New([]netip.Prefix{netip.MustParsePrefix("::ffff:10.0.0.0/104")})
	if got := r.Of(request("10.1.2.3:1", "198.51.100.7", "")).String(); got != "198.51.100.7" {
		t.Errorf("got %s", got)
	}
}

func TestForward(t *testing.T) {
	cases := []struct {
		name              string
		in                *http.Request
		set               map[string]string
		tls               bool
		xff, proto, hostH string
	}{
		{"replaced for a stranger", request("192.0.2.1:1", "1.2.3.4", "for=1.2.3.4"), map[string]string{"X-Forwarded-Proto": "gopher", "X-Forwarded-Host": "evil"}, true, "192.0.2.1", "https", "example.com"},
		{"plain", request("192.0.2.1:1", "", ""), nil, false, "192.0.2.1", "http", "example.com"},
		{"continued for a proxy", request("10.0.0.1:1", "1.2.3.4, 198.51.100.7:99", ""), map[string]string{"X-Forwarded-Proto": "http", "X-Forwarded-Host": "tv.example"}, true, "1.2.3.4, 198.51.100.7:99, 10.0.0.1", "http", "tv.example"},
		{"proxy's odd proto", request("10.0.0.1:1", "", ""), map[string]string{"X-Forwarded-Proto": "a,b"}, true, "10.0.0.1", "https", "example.com"},
		{"forwarded goes on", request("10.0.0.1:1", "", `for="[2001:db8::7]:1", for="1, 2"`), nil, true, "[2001:db8::7]:1, unknown, 10.0.0.1", "https", "example.com"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			for k, v := range c.set {
				c.in.Header.Set(k, v)
			}
			if c.tls {
				c.in.TLS = &tls.ConnectionState{}
			}
			out := c.in.Header.Clone()
			New(proxies).Forward(out, c.in)
			if got := strings.Join(out.Values("X-Forwarded-For"), "|"); got != c.xff {
				t.Errorf("for: got %q, want %q", got, c.xff)
			}
			if got := out.Get("X-Forwarded-Proto"); got != c.proto {
				t.Errorf("proto: got %q, want %q", got, c.proto)
			}
			if got := out.Get("X-Forwarded-Host"); got != c.hostH {
				t.Errorf("host: got %q, want %q", got, c.hostH)
			}
			if out.Get("Forwarded") != "" {
				t.Errorf("forwarded was passed on: %q", out.Get("Forwarded"))
			}
		})
	}
}

// What one hop writes, the next hop that trusts it reads as the same client.
func FuzzForward(f *testing.F) {
	for _, c := range ofCases {
		f.Add(c.peer, c.xff, c.fwd)
	}
	r := New(proxies)
	f.Fuzz(func(t *testing.T, peer, xff, fwd string) {
		in := request(peer, xff, fwd)
		client := r.Of(in)
		if client.Zone() != "" || client.Is4In6() {
			t.Errorf("address %v is not in its plain form", client)
		}
		out := http.Header{}
		r.Forward(out, in)
		if !client.IsValid() || len(hops(in.Header)) >= maxHops {
			return
		}
		next := &http.Request{RemoteAddr: "10.9.9.9:9", Header: out}
		if got := r.Of(next); got != client {
			t.Errorf("next hop sees %v, this one saw %v (header %q)", got, client, out)
		}
	})
}
