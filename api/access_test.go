package api

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"sluice/internal/auth"
)

// TestTokensAndSubscribers: requests and answers as the customers of other servers know them.
func TestTokensAndSubscribers(t *testing.T) {
	for _, st := range stores {
		t.Run(st.name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t, st.open(t)(t))
			s.add(t, auth.Account{Name: "root", Role: auth.Administrator})
			c, _ := s.key(t, auth.KeyInfo{Name: "root"})
			const base = "/live/rest/v2/broadcasts/"
			if r := s.ask(t, c, "POST", "/rest/v2/applications/settings/live", `{"access":{"play":{"methods":["jwt"],"jwtStreamSecretKey":"thirty-two bytes or more of a secret"}}}`); r.status != 200 {
				t.Fatal(r)
			}
			expire := time.Now().Add(time.Hour).Unix()
			made := s.ask(t, c, "GET", fmt.Sprintf("%sstage/token?expireDate=%d&type=publish&roomId=r", base, expire), "")
			token, _ := made.fields["tokenId"].(string)
			if made.status != 200 || token == "" || made.fields["streamId"] != "stage" || made.fields["expireDate"] != float64(expire) || made.fields["type"] != "publish" || made.fields["roomId"] != "r" {
				t.Errorf("the token is %d %s", made.status, made.body)
			}
			check := func(what, stream, kind, token string, want bool) {
				t.Helper()
				b, _ := json.Marshal(map[string]any{"tokenId": token, "streamId": stream, "type": kind})
				if r := s.ask(t, c, "POST", base+"validate-token", string(b)); r.status != 200 || r.fields["success"] != want {
					t.Errorf("%s: %d %s", what, r.status, r.body)
				}
			}
			check("the token", "stage", "publish", token, true)
			check("the token to play", "stage", "play", token, false)
			check("another stream's", "other", "publish", token, false)
			if r := s.ask(t, c, "GET", base+"stage/tokens/list/0/5000000", ""); r.status != 200 || strings.Count(r.body, token) != 1 {
				t.Errorf("tokens: %d %s", r.status, r.body)
			}
			if r := s.ask(t, c, "GET", base+"other/tokens/list/0/50", ""); strings.TrimSpace(r.body) != "[]" {
				t.Errorf("tokens of another stream: %s", r.body)
			}
			if r := s.ask(t, c, "GET", base+"stage/jwt-token?type=play", ""); r.status != 200 || strings.Count(fmt.Sprint(r.fields["tokenId"]), ".") != 2 {
				t.Errorf("JWT: %d %s", r.status, r.body)
			}
			if r := s.ask(t, c, "POST", base+"stage/subscribers", `{"subscriberId":"ada","subscriberName":"Ada","b32Secret":"GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ","type":"play"}`); r.fields["success"] != true {
				t.Errorf("add: %d %s", r.status, r.body)
			}
			code := s.ask(t, c, "GET", base+"stage/subscribers/ada/totp?type=play", "")
			if id, _ := code.fields["dataId"].(string); len(id) != 6 {
				t.Errorf("code: %d %s", code.status, code.body)
			}
			for _, want := range []struct {
				what, method, path, body string
				status                   int
				code                     string
			}{
				{"block", "PUT", "stage/subscribers/ada/block/60/publish_play", "", 200, ""},
				{"a block that is none", "PUT", "stage/subscribers/ada/block/60/everything", "", 422, "invalid"},
				{"a block without end", "PUT", "stage/subscribers/ada/block/99999999999/play", "", 422, "invalid"},
				{"deny a JWT", "POST", "stage/denied-tokens", fmt.Sprintf(`{"tokenId":"j1","expireDate":%d}`, expire), 200, ""},
				{"deny one that has expired", "POST", "stage/denied-tokens", `{"tokenId":"j1","expireDate":5}`, 422, "invalid"},
				{"a token of the past", "GET", "stage/token?expireDate=5&type=play", "", 422, "invalid"},
				{"a JWT without a secret", "GET", "stage/jwt-token?type=publish", "", 422, "invalid"},
				{"a bad name", "GET", "a%20b/token?type=play", "", 400, "bad_name"},
				{"a path as name", "GET", "..%2f..%2fx/token?type=play", "", 400, "bad_name"},
				{"a header in an id", "POST", "stage/subscribers", `{"subscriberId":"a\r\nX: y"}`, 422, "invalid"},
				{"an id that is too long", "POST", "stage/subscribers", `{"subscriberId":"` + strings.Repeat("x", 200) + `"}`, 422, "invalid"},
				{"a token that is none", "DELETE", "stage/tokens/nothing", "", 404, "not_found"},
				{"another stream's token", "DELETE", "other/tokens/" + token, "", 404, "not_found"},
				{"delete a token", "DELETE", "stage/tokens/" + token, "", 200, ""},
				{"delete all", "DELETE", "stage/tokens", "", 200, ""},
				{"a subscriber that is none", "DELETE", "stage/subscribers/bob", "", 404, "not_found"},
			} {
				s.ask(t, c, want.method, base+want.path, want.body).want(t, want.what, want.status, want.code)
			}
			var list []AccessSubscriber
			r := s.ask(t, c, "GET", base+"stage/subscribers/list/0/50", "")
			if err := json.Unmarshal([]byte(r.body), &list); err != nil || len(list) != 1 || list[0].SubscriberID != "ada" || list[0].BlockedType != "publish_play" ||
				list[0].BlockedUntil < time.Now().UnixMilli() || list[0].Limit != 1 || list[0].Connections != 0 {
				t.Errorf("subscribers: %d %s %v", r.status, r.body, err)
			}
			check("the deleted token", "stage", "publish", token, false)
			s.ask(t, c, "DELETE", base+"stage/subscribers/ada", "").want(t, "delete", 200, "")
			s.ask(t, c, "GET", "/"+url.PathEscape("no app")+"/rest/v2/broadcasts/stage/token", "").want(t, "an application that is none", 404, "unknown_app")

			// Secrets are not shown, and stay when what was shown is sent back.
			shown := s.ask(t, c, "GET", "/rest/v2/applications/settings/live", "")
			if strings.Contains(shown.body, "thirty-two") {
				t.Error("a secret is shown")
			}
			s.ask(t, c, "POST", "/rest/v2/applications/settings/live", shown.body).want(t, "the same settings", 200, "")
			if versions := s.ask(t, c, "GET", "/rest/v2/applications/settings/live/versions", ""); strings.Contains(versions.body, "thirty-two") {
				t.Error("a secret is shown among the versions")
			}
			s.ask(t, c, "GET", base+"stage/jwt-token?type=play", "").want(t, "the secret is still there", 200, "")
		})
	}
}
