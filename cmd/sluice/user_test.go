package main

import (
	"crypto/x509"
	"testing"
	"time"
)

func TestResolve(t *testing.T) {
	t.Chdir(t.TempDir())
	h := home{dir: "c"}
	if err := h.make(); err != nil {
		t.Fatal(err)
	}
	if err := h.certificates([]string{"localhost"}, time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := h.writeAddress(address{Publish: "https://localhost:1", Play: "https://localhost:2"}); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ name, dir, what, want string }{
		{"name", "c", "live/a", "https://localhost:2/live/whep/a"},
		{"URL", "c", "https://x.example/whep", "https://x.example/whep"},
		{"URL needs no cluster", "none", "http://x.example/whep", "http://x.example/whep"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := &process{ctx: t.Context(), env: map[string]string{"SLUICE_UP_DIR": tc.dir}}
			url, roots, err := target{}.resolve(p, &cli{}, tc.what, "whep", func(a address) string { return a.Play })
			if err != nil || url != tc.want {
				t.Fatalf("got %q, %v", url, err)
			}
			_, leaf := pair(t, h, "localhost", time.Now())
			_, err = leaf.Verify(x509.VerifyOptions{DNSName: "localhost", Roots: roots})
			if trusted := err == nil; trusted != (tc.dir == "c") {
				t.Errorf("trusts the cluster's certificate: %v", trusted)
			}
		})
	}
}
