package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestHealthy(t *testing.T) {
	status := http.StatusOK
	answer := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(status) })
	plain, secret := httptest.NewServer(answer), httptest.NewTLSServer(answer)
	defer secret.Close()
	ask := func(url string) (int, string) {
		var out, errs output
		return run(t.Context(), []string{"healthy", url}, nil, nil, &out, &errs), errs.String()
	}
	for _, url := range []string{plain.URL, secret.URL} {
		if code, said := ask(url); code != 0 {
			t.Errorf("%s: %d, %s", url, code, said)
		}
	}
	status = http.StatusServiceUnavailable
	if code, said := ask(plain.URL); code != exitFailed || !strings.Contains(said, "not well: 503") {
		t.Errorf("a process that is not well: %d, %s", code, said)
	}
	plain.Close()
	if code, said := ask(plain.URL); code != exitFailed || !strings.Contains(said, "not well: ") {
		t.Errorf("no process: %d, %s", code, said)
	}
}
