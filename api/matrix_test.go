package api

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"sluice/internal/auth"
)

// everyOperation lists what the OpenAPI document has, what ends sessions last.
func everyOperation(a *API) (list []*huma.Operation) {
	for _, item := range a.huma.OpenAPI().Paths {
		for _, op := range []*huma.Operation{item.Get, item.Post, item.Put, item.Patch, item.Delete} {
			if op != nil {
				list = append(list, op)
			}
		}
	}
	slices.SortFunc(list, func(x, y *huma.Operation) int {
		if last := "logOut"; (x.OperationID == last) != (y.OperationID == last) {
			if x.OperationID == last {
				return 1
			}
			return -1
		}
		return strings.Compare(x.OperationID, y.OperationID)
	})
	return list
}

// who may do what: those who are not named may not. A new action needs a line.
var mayDo = map[auth.Action]string{
	auth.Public:        "anonymous read-only operator administrator app-operator app-administrator key scoped-key app-key revoked-key expired-key blocked expired-session garbage garbage-key",
	auth.Self:          "read-only operator administrator app-operator app-administrator",
	auth.StreamsRead:   "read-only operator administrator key scoped-key",
	auth.StreamsWrite:  "operator administrator key",
	auth.AccessRead:    "operator administrator key",
	auth.AccessWrite:   "operator administrator key",
	auth.SettingsRead:  "read-only operator administrator key",
	auth.SettingsWrite: "administrator key",
	auth.AppsRead:      "read-only operator administrator key",
	auth.AppsWrite:     "administrator key",
	auth.ClusterRead:   "read-only operator administrator key",
	auth.ClusterWrite:  "operator administrator key",
	auth.UsersRead:     "administrator key",
	auth.UsersWrite:    "administrator key",
	auth.AuditRead:     "administrator key",
	auth.Debug:         "administrator key",
}

// within the application live, these may too.
var mayInLive = map[auth.Action]string{
	auth.StreamsRead:   "app-operator app-administrator app-key",
	auth.StreamsWrite:  "app-operator app-administrator app-key",
	auth.AccessRead:    "app-operator app-administrator app-key",
	auth.AccessWrite:   "app-operator app-administrator app-key",
	auth.SettingsRead:  "app-operator app-administrator app-key",
	auth.SettingsWrite: "app-administrator app-key",
	auth.AppsRead:      "app-operator app-administrator app-key",
}

// nobody: credentials that are none any more get 401, others 403.
const nobody = "anonymous revoked-key expired-key blocked expired-session garbage garbage-key"

// TestMatrix: every operation, by everybody.
func TestMatrix(t *testing.T) {
	for _, st := range stores {
		t.Run(st.name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t, st.open(t)(t))
			for action := range mayDo { // beside those that are there: one of each kind, on the server and in an application
				for _, path := range []string{"/rest/v2/test/", "/{app}/rest/v2/test/"} {
					register(s.API, operation{method: http.MethodGet, path: path + strings.ReplaceAll(string(action), ":", "-"), id: "test" + path + string(action), needs: action},
						func(context.Context, *struct {
							App string `path:"app"`
						}) (*answer, error) {
							return done(""), nil
						})
				}
			}
			cards := visitors(t, s)
			asked := 0 // each from an address of its own: strangers must wait
			for _, op := range everyOperation(s.API) {
				action := auth.Action(op.Extensions[actionExtension].(string))
				allowed, ok := mayDo[action]
				if !ok {
					t.Errorf("%s %s needs %q, of which the matrix knows nothing", op.Method, op.Path, action)
					continue
				}
				path := op.Path
				if op.Extensions[inSomeExtension] == true {
					allowed += " " + mayInLive[action]
				}
				if strings.Contains(path, "{app}") {
					path, allowed = strings.ReplaceAll(path, "{app}", "live"), allowed+" "+mayInLive[action]
				}
				path = strings.NewReplacer("{name}", "nobody-there", "{id}", "nothing").Replace(path)
				body := ""
				if op.RequestBody != nil {
					body = "{}"
				}
				for name, c := range cards {
					asked++
					got := s.ask(t, c, op.Method, path, body, func(r *http.Request) { r.RemoteAddr = fmt.Sprintf("10.1.%d.%d:1", asked/250, asked%250) })
					refused := got.code() == "unauthorized" || got.code() == "forbidden" || got.code() == "bad_csrf_token"
					want := slices.Contains(strings.Fields(allowed), name)
					switch {
					case op.OperationID == "getSession": // open, and tells who asks
						want = !slices.Contains(strings.Fields(nobody), name)
						fallthrough
					default:
						if refused == want {
							t.Errorf("%s by %s: %d %s, want it allowed: %v", op.OperationID, name, got.status, got.code(), want)
						}
					}
					if refused && (got.status == http.StatusUnauthorized) != slices.Contains(strings.Fields(nobody), name) {
						t.Errorf("%s by %s is refused with %d %s", op.OperationID, name, got.status, got.code())
					}
				}
			}
		})
	}
}

// visitors makes one of each kind.
func visitors(t *testing.T, s *server) map[string]card {
	t.Helper()
	for name, u := range map[string]auth.Account{
		"root": {Role: auth.Administrator}, "administrator": {Role: auth.Administrator}, "operator": {Role: auth.Operator}, "read-only": {Role: auth.ReadOnly},
		"app-operator":      {Apps: map[string]auth.Role{"live": auth.Operator}},
		"app-administrator": {Apps: map[string]auth.Role{"live": auth.Administrator}},
		"blocked":           {Role: auth.Administrator}, "expired-session": {Role: auth.Administrator},
	} {
		u.Name = name
		s.add(t, u)
	}
	cards := map[string]card{"anonymous": {}, "garbage": {cookie: strings.Repeat("A", 43)}, "garbage-key": {key: "sluice_aaaaaaaaaaaaaaaa_" + strings.Repeat("A", 43)}}
	for _, name := range []string{"administrator", "operator", "read-only", "app-operator", "app-administrator", "blocked", "expired-session"} {
		cards[name] = s.logIn(t, name)
	}
	if err := s.accounts.LogOut(t.Context(), cards["expired-session"].cookie); err != nil {
		t.Fatal(err)
	}
	if _, err := s.accounts.Edit(t.Context(), "blocked", func(u *auth.Account) error { u.Blocked = true; return nil }); err != nil {
		t.Fatal(err)
	}
	cards["key"], _ = s.key(t, auth.KeyInfo{Name: "root"})
	cards["scoped-key"], _ = s.key(t, auth.KeyInfo{Name: "root", Scopes: []auth.Action{auth.StreamsRead}})
	cards["app-key"], _ = s.key(t, auth.KeyInfo{Name: "root", Apps: []string{"live"}})
	revoked, id := s.key(t, auth.KeyInfo{Name: "root"})
	if err := s.accounts.EndKey(t.Context(), "root", id); err != nil {
		t.Fatal(err)
	}
	cards["revoked-key"] = revoked
	soon := 30 * time.Millisecond
	expired, _ := s.key(t, auth.KeyInfo{Name: "root", Expires: s.reg.Now().Add(soon)})
	<-time.After(2 * soon) // its time passes
	cards["expired-key"] = expired
	return cards
}

// TestEveryOperationSaysWhatItNeeds, under a name, and in a group of the page.
func TestEveryOperationSaysWhatItNeeds(t *testing.T) {
	s := newServer(t, inMemory(t)(t))
	seen := map[string]bool{}
	list := everyOperation(s.API)
	for _, op := range list {
		needs, _ := op.Extensions[actionExtension].(string)
		if _, ok := mayDo[auth.Action(needs)]; !ok {
			t.Errorf("%s %s needs %q, which is no action", op.Method, op.Path, needs)
		}
		if op.OperationID == "" || seen[op.OperationID] || op.Summary == "" || len(op.Tags) == 0 || op.Tags[0] == "" {
			t.Errorf("%s %s needs an id of its own, a summary and a tag: %q, %q, %q", op.Method, op.Path, op.OperationID, op.Summary, op.Tags)
		}
		seen[op.OperationID] = true
		if op.MaxBodyBytes <= 0 || op.MaxBodyBytes > 1<<20 {
			t.Errorf("%s takes bodies of %d bytes", op.OperationID, op.MaxBodyBytes)
		}
	}
	if len(list) < 15 {
		t.Errorf("only %d operations were found", len(list))
	}
}
