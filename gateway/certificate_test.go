package gateway

import (
	"crypto/x509"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"
)

func TestCertificateReload(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile := writeCert(t, dir, 1)
	log := &lockedBuffer{}
	c, err := newCertificate(certFile, keyFile, slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	c.now = func() time.Time { return now }
	serial := func() int64 {
		t.Helper()
		cert, err := c.get(nil)
		if err != nil {
			t.Fatal(err)
		}
		leaf, err := x509.ParseCertificate(cert.Certificate[0])
		if err != nil {
			t.Fatal(err)
		}
		return leaf.SerialNumber.Int64()
	}
	touch := func(d time.Duration) { // file systems may keep whole seconds only
		for _, f := range []string{certFile, keyFile} {
			if err := os.Chtimes(f, now.Add(d), now.Add(d)); err != nil {
				t.Fatal(err)
			}
		}
	}
	writeCert(t, dir, 2)
	touch(time.Minute)
	if got := serial(); got != 1 {
		t.Errorf("files were read again within %v", certCheck)
	}
	now = now.Add(certCheck)
	if got := serial(); got != 2 {
		t.Errorf("changed file: serial %d, want 2", got)
	}
	if err := os.WriteFile(certFile, []byte("half a file"), 0o600); err != nil {
		t.Fatal(err)
	}
	touch(2 * time.Minute)
	for range 3 {
		now = now.Add(certCheck)
		if got := serial(); got != 2 {
			t.Errorf("broken file: serial %d, want the old one, 2", got)
		}
	}
	if n := strings.Count(log.String(), "can't be used"); n != 1 {
		t.Errorf("broken file was reported %d times", n)
	}
	writeCert(t, dir, 3)
	touch(3 * time.Minute)
	now = now.Add(certCheck)
	if got := serial(); got != 3 {
		t.Errorf("repaired file: serial %d, want 3", got)
	}
}

func TestCertificateMissing(t *testing.T) {
	g := New(Config{PublishListen: "127.0.0.1:0", PlayListen: "127.0.0.1:0", CertFile: "/nowhere/cert.pem", KeyFile: "/nowhere/key.pem"}, Deps{Directory: &fakeDirectory{}, Log: slog.New(slog.DiscardHandler)})
	if err := g.Listen(t.Context()); err == nil || !strings.Contains(err.Error(), "--certificate") {
		t.Errorf("got %v, want an error that says what to do", err)
	}
}
