package main

import (
	"bytes"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"sluice/internal/config"
	"sluice/internal/publicip"
)

// metadata is Azure's service on a machine with these addresses.
func metadata(t *testing.T, public, private string) *httptest.Server {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.URL.Path, "/metadata/instance/network/") {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		_, _ = io.WriteString(w, `{"privateIpAddress":"`+private+`","publicIpAddress":"`+public+`"}`)
	}))
	t.Cleanup(s.Close)
	return s
}

func TestFindAddress(t *testing.T) {
	finder := publicip.Finder{Service: metadata(t, "20.1.2.3", "10.0.1.4").URL}
	for _, tc := range []struct {
		name              string
		announce          []string
		address           string
		told, own, failed string
	}{
		{"not asked", []string{"5.6.7.8"}, "", "5.6.7.8", "", ""},
		{"auto", []string{"auto"}, "", "20.1.2.3", "10.0.1.4", ""},
		{"auto, and an own address", []string{"auto"}, "10.9.9.9", "20.1.2.3", "10.9.9.9", ""},
		{"auto and another", []string{"auto", "5.6.7.8"}, "", "", "", "announce is auto, 5.6.7.8: auto and stun: stand alone"},
		{"no such STUN server", []string{"stun:127.0.0.1:bad"}, "", "", "", "find this machine's address for --announce=stun:127.0.0.1:bad: no public address found"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			n := config.Default().Node
			n.Announce, n.Address = tc.announce, tc.address
			var log bytes.Buffer
			err := findAddress(t.Context(), &n, finder, slog.New(slog.NewTextHandler(&log, nil)))
			if tc.failed != "" {
				if err == nil || !strings.HasPrefix(err.Error(), tc.failed) {
					t.Errorf("got %v, want %s", err, tc.failed)
				}
				return
			}
			if err != nil || !slices.Equal(n.Announce, []string{tc.told}) || n.Address != tc.own {
				t.Errorf("got %v, %q, %v\n%s", n.Announce, n.Address, err, &log)
			}
		})
	}
}
