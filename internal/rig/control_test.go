package rig

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"sluice/internal/auth"
)

// A person comes in by the gateway: he logs in at its publish port, is known at its play port, and is gone from all nodes two seconds after he
// logs out. A program's key goes the same way. The log says who it was, behind the gateway.
func TestAccountsThroughTheGateway(t *testing.T) {
	c := Start(t, Options{})
	reg := c.options.Store.Open(t)
	t.Cleanup(func() { _ = reg.Close() })
	link, err := auth.New(reg, auth.Config{}).FirstLink(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true} // the gateway's own certificate
	client := &http.Client{Timeout: 10 * time.Second, Transport: transport}
	publish, play := "https://"+c.gateway.PublishAddr().String(), "https://"+c.gateway.PlayAddr().String()
	var cookie *http.Cookie
	var csrf, key string
	ask := func(method, url, body string) (status int, fields map[string]any) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("X-Forwarded-For", "6.6.6.6") // a lie
		if key != "" {
			r.Header.Set("Authorization", "Bearer "+key)
		} else if cookie != nil {
			r.AddCookie(cookie)
			r.Header.Set("X-Sluice-CSRF", csrf)
		}
		res, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = res.Body.Close() }()
		_ = json.NewDecoder(res.Body).Decode(&fields) // lists are no objects
		for _, got := range res.Cookies() {
			cookie, csrf = got, res.Header.Get("X-Sluice-CSRF")
		}
		return res.StatusCode, fields
	}
	want := func(what string, status int, method, url, body string) map[string]any {
		t.Helper()
		got, fields := ask(method, url, body)
		if got != status {
			t.Fatalf("%s: %d %v, want %d", what, got, fields, status)
		}
		return fields
	}
	want("the first administrator", 200, "POST", publish+"/rest/v2/users/initial", fmt.Sprintf(`{"token":%q,"email":"ada","password":"four plain words"}`, link))
	if !cookie.Secure {
		t.Error("the cookie of a session over TLS goes over plain HTTP too")
	}
	want("the session at the play port", 200, "GET", play+"/rest/v2/user-list", "")
	made := want("a key", 201, "POST", play+"/rest/v2/api-keys", `{"label":"x","scopes":["audit:read"]}`)
	want("the document", 200, "GET", play+"/openapi.json", "")
	for _, id := range []string{"origin-1", "edge-1", "edge-2"} {
		want("the session at "+id, 200, "GET", "http://"+c.Node(id).HTTPAddr()+"/rest/v2/user-list", "")
	}
	csrf = ""
	want("without the token", 403, "POST", play+"/rest/v2/users", `{"email":"x"}`)
	cookie = nil
	want("log-in", 200, "POST", play+"/rest/v2/users/authenticate", `{"email":"ada","password":"four plain words"}`)
	session := *cookie
	want("log-out", 200, "DELETE", publish+"/rest/v2/users/logout", "")
	cookie = &session
	began := time.Now()
	for _, id := range []string{"origin-1", "edge-1", "edge-2"} {
		c.Poll(10*time.Second, func() error {
			if got, _ := ask("GET", "http://"+c.Node(id).HTTPAddr()+"/rest/v2/user-list", ""); got != http.StatusUnauthorized {
				return fmt.Errorf("%s still answers %d", id, got)
			}
			return nil
		})
	}
	t.Logf("refused by all nodes %s after the log-out", time.Since(began).Round(time.Millisecond))

	key = made["key"].(string)
	want("the key", 200, "GET", play+"/rest/v2/audit", "")
	want("the key beyond its scope", 403, "GET", publish+"/rest/v2/user-list", "")
	list, _, err := auth.New(reg, auth.Config{}).AuditLog(t.Context(), auth.AuditQuery{})
	if err != nil || len(list) < 4 {
		t.Fatalf("the audit log is %+v, %v", list, err)
	}
	for _, e := range list {
		if !e.From.IsLoopback() {
			t.Errorf("%s of %s came from %s", e.Action, e.Who, e.From)
		}
	}
}
