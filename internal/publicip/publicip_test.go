package publicip

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"github.com/pion/stun/v4"
)

// The clouds' services as far as they matter here. Each wants its own header.
func azure(instance, balancer string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		text := map[string]string{"/metadata/instance/network/interface/0/ipv4/ipAddress/0": instance, "/metadata/loadbalancer": balancer}[r.URL.Path]
		if text == "" {
			w.WriteHeader(http.StatusNotFound)
		} else if r.Header.Get("Metadata") != "true" || r.URL.Query().Get("api-version") == "" {
			w.WriteHeader(http.StatusBadRequest)
		} else {
			_, _ = io.WriteString(w, text)
		}
	}
}

func aws(public string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == http.MethodPut && r.URL.Path == "/latest/api/token" && r.Header.Get("X-Aws-Ec2-Metadata-Token-Ttl-Seconds") != "":
			_, _ = io.WriteString(w, "a-token")
		case strings.HasPrefix(r.URL.Path, "/latest/meta-data/") && r.Header.Get("X-Aws-Ec2-Metadata-Token") != "a-token":
			w.WriteHeader(http.StatusUnauthorized)
		case r.URL.Path == "/latest/meta-data/local-ipv4":
			_, _ = io.WriteString(w, "10.0.0.7")
		case r.URL.Path == "/latest/meta-data/public-ipv4" && public != "":
			_, _ = io.WriteString(w, public)
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}
}

func google(w http.ResponseWriter, r *http.Request) {
	text := map[string]string{
		"/computeMetadata/v1/instance/network-interfaces/0/ip":                           "10.0.0.8",
		"/computeMetadata/v1/instance/network-interfaces/0/access-configs/0/external-ip": "34.1.2.3\n",
	}[r.URL.Path]
	if text == "" || r.Header.Get("Metadata-Flavor") != "Google" {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	_, _ = io.WriteString(w, text)
}

func TestFind(t *testing.T) {
	busy := 0
	for _, tc := range []struct {
		name       string
		service    http.HandlerFunc
		interfaces string
		want       Found
		err        string
	}{
		{"Azure, Basic", azure(`{"privateIpAddress":"10.0.1.4","publicIpAddress":"20.1.2.3"}`, ""), "10.0.1.4/24",
			Found{Public: netip.MustParseAddr("20.1.2.3"), Private: netip.MustParseAddr("10.0.1.4"), By: "Azure"}, ""},
		{"Azure, Standard", azure(`{"privateIpAddress":"10.0.1.4","publicIpAddress":""}`,
			`{"loadbalancer":{"publicIpAddresses":[{"frontendIpAddress":"20.9.9.9","privateIpAddress":"10.0.1.5"},{"frontendIpAddress":"20.1.2.4","privateIpAddress":"10.0.1.4"}],"inboundRules":[]}}`), "10.0.1.4/24",
			Found{Public: netip.MustParseAddr("20.1.2.4"), Private: netip.MustParseAddr("10.0.1.4"), By: "Azure"}, ""},
		{"Azure, none", azure(`{"privateIpAddress":"10.0.1.4","publicIpAddress":""}`, ""), "10.0.1.4/24", Found{}, "Azure knows this machine, but no public address of it"},
		{"AWS", aws("3.1.2.3"), "10.0.0.7/24", Found{Public: netip.MustParseAddr("3.1.2.3"), Private: netip.MustParseAddr("10.0.0.7"), By: "AWS"}, ""},
		{"AWS, none", aws(""), "10.0.0.7/24", Found{}, "AWS knows this machine, but no public address of it"},
		{"Google Cloud", google, "10.0.0.8/24", Found{Public: netip.MustParseAddr("34.1.2.3"), Private: netip.MustParseAddr("10.0.0.8"), By: "Google Cloud"}, ""},
		{"busy at first", func(w http.ResponseWriter, r *http.Request) {
			if strings.HasPrefix(r.URL.Path, "/computeMetadata/") && busy == 0 {
				busy++
				w.WriteHeader(http.StatusTooManyRequests)
				return
			}
			google(w, r)
		}, "10.0.0.8/24", Found{Public: netip.MustParseAddr("34.1.2.3"), Private: netip.MustParseAddr("10.0.0.8"), By: "Google Cloud"}, ""},
		{"an own address", http.NotFound, "127.0.0.1/8 10.0.0.1/8 2a00::1/64 5.6.7.8/24",
			Found{Public: netip.MustParseAddr("5.6.7.8"), Private: netip.MustParseAddr("5.6.7.8"), By: "a network interface"}, ""},
		{"nothing", http.NotFound, "127.0.0.1/8 10.0.0.1/8 192.0.2.2/24 100.64.1.1/10 fd00::1/64", Found{}, "this is no machine of Azure, AWS or Google Cloud; none of its interfaces has a public address: give the address itself, or stun:HOST:PORT"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			server := httptest.NewServer(tc.service)
			defer server.Close()
			got, err := Finder{Service: server.URL, Interfaces: func() (list []net.Addr, err error) {
				for s := range strings.FieldsSeq(tc.interfaces) {
					ip, n, err := net.ParseCIDR(s)
					if err != nil {
						return nil, err
					}
					list = append(list, &net.IPNet{IP: ip, Mask: n.Mask})
				}
				return list, nil
			}}.Find(t.Context(), Auto)
			if tc.err == "" && (err != nil || got != tc.want) {
				t.Errorf("got %+v, %v; want %+v", got, err, tc.want)
			}
			if tc.err != "" && (!errors.Is(err, ErrNone) || !strings.Contains(err.Error(), tc.err)) {
				t.Errorf("got %+v, %v; want an error with %q", got, err, tc.err)
			}
		})
	}
}

// TestSTUN: the server loses the first question, and answers the second after a stranger's packet.
func TestSTUN(t *testing.T) {
	server, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- serveSTUN(server) }()
	got, err := Finder{}.Find(t.Context(), "stun:"+server.LocalAddr().String())
	if err != nil || got.Public.String() != "20.30.40.50" || got.Private.String() != "127.0.0.1" {
		t.Errorf("got %+v, %v", got, err)
	}
	_ = server.Close()
	if err := <-served; err != nil {
		t.Error(err)
	}
}

func serveSTUN(conn *net.UDPConn) error {
	buf := make([]byte, 1500)
	for seen := 0; ; seen++ {
		n, from, err := conn.ReadFromUDP(buf)
		if err != nil {
			return nil // closed
		}
		m := &stun.Message{Raw: append([]byte{}, buf[:n]...)}
		if err := m.Decode(); err != nil {
			return err
		}
		if seen == 0 {
			continue
		}
		answer, err := stun.Build(m, stun.BindingSuccess, &stun.XORMappedAddress{IP: net.IPv4(20, 30, 40, 50), Port: 1})
		if err != nil {
			return err
		}
		if _, err := conn.WriteToUDP([]byte("hello"), from); err != nil {
			return err
		}
		if _, err := conn.WriteToUDP(answer.Raw, from); err != nil {
			return err
		}
	}
}

func TestDynamic(t *testing.T) {
	for s, want := range map[string]bool{"auto": true, "stun:s.example.org:3478": true, "10.0.0.1": false, "2a00::1": false, "": false} {
		if got := Dynamic(s); got != want {
			t.Errorf("%q: %v", s, got)
		}
	}
}
