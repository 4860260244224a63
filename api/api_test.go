package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"sluice/cluster"
	"sluice/cluster/memory"
	"sluice/internal/auth"
)

// A person's way through it, with the shapes that customers' programs know.
func TestFirstAdministratorLogsInAndOut(t *testing.T) {
	for _, st := range stores {
		t.Run(st.name, func(t *testing.T) {
			t.Parallel()
			open := st.open(t)
			s, other := newServer(t, open(t)), newServer(t, open(t))
			if got := s.ask(t, card{}, "GET", "/rest/v2/first-login-status", ""); got.fields["success"] != true {
				t.Errorf("without accounts the first log-in is %s", got.body)
			}
			token, err := s.accounts.FirstLink(t.Context())
			if err != nil || token == "" {
				t.Fatalf("link %q, %v", token, err)
			}
			initial := func(token, pw string) string {
				return fmt.Sprintf(`{"token":%q,"email":"Ada@Example.com","password":%q,"firstName":"Ada","whatever":1}`, token, pw)
			}
			other.ask(t, card{}, "POST", "/rest/v2/users/initial", initial("wrong", password)).want(t, "a wrong link", 403, "bad_link")
			other.ask(t, card{}, "POST", "/rest/v2/users/initial", initial(token, "short")).want(t, "a short password", 422, "weak_password")
			got := other.ask(t, card{}, "POST", "/rest/v2/users/initial", initial(token, password))
			got.want(t, "the link, at another node", 200, "")
			ada := cardOf(t, got)
			if got.fields["message"] != "system/ADMIN" {
				t.Errorf("the log-in answers %s", got.body)
			}
			s.ask(t, card{}, "POST", "/rest/v2/users/initial", initial(token, password)).want(t, "the link again", 403, "bad_link")
			if token, err := s.accounts.FirstLink(t.Context()); err != nil || token != "" {
				t.Errorf("with an account there is a link %q, %v", token, err)
			}

			if got := s.ask(t, ada, "GET", "/rest/v2/authentication-status", ""); got.fields["success"] != true || got.header.Get(CSRFHeader) != ada.csrf {
				t.Errorf("status at the first node: %s, %v", got.body, got.header)
			}
			if got := s.ask(t, card{}, "GET", "/rest/v2/authentication-status", ""); got.fields["success"] != false || got.status != 200 {
				t.Errorf("status of nobody: %d %s", got.status, got.body)
			}
			add := `{"email":"bob","userType":"READ_ONLY","scope":"live","password":"` + password + `","id":"x"}`
			s.ask(t, ada, "POST", "/rest/v2/users", add).want(t, "adding an account", 200, "")
			s.ask(t, ada, "POST", "/rest/v2/users", add).want(t, "adding it again", 409, "already_exists")
			list := s.ask(t, ada, "GET", "/rest/v2/user-list", "")
			var users []User
			if err := json.Unmarshal([]byte(list.body), &users); err != nil || len(users) != 2 || users[1].Email != "bob" || users[1].Scope != "live" ||
				users[1].UserType != "READ_ONLY" || users[0].FullName != "Ada" || list.header.Get("X-Total-Count") != "2" {
				t.Errorf("the accounts are %s, %v", list.body, err)
			}
			if strings.Contains(list.body, "argon2") {
				t.Error("hashes of passwords are shown")
			}
			bob := cardOf(t, s.ask(t, card{}, "POST", "/rest/v2/users/authenticate", `{"email":"BOB","password":"`+password+`"}`))
			if got := s.ask(t, bob, "GET", "/rest/v2/authentication-status", ""); got.fields["message"] != `{"live":"READ_ONLY"}` {
				t.Errorf("bob's scope is %s", got.body)
			}
			s.ask(t, ada, "PUT", "/rest/v2/users", `{"email":"bob","userType":"USER","scope":"system"}`).want(t, "another role", 200, "")
			if got := s.ask(t, bob, "GET", "/rest/v2/session", ""); got.fields["role"] != "operator" {
				t.Errorf("after another role bob is %s", got.body)
			}
			s.ask(t, ada, "PUT", "/rest/v2/users", `{"email":"ada@example.com","userType":"USER"}`).want(t, "the own role", 409, "conflict")
			s.ask(t, ada, "DELETE", "/rest/v2/users/ada@example.com", "").want(t, "the own account", 409, "conflict")
			got = s.ask(t, bob, "POST", "/rest/v2/users/password", `{"password":"`+password+`","newPassword":"other plain words"}`)
			got.want(t, "another password", 200, "")
			s.ask(t, bob, "GET", "/rest/v2/sessions", "").want(t, "the session from before", 401, "unauthorized")
			bob = cardOf(t, got)
			s.ask(t, bob, "GET", "/rest/v2/sessions", "").want(t, "the new session", 200, "")
			s.ask(t, ada, "DELETE", "/rest/v2/users/bob", "").want(t, "removing an account", 200, "")
			s.ask(t, bob, "GET", "/rest/v2/sessions", "").want(t, "a removed account", 401, "unauthorized")
			got = s.ask(t, ada, "DELETE", "/rest/v2/users/logout", "")
			got.want(t, "logging out", 200, "")
			if c := got.header.Get("Set-Cookie"); !strings.Contains(c, "Max-Age=0") {
				t.Errorf("logging out sets the cookie %s", c)
			}
			s.ask(t, ada, "GET", "/rest/v2/user-list", "").want(t, "after logging out", 401, "unauthorized")
		})
	}
}

// cardOf takes the cookie of a log-in.
func cardOf(t *testing.T, got reply) card {
	t.Helper()
	cookies := (&http.Response{Header: got.header}).Cookies()
	if got.status != 200 || len(cookies) != 1 || cookies[0].Name != CookieName || !cookies[0].HttpOnly || cookies[0].SameSite != http.SameSiteLaxMode {
		t.Fatalf("the log-in answers %d %s with the cookies %+v", got.status, got.body, cookies)
	}
	return card{cookie: cookies[0].Value, csrf: got.header.Get(CSRFHeader)}
}

// Log in at one node, be known at another, log out at a third: refused everywhere within two seconds. So are deleted keys and blocked accounts.
func TestNodes(t *testing.T) {
	for _, st := range stores {
		t.Run(st.name, func(t *testing.T) {
			t.Parallel()
			open := st.open(t)
			var nodes []*server
			for i := range 3 {
				s := newServer(t, open(t))
				s.member(t, fmt.Sprintf("node-%d", i))
				nodes = append(nodes, s)
			}
			nodes[0].add(t, auth.Account{Name: "root", Role: auth.Administrator})
			nodes[0].add(t, auth.Account{Name: "eve", Role: auth.Operator})
			known := func(what string, c card) {
				t.Helper()
				for i, s := range nodes {
					s.ask(t, c, "GET", "/rest/v2/session", "").want(t, fmt.Sprintf("%s at node %d", what, i), 200, "")
				}
			}
			gone := func(what string, c card, end func() error) {
				t.Helper()
				if err := end(); err != nil {
					t.Fatalf("%s: %v", what, err)
				}
				began := time.Now()
				for i, s := range nodes {
					for {
						got := s.ask(t, c, "GET", "/rest/v2/session", "")
						if got.code() == "unauthorized" {
							break
						}
						if late := 2 * time.Second; time.Since(began) > late+lateness {
							t.Fatalf("%s: node %d still answers %d after %s: %s", what, i, got.status, time.Since(began), got.body)
						}
						<-time.After(20 * time.Millisecond)
					}
				}
				t.Logf("%s: refused everywhere after %s", what, time.Since(began).Round(time.Millisecond))
			}
			root := nodes[0].logIn(t, "root")
			known("a session", root)
			gone("a log-out", root, func() error { return nodes[2].accounts.LogOut(t.Context(), root.cookie) })
			key, id := nodes[1].key(t, auth.KeyInfo{Name: "root"})
			known("a key", key)
			gone("a deleted key", key, func() error { return nodes[0].accounts.EndKey(t.Context(), "root", id) })
			eve := nodes[2].logIn(t, "eve")
			known("eve", eve)
			gone("a blocked account", eve, func() error {
				_, err := nodes[1].accounts.Edit(t.Context(), "eve", func(u *auth.Account) error { u.Blocked = true; return nil })
				return err
			})
		})
	}
}

// lateness is what a busy machine may add.
const lateness = 3 * time.Second

// While the registry is away who was logged in stays so; new log-ins are told so.
func TestOutage(t *testing.T) {
	store := memory.NewStore(time.Now)
	reg := store.Open()
	s := newServer(t, reg)
	s.add(t, auth.Account{Name: "root", Role: auth.Administrator})
	root := s.logIn(t, "root")
	unseen, _ := s.key(t, auth.KeyInfo{Name: "root"})
	reg.Cut(true)
	if err := store.Open().Notify(t.Context(), "user", "session"); err != nil { // it would have to ask again
		t.Fatal(err)
	}
	s.ask(t, root, "GET", "/rest/v2/session", "").want(t, "who was logged in", 200, "")
	for what, got := range map[string]reply{
		"a log-in":              s.ask(t, card{}, "POST", "/rest/v2/users/authenticate", `{"email":"root","password":"`+password+`"}`),
		"a session not known":   s.ask(t, card{cookie: strings.Repeat("B", 43)}, "GET", "/rest/v2/sessions", ""),
		"a key not known":       s.ask(t, unseen, "GET", "/rest/v2/user-list", ""),
		"a list":                s.ask(t, root, "GET", "/rest/v2/user-list", ""),
		"the first log-in":      s.ask(t, card{}, "GET", "/rest/v2/first-login-status", ""),
		"a status, not known":   s.ask(t, card{cookie: strings.Repeat("B", 43)}, "GET", "/rest/v2/authentication-status", ""),
		"the end of a session":  s.ask(t, root, "DELETE", "/rest/v2/users/logout", ""),
		"a change of passwords": s.ask(t, root, "POST", "/rest/v2/users/password", `{"password":"`+password+`","newPassword":"other plain words"}`),
	} {
		got.want(t, what, 503, "registry_unavailable")
		if got.header.Get("Retry-After") == "" || strings.Contains(got.body, "reached:") {
			t.Errorf("%s: %v %s", what, got.header, got.body)
		}
	}
	reg.Cut(false)
	s.ask(t, unseen, "GET", "/rest/v2/user-list", "").want(t, "a key when it is back", 200, "")
}

func TestBruteForce(t *testing.T) {
	s := newServer(t, inMemory(t)(t))
	s.add(t, auth.Account{Name: "root", Role: auth.Administrator})
	try := func(name, pw, from string) reply {
		return s.ask(t, card{}, "POST", "/rest/v2/users/authenticate", fmt.Sprintf(`{"email":%q,"password":%q}`, name, pw),
			func(r *http.Request) { r.RemoteAddr = from + ":1" })
	}
	for i := range 10 {
		try("root", "wrong password", fmt.Sprintf("198.51.100.%d", i)).want(t, "a wrong password", 401, "bad_credentials")
	}
	got := try("root", password, "198.51.100.99")
	got.want(t, "the right one, after ten wrong ones from everywhere", 429, "too_many_requests")
	if got.header.Get("Retry-After") == "" {
		t.Error("nobody says when to come back")
	}
	s.add(t, auth.Account{Name: "bob", Role: auth.Operator})
	for i := range 20 {
		try(fmt.Sprint("name", i), "wrong password", "[2001:db8::"+fmt.Sprint(i+1)+"]").want(t, "a wrong name", 401, "bad_credentials")
	}
	try("bob", password, "[2001:db8::ffff]").want(t, "the right one from the same household", 429, "too_many_requests")
	try("bob", password, "[2001:db8:1::1]").want(t, "the right one from elsewhere", 200, "")

	garbage := func(i int) reply {
		return s.ask(t, card{key: fmt.Sprintf("sluice_%016d_x", i)}, "GET", "/rest/v2/user-list", "", func(r *http.Request) { r.RemoteAddr = "203.0.113.1:1" })
	}
	codes := map[string]int{}
	for i := range 70 {
		codes[garbage(i).code()]++
	}
	if codes["unauthorized"] < 60 || codes["too_many_requests"] < 5 {
		t.Errorf("70 keys that are none got %v", codes)
	}
	list, total, err := s.accounts.AuditLog(t.Context(), auth.AuditQuery{Result: "bad_credentials", Limit: 5})
	if err != nil || total != 30 || len(list) != 5 || list[0].Action != "log in" || list[0].From.String() != "2001:db8::20" {
		t.Errorf("the audit log has %d refused log-ins: %+v, %v", total, list, err)
	}
}

// What another site's page could send is refused.
func TestCSRF(t *testing.T) {
	s := newServer(t, inMemory(t)(t))
	s.add(t, auth.Account{Name: "root", Role: auth.Administrator})
	root, other := s.logIn(t, "root"), s.logIn(t, "root")
	key, _ := s.key(t, auth.KeyInfo{Name: "root"})
	add := `{"email":"x","password":"` + password + `"}`
	for _, c := range []struct {
		name   string
		card   card
		method string
		path   string
		body   string
		edit   func(*http.Request)
		status int
		code   string
	}{
		{"no token", card{cookie: root.cookie}, "POST", "/rest/v2/users", add, nil, 403, "bad_csrf_token"},
		{"another session's token", card{cookie: root.cookie, csrf: other.csrf}, "POST", "/rest/v2/users", add, nil, 403, "bad_csrf_token"},
		{"a browser says it is another site", root, "POST", "/rest/v2/users", add, func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") }, 403, "bad_csrf_token"},
		{"another origin", root, "DELETE", "/rest/v2/users/x", "", func(r *http.Request) { r.Header.Set("Origin", "https://evil.example") }, 403, "bad_csrf_token"},
		{"log-in from another site", card{}, "POST", "/rest/v2/users/authenticate", `{"email":"root","password":"` + password + `"}`,
			func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") }, 403, "bad_csrf_token"},
		{"a form", root, "POST", "/rest/v2/users", "email=x", func(r *http.Request) { r.Header.Set("Content-Type", "application/x-www-form-urlencoded") }, 415, "wrong_media_type"},
		{"reading needs none", card{cookie: root.cookie}, "GET", "/rest/v2/user-list", "", nil, 200, ""},
		{"a key needs none", key, "POST", "/rest/v2/users", add, nil, 200, ""},
		{"a wrong key beside a right cookie", root, "GET", "/rest/v2/user-list", "", func(r *http.Request) { r.Header.Set("Authorization", "Bearer sluice_x_y") }, 401, "unauthorized"},
		{"the same origin", root, "DELETE", "/rest/v2/users/x", "", func(r *http.Request) {
			r.Header.Set("Origin", "http://node.example")
			r.Header.Set("Sec-Fetch-Site", "same-origin")
		}, 200, ""},
	} {
		if c.edit == nil {
			c.edit = func(*http.Request) {}
		}
		s.ask(t, c.card, c.method, c.path, c.body, c.edit).want(t, c.name, c.status, c.code)
	}
}

// Requests that are none: each is refused with its code, and says nothing of the server's inside.
func TestHostile(t *testing.T) {
	s := newServer(t, inMemory(t)(t))
	s.add(t, auth.Account{Name: "root", Role: auth.Administrator})
	root := s.logIn(t, "root")
	long := strings.Repeat("x", 100)
	for _, c := range []struct {
		name, method, path, body string
		edit                     func(*http.Request)
		status                   int
		code                     string
	}{
		{"large body", "POST", "/rest/v2/users", `{"email":"` + strings.Repeat("x", 70<<10) + `"}`, nil, 413, "too_large"},
		{"large body without a length", "POST", "/rest/v2/users", `{"email":"` + strings.Repeat("x", 70<<10) + `"}`, func(r *http.Request) { r.ContentLength = -1 }, 413, "too_large"},
		{"deep body", "POST", "/rest/v2/users", `{"email":` + strings.Repeat("[", 20000) + strings.Repeat("]", 20000) + `}`, nil, 400, "bad_request"},
		{"large query", "GET", "/rest/v2/user-list?search=" + strings.Repeat("x", 5<<10), "", nil, 413, "too_large"},
		{"no JSON", "POST", "/rest/v2/users", `{"email":`, nil, 400, "bad_request"},
		{"no object", "POST", "/rest/v2/users", `[]`, nil, 422, "invalid"},
		{"no body", "POST", "/rest/v2/users", "", nil, 400, "bad_request"},
		{"a member of another type", "POST", "/rest/v2/users", `{"email":{"$ne":null},"password":"x"}`, nil, 422, "invalid"},
		{"no such role", "POST", "/rest/v2/users", `{"email":"x","userType":"GOD","password":"` + password + `"}`, nil, 422, "invalid"},
		{"a name with a line break", "POST", "/rest/v2/users", `{"email":"a\r\nSet-Cookie: x=y","password":"` + password + `"}`, nil, 422, "invalid"},
		{"a name that is a path", "POST", "/rest/v2/users", `{"email":"../../etc/passwd","password":"` + password + `"}`, nil, 422, "invalid"},
		{"an application that is a path", "POST", "/rest/v2/users", `{"email":"x","userType":"USER","scope":"../live","password":"` + password + `"}`, nil, 422, "invalid"},
		{"a first name with a zero", "POST", "/rest/v2/users", `{"email":"x","firstName":"a\u0000","password":"` + password + `"}`, nil, 422, "invalid"},
		{"size below", "GET", "/rest/v2/user-list?size=0", "", nil, 422, "invalid"},
		{"size beyond", "GET", "/rest/v2/user-list?size=501", "", nil, 422, "invalid"},
		{"offset below", "GET", "/rest/v2/user-list?offset=-1", "", nil, 422, "invalid"},
		{"offset of letters", "GET", "/rest/v2/user-list?offset=abc", "", nil, 422, "invalid"},
		{"a time that is none", "GET", "/rest/v2/audit?from=yesterday", "", nil, 422, "invalid"},
		{"traversal", "GET", "/rest/v2/users/..%2f..%2fetc%2fpasswd", "", nil, 404, "not_found"},
		{"a name with a zero", "GET", "/rest/v2/users/a%00b", "", nil, 404, "not_found"},
		{"a name with a line break in the path", "DELETE", "/rest/v2/users/a%0d%0ab", "", nil, 404, "not_found"},
		{"no UTF-8", "GET", "/rest/v2/users/%ff%fe", "", nil, 404, "not_found"},
		{"no such operation", "GET", "/rest/v2/" + long, "", nil, 404, "not_found"},
		{"no such method", "PATCH", "/rest/v2/users", "{}", nil, 405, "method_not_allowed"},
		{"TRACE", "TRACE", "/rest/v2/users", "", nil, 405, "method_not_allowed"},
		{"two keys", "GET", "/rest/v2/user-list", "", func(r *http.Request) { r.Header["Authorization"] = []string{"Bearer a", "Bearer b"} }, 401, "unauthorized"},
		{"another scheme", "GET", "/rest/v2/user-list", "", func(r *http.Request) { r.Header.Set("Authorization", "Basic cm9vdDp4") }, 401, "unauthorized"},
		{"a long key", "GET", "/rest/v2/user-list", "", func(r *http.Request) { r.Header.Set("Authorization", "Bearer sluice_"+strings.Repeat("x", 9000)) }, 401, "unauthorized"},
		{"scopes that are none", "POST", "/rest/v2/api-keys", `{"label":"x","scopes":["everything"]}`, nil, 422, "invalid"},
		{"a key that has expired", "POST", "/rest/v2/api-keys", `{"label":"x","expires":"2001-01-01T00:00:00Z"}`, nil, 422, "invalid"},
		{"a key for centuries", "POST", "/rest/v2/api-keys", `{"label":"x","expires":"2999-01-01T00:00:00Z"}`, nil, 422, "invalid"},
		{"somebody else's key", "DELETE", "/rest/v2/api-keys/abc", "", nil, 404, "not_found"},
		{"somebody else's session", "DELETE", "/rest/v2/sessions/abc", "", nil, 404, "not_found"},
	} {
		if c.edit == nil {
			c.edit = func(*http.Request) {}
		}
		got := s.ask(t, root, c.method, c.path, c.body, c.edit)
		got.want(t, c.name, c.status, c.code)
		for _, inside := range []string{"sluice/", "goroutine", ".go:", "json: ", "interface"} {
			if strings.Contains(got.body, inside) {
				t.Errorf("%s: the answer shows the server's inside: %s", c.name, got.body)
			}
		}
		if got.header.Get("Set-Cookie") != "" || got.header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s: the answer has the headers %v", c.name, got.header)
		}
	}
	if _, total, err := s.accounts.List(t.Context(), "", 0, 10); err != nil || total != 1 {
		t.Errorf("there are %d accounts, %v", total, err)
	}
}

// A user agent of any kind comes out of lists as text.
func TestHeadersAreCleaned(t *testing.T) {
	s := newServer(t, inMemory(t)(t))
	s.add(t, auth.Account{Name: "root", Role: auth.Administrator})
	got := s.ask(t, card{}, "POST", "/rest/v2/users/authenticate", `{"email":"root","password":"`+password+`"}`, func(r *http.Request) {
		r.Header.Set("User-Agent", "a\x1b[31m\xff"+strings.Repeat("ä", 300))
	})
	root := cardOf(t, got)
	var sessions []sessionInfo
	if err := json.Unmarshal([]byte(s.ask(t, root, "GET", "/rest/v2/sessions", "").body), &sessions); err != nil || len(sessions) != 1 {
		t.Fatalf("sessions %+v, %v", sessions, err)
	}
	if a := sessions[0].Agent; !strings.HasPrefix(a, "a[31m") || len(a) > 210 || strings.ContainsAny(a, "\x1b") || !sessions[0].Current || sessions[0].From != "192.0.2.7" {
		t.Errorf("the session is %+v", sessions[0])
	}
	for _, path := range []string{"/rest/v2/session", "/openapi.json", "/openapi", "/rest/v2/nothing"} {
		h := s.ask(t, card{}, "GET", path, "").header
		if h.Get("X-Content-Type-Options") != "nosniff" || h.Get("X-Frame-Options") != "DENY" || !strings.Contains(h.Get("Content-Security-Policy"), "default-src 'none'") ||
			strings.Contains(h.Get("Content-Security-Policy"), "unsafe") || h.Get("Referrer-Policy") != "no-referrer" {
			t.Errorf("%s has the headers %v", path, h)
		}
	}
}

// The document says of each operation what it needs and how it fails; the page that shows it asks nobody else.
func TestOpenAPI(t *testing.T) {
	s := newServer(t, inMemory(t)(t))
	got := s.ask(t, card{}, "GET", "/openapi.json", "")
	paths, _ := got.fields["paths"].(map[string]any)
	if got.status != 200 || len(paths) < 10 || !strings.Contains(got.body, `"x-sluice-action":"users:write"`) || !strings.Contains(got.body, "A stable name that programs may switch on") {
		t.Errorf("the document is %.300s", got.body)
	}
	for path, mime := range map[string]string{"/openapi": "text/html", "/openapi.js": "text/javascript", "/openapi.css": "text/css", "/openapi.yaml": "application/"} {
		got := s.ask(t, card{}, "GET", path, "")
		if got.status != 200 || !strings.HasPrefix(got.header.Get("Content-Type"), mime) {
			t.Errorf("%s: %d %s", path, got.status, got.header.Get("Content-Type"))
		}
		if path != "/openapi.yaml" && (strings.Contains(got.body, "http://") || strings.Contains(got.body, "https://") || strings.Contains(got.body, "innerHTML") || strings.Contains(got.body, " style=")) {
			t.Errorf("%s points elsewhere, or its policy forbids what it does", path)
		}
	}
}

// A key is limited by its scopes, its applications and, at each moment, its account.
func TestKeys(t *testing.T) {
	s := newServer(t, inMemory(t)(t))
	s.add(t, auth.Account{Name: "root", Role: auth.Administrator})
	root := s.logIn(t, "root")
	got := s.ask(t, root, "POST", "/rest/v2/api-keys", `{"label":"ci","scopes":["users:read"]}`)
	got.want(t, "making a key", 201, "")
	shown, _ := got.fields["key"].(string)
	key := card{key: shown}
	s.ask(t, key, "GET", "/rest/v2/user-list", "").want(t, "within its scope", 200, "")
	s.ask(t, key, "POST", "/rest/v2/users", `{"email":"x","password":"`+password+`"}`).want(t, "beyond its scope", 403, "forbidden")
	s.ask(t, key, "POST", "/rest/v2/api-keys", `{"label":"more"}`).want(t, "a key that makes keys", 403, "forbidden")
	if list := s.ask(t, root, "GET", "/rest/v2/api-keys", "").body; strings.Contains(list, shown) || strings.Contains(list, "hash") || !strings.Contains(list, `"label":"ci"`) {
		t.Errorf("the list of keys is %s", list)
	}
	s.add(t, auth.Account{Name: "second", Role: auth.Administrator})
	if _, err := s.accounts.Edit(t.Context(), "root", func(u *auth.Account) error { u.Role = auth.ReadOnly; return nil }); err != nil {
		t.Fatal(err)
	}
	s.ask(t, key, "GET", "/rest/v2/user-list", "").want(t, "when its account may no more", 403, "forbidden")
	audit := s.ask(t, s.logIn(t, "second"), "GET", "/rest/v2/audit?search=addUser&result=forbidden", "")
	var entries []entry
	if err := json.Unmarshal([]byte(audit.body), &entries); err != nil || len(entries) != 1 || entries[0].Who != "root" || entries[0].Kind != auth.Key || entries[0].Key == "" || entries[0].From != "192.0.2.7" {
		t.Errorf("the audit log has %s", audit.body)
	}
}

// BenchmarkRead: what a request with an API key costs.
func BenchmarkRead(b *testing.B) {
	reg := memory.NewStore(time.Now).Open()
	a := auth.New(reg, auth.Config{})
	if _, err := a.Add(context.Background(), auth.Account{Name: "root", Role: auth.Administrator}, password); err != nil {
		b.Fatal(err)
	}
	key, _, err := a.AddKey(context.Background(), auth.KeyInfo{Name: "root"})
	if err != nil {
		b.Fatal(err)
	}
	s := newServer(new(testing.T), cluster.Store(reg))
	for b.Loop() {
		r := httptest.NewRequest(http.MethodGet, "/rest/v2/session", nil)
		r.Header.Set("Authorization", "Bearer "+key)
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		if w.Code != http.StatusOK {
			b.Fatal(w.Body)
		}
	}
}

// What a node serves beside the interface may ask it who comes.
func TestAllows(t *testing.T) {
	s := newServer(t, inMemory(t)(t))
	s.add(t, auth.Account{Name: "root", Role: auth.Administrator})
	s.add(t, auth.Account{Name: "eve", Role: auth.Operator})
	all, _ := s.key(t, auth.KeyInfo{Name: "root"})
	scoped, _ := s.key(t, auth.KeyInfo{Name: "root", Scopes: []auth.Action{auth.StreamsRead}})
	for name, c := range map[string]struct {
		card card
		want bool
	}{"nobody": {card{}, false}, "administrator": {s.logIn(t, "root"), true}, "operator": {s.logIn(t, "eve"), false}, "key": {all, true}, "scoped key": {scoped, false}, "garbage": {card{key: "x"}, false}} {
		r := httptest.NewRequest(http.MethodGet, "/debug/pprof/heap", nil)
		r.AddCookie(&http.Cookie{Name: CookieName, Value: c.card.cookie})
		if c.card.key != "" {
			r.Header.Set("Authorization", "Bearer "+c.card.key)
		}
		if got := s.Allows(r, auth.Debug); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
