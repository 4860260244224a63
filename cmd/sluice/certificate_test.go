package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/tls"
	"crypto/x509"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// pair loads what certificates has written, and verifies it as a browser would.
func pair(t *testing.T, h home, host string, now time.Time) (ca, leaf *x509.Certificate) {
	t.Helper()
	a, err := tls.LoadX509KeyPair(h.path(caFile), h.path(caKeyFile))
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.LoadX509KeyPair(h.path(certFile), h.path(certKeyFile))
	if err != nil {
		t.Fatal(err)
	}
	roots, err := trust(h.path(caFile))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Leaf.Verify(x509.VerifyOptions{DNSName: host, Roots: roots, CurrentTime: now}); err != nil {
		t.Error(err)
	}
	return a.Leaf, l.Leaf
}

func TestCertificates(t *testing.T) {
	h := home{dir: t.TempDir()}
	now := time.Now()
	begin := func(hosts ...string) {
		t.Helper()
		if err := h.certificates(hosts, now); err != nil {
			t.Fatal(err)
		}
	}
	begin("localhost", "192.0.2.7", "::1")
	ca, leaf := pair(t, h, "192.0.2.7", now)
	if key, ok := leaf.PublicKey.(*ecdsa.PublicKey); !ok || key.Curve != elliptic.P256() {
		t.Errorf("key is %T", leaf.PublicKey)
	}
	for _, file := range []string{caKeyFile, certKeyFile} {
		if st, err := os.Stat(h.path(file)); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", file, st.Mode(), err)
		}
	}
	for _, tc := range []struct {
		name             string
		later            time.Duration
		hosts            []string
		sameCA, sameLeaf bool
	}{
		{"again", time.Hour, []string{"localhost", "192.0.2.7"}, true, true},
		{"new address", 0, []string{"localhost", "192.0.2.8"}, true, false},
		{"near the end", leafLife - 24*time.Hour, []string{"localhost"}, true, false},
		{"the CA ends too", caLife, []string{"localhost"}, false, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			now = now.Add(tc.later)
			begin(tc.hosts...)
			ca2, leaf2 := pair(t, h, tc.hosts[len(tc.hosts)-1], now)
			if ca2.Equal(ca) != tc.sameCA || leaf2.Equal(leaf) != tc.sameLeaf {
				t.Errorf("same CA %v, same leaf %v", ca2.Equal(ca), leaf2.Equal(leaf))
			}
			ca, leaf = ca2, leaf2
		})
	}
	t.Run("spoilt file", func(t *testing.T) {
		if err := os.WriteFile(h.path(caKeyFile), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		err := h.certificates([]string{"localhost"}, now)
		if err == nil || !strings.Contains(err.Error(), "they are made again") {
			t.Errorf("got %v", err)
		}
	})
}

func TestOwnHosts(t *testing.T) {
	hosts := ownHosts()
	if hosts[0] != "localhost" || !slices.Contains(hosts, "127.0.0.1") || !slices.Contains(hosts, "::1") {
		t.Errorf("got %q", hosts)
	}
}
