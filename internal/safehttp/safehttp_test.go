package safehttp

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"
)

func TestMay(t *testing.T) {
	allowed := []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")}
	for address, want := range map[string]bool{
		"8.8.8.8": true, "2606:4700::1111": true, "10.1.2.3": true, "::ffff:10.1.2.3": true, "::ffff:8.8.8.8": true,
		"10.2.0.1": false, "127.0.0.1": false, "::1": false, "::ffff:127.0.0.1": false, "169.254.169.254": false, "192.168.1.1": false, "172.16.0.1": false,
		"0.0.0.0": false, "::": false, "100.64.0.1": false, "224.0.0.1": false, "255.255.255.255": false, "fe80::1": false, "fe80::1%eth0": false,
		"fd00::1": false, "64:ff9b::7f00:1": false, "2002:7f00:1::": false, "ff02::1": false, "::7f00:1": false, "168.63.129.16": false, "fec0::1": false,
	} {
		if got := May(netip.MustParseAddr(address), allowed); got != want {
			t.Errorf("%s: %v", address, got)
		}
	}
}

// TestDial: names are judged by what they resolve to, and redirects lead nowhere.
func TestDial(t *testing.T) {
	asked := 0
	inside := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		http.Redirect(w, r, "http://169.254.169.254/latest", http.StatusFound)
	}))
	defer inside.Close()
	byName := strings.Replace(inside.URL, "127.0.0.1", "localhost", 1)
	closed := New(5*time.Second, nil)
	for _, url := range []string{inside.URL, byName} {
		if res, err := closed.Get(url); !errors.Is(err, ErrRefused) {
			t.Errorf("%s: %v %v", url, res, err)
		}
	}
	if asked != 0 {
		t.Fatal("a private address was asked")
	}
	open := New(5*time.Second, []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")})
	res, err := open.Get(inside.URL)
	if err != nil || res.StatusCode != http.StatusFound || asked != 1 {
		t.Fatalf("%v %v, asked %d times", res, err, asked)
	}
	_ = res.Body.Close()
	open.CloseIdleConnections()
}

func TestCheckURL(t *testing.T) {
	for _, s := range []string{"", "ftp://x/", "file:///etc/passwd", "https://", "https://u:p@host/", "https://host/#x", "://", "https://h/\r\nX: y", "https://host/" + strings.Repeat("a", MaxURL)} {
		if CheckURL(s) == nil {
			t.Errorf("%.40q is taken", s)
		}
	}
	if err := CheckURL("https://example.org/hook?a=b"); err != nil {
		t.Error(err)
	}
}
