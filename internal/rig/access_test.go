package rig

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/golang-jwt/jwt/v5"
	"github.com/pion/webrtc/v4"

	"sluice/internal/access"
	"sluice/internal/settings"
	"sluice/media"
)

const (
	rigSecret = "thirty-two bytes or more of a secret"
	rigBase32 = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"
)

// accessRig is a cluster of three nodes with rules, and what a test needs to come in by every way.
type accessRig struct {
	*Cluster
	t      *testing.T
	guard  *access.Guard // of nobody's node: an operator who asks a node that is not there
	rule   access.Rule
	set    func(edit func(*settings.App))
	client *http.Client
	offers map[access.Action]string
}

func newAccessRig(t *testing.T) *accessRig {
	t.Helper()
	r := &accessRig{t: t, client: &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}},
		rule: access.Rule{Methods: []string{access.Token, access.JWT, access.Hash, access.TOTP}, JWTSecret: rigSecret, HashSecret: rigSecret}, offers: map[access.Action]string{}}
	r.Cluster = Start(t, Options{})
	reg := r.options.Store.Open(t)
	t.Cleanup(func() { _ = reg.Close() })
	r.guard = access.New(reg, access.Config{})
	store, err := settings.New(reg, settings.Config{Apps: []string{"live"}})
	if err != nil {
		t.Fatal(err)
	}
	r.set = func(edit func(*settings.App)) {
		t.Helper()
		if _, err := store.SetApp(t.Context(), "live", settings.Change{By: "t", Version: -1}, func(a *settings.App) error {
			a.ViewerLimit, a.PlayoutDelay = -1, "100ms"
			edit(a)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	r.set(func(a *settings.App) {
		a.Access = settings.Access{Publish: settings.AccessRule(r.rule), Play: settings.AccessRule(r.rule)}
	})
	for do, direction := range map[access.Action]webrtc.RTPTransceiverDirection{access.Publish: webrtc.RTPTransceiverDirectionSendonly, access.Play: webrtc.RTPTransceiverDirectionRecvonly} {
		pc, err := webrtc.NewPeerConnection(webrtc.Configuration{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = pc.Close() })
		if _, err := pc.AddTransceiverFromKind(webrtc.RTPCodecTypeVideo, webrtc.RTPTransceiverInit{Direction: direction}); err != nil {
			t.Fatal(err)
		}
		o, err := pc.CreateOffer(nil)
		if err != nil {
			t.Fatal(err)
		}
		r.offers[do] = o.SDP
	}
	for _, do := range []access.Action{access.Publish, access.Play} { // every node knows
		for _, id := range []string{"origin-1", "edge-1", "edge-2"} {
			if id != "origin-1" && do == access.Publish {
				continue
			}
			r.Poll(5*time.Second, func() error {
				if got, _ := r.post("http://"+r.Node(id).HTTPAddr(), do, "ruled", credentials{}); got != "unauthorized" {
					return fmt.Errorf("%s lets everybody %s: %s", id, do, got)
				}
				return nil
			})
		}
	}
	return r
}

// credentials are what somebody shows.
type credentials struct{ token, subscriber, code string }

// good makes credentials, and what revokes them.
func (r *accessRig) good(method string, do access.Action, stream string, expires time.Duration) (c credentials, revoke func() error) {
	r.t.Helper()
	ctx, key, at := r.t.Context(), media.Key{App: "live", ID: stream}, time.Now().Add(expires)
	must := func(err error) {
		r.t.Helper()
		if err != nil {
			r.t.Fatal(method, err)
		}
	}
	switch method {
	case access.Token:
		tok, err := r.guard.AddToken(ctx, key, do, "", at)
		must(err)
		return credentials{token: tok.ID}, func() error { return r.guard.DeleteToken(ctx, key, tok.ID) }
	case access.JWT:
		id := stream + string(do) + at.String()
		tok, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{"streamId": stream, "type": do, "exp": at.Unix(), "jti": id}).SignedString([]byte(rigSecret))
		must(err)
		return credentials{token: tok}, func() error { return r.guard.DenyJWT(ctx, "live", id, at) }
	case access.Hash:
		return credentials{token: access.HashOf(r.rule, stream, do)}, nil
	}
	must(r.guard.AddSubscriber(ctx, key, access.Subscriber{ID: "ada", Secret: rigBase32, Limit: -1}))
	code, err := r.guard.Code(ctx, r.rule, key, "ada", do)
	must(err)
	return credentials{subscriber: "ada", code: code}, func() error { return r.guard.Block(ctx, key, "ada", access.BlockBoth, time.Hour) }
}

// post comes by WHIP or WHEP with a query, or a header where there is a token; it returns the problem's code, or "" and the session.
func (r *accessRig) post(base string, do access.Action, stream string, c credentials) (code, session string) {
	r.t.Helper()
	way := map[access.Action]string{access.Publish: "whip", access.Play: "whep"}[do]
	url := fmt.Sprintf("%s/live/%s/%s?subscriberId=%s&subscriberCode=%s", base, way, stream, c.subscriber, c.code)
	req, err := http.NewRequestWithContext(r.t.Context(), http.MethodPost, url, strings.NewReader(r.offers[do]))
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/sdp")
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	res, err := r.client.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode == http.StatusCreated {
		_, _ = io.Copy(io.Discard, res.Body)
		return "", base + res.Header.Get("Location")
	}
	var p struct{ Code string }
	if err := json.NewDecoder(res.Body).Decode(&p); err != nil {
		r.t.Fatalf("%s: %d %v", url, res.StatusCode, err)
	}
	return p.Code, ""
}

// socket comes by the WebSocket; it returns the definition of the error, or "" and what reads the next messages.
func (r *accessRig) socket(base string, do access.Action, stream string, c credentials) (definition string, next func() map[string]any) {
	r.t.Helper()
	ws, _, err := websocket.Dial(r.t.Context(), strings.Replace(base, "http", "ws", 1)+"/live/websocket", &websocket.DialOptions{HTTPClient: r.client})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = ws.CloseNow() })
	send := func(m map[string]any) {
		b, _ := json.Marshal(m)
		if err := ws.Write(r.t.Context(), websocket.MessageText, b); err != nil {
			r.t.Fatal(err)
		}
	}
	next = func() (m map[string]any) {
		ctx, cancel := context.WithTimeout(r.t.Context(), 10*time.Second)
		defer cancel()
		_, b, err := ws.Read(ctx)
		if err == nil {
			err = json.Unmarshal(b, &m)
		}
		if err != nil {
			r.t.Fatal(err)
		}
		return m
	}
	send(map[string]any{"command": string(do), "streamId": stream, "token": c.token, "subscriberId": c.subscriber, "subscriberCode": c.code})
	m := next()
	if m["command"] == "error" {
		return m["definition"].(string), next
	}
	if do == access.Publish {
		send(map[string]any{"command": "takeConfiguration", "streamId": stream, "type": "offer", "sdp": r.offers[do]})
		if m = next(); m["command"] == "error" {
			return m["definition"].(string), next
		}
	}
	return "", next
}

func (r *accessRig) base(do access.Action) string {
	if do == access.Publish {
		return "https://" + r.gateway.PublishAddr().String()
	}
	return "https://" + r.gateway.PlayAddr().String()
}

// TestAccessMatrix: every way in and out, by every method, at the gateway.
func TestAccessMatrix(t *testing.T) {
	r := newAccessRig(t)
	hash, _ := r.good(access.Hash, access.Publish, "stage", 0)
	if _, err := r.publishTo(r.PublishURL(media.Key{App: "live", ID: "stage"}) + "?token=" + hash.token); err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, do := range []access.Action{access.Publish, access.Play} {
		for _, method := range r.rule.Methods {
			for _, state := range []string{"allowed", "denied", "expired", "revoked"} {
				for _, ws := range []bool{false, true} {
					n++
					stream := "stage"
					if do == access.Publish {
						stream = fmt.Sprintf("s%d", n)
					}
					want := map[string][2]string{"allowed": {}, "denied": {"forbidden", "unauthorized_access"}, "expired": {"unauthorized", "unauthorized_access"}, "revoked": {"unauthorized", "unauthorized_access"}}[state]
					life, of := time.Hour, stream
					switch {
					case state == "denied":
						of = "another"
						if method == access.Hash || method == access.TOTP { // which can't be told from wrong ones
							want[0] = "unauthorized"
						}
					case state == "expired" && method == access.JWT:
						life = -time.Hour
					case state == "expired" && method == access.Token:
						life = 200 * time.Millisecond
					case method == access.Hash && (state == "expired" || state == "revoked"):
						continue // it holds as long as its secret
					}
					c, revoke := r.good(method, do, of, life)
					switch {
					case state == "expired" && method == access.Token:
						<-time.After(life + 50*time.Millisecond) // its time passes
					case state == "expired" && method == access.TOTP:
						c.code = "000000" // as wrong as an old one
					case state == "denied" && method == access.TOTP:
						c.subscriber = "bob"
					case state == "revoked":
						if err := revoke(); err != nil {
							t.Fatal(err)
						}
						if method == access.TOTP {
							want = [2]string{"user_blocked", "user_blocked"}
						}
						if method == access.JWT { // nodes know within two seconds
							r.Poll(3*time.Second, func() error {
								if got, _ := r.post(r.base(do), do, stream, c); got != "unauthorized" {
									return fmt.Errorf("a denied JWT: %s", got)
								}
								return nil
							})
						}
					}
					got, expected := "", want[0]
					if ws {
						expected = want[1]
						got, _ = r.socket(r.base(do), do, stream, c)
					} else {
						got, _ = r.post(r.base(do), do, stream, c)
					}
					if got != expected {
						t.Errorf("%s by %s, %s, websocket %v: %q, want %q", do, method, state, ws, got, expected)
					}
					if state == "revoked" && method == access.TOTP { // he may come again
						if err := r.guard.Block(t.Context(), media.Key{App: "live", ID: of}, "ada", access.BlockBoth, 0); err != nil {
							t.Fatal(err)
						}
					}
				}
			}
		}
	}
}

// TestRevokingEndsSessions: what is revoked ends what runs, on every node, within two seconds, and nothing else.
func TestRevokingEndsSessions(t *testing.T) {
	r := newAccessRig(t)
	key := media.Key{App: "live", ID: "stage"}
	hash, _ := r.good(access.Hash, access.Publish, "stage", 0)
	p, err := r.publishTo(r.PublishURL(key) + "?token=" + hash.token)
	if err != nil {
		t.Fatal(err)
	}
	gone := func(session string) error {
		res, err := r.client.Get(session)
		if err != nil {
			return err
		}
		_ = res.Body.Close()
		if res.StatusCode != http.StatusNotFound {
			return fmt.Errorf("session %s: %d", session, res.StatusCode)
		}
		return nil
	}
	stays, _ := r.good(access.Hash, access.Play, "stage", 0)
	code, kept := "", ""
	for _, id := range []string{"edge-2", "edge-1"} { // the stream is there
		r.Poll(5*time.Second, func() error {
			if code, kept = r.post("http://"+r.Node(id).HTTPAddr(), access.Play, "stage", stays); code != "" {
				return fmt.Errorf("%s: %s", id, code)
			}
			return nil
		})
	}
	for _, method := range []string{access.Token, access.JWT, access.TOTP} {
		c, revoke := r.good(method, access.Play, "stage", time.Hour)
		nodes := []string{"origin-1", "edge-1", "edge-2"}
		if method == access.Token {
			nodes = nodes[2:]
		}
		sessions := map[string]string{}
		for _, id := range nodes {
			code, session := r.post("http://"+r.Node(id).HTTPAddr(), access.Play, "stage", c)
			if code != "" {
				t.Fatalf("%s at %s: %s", method, id, code)
			}
			sessions[id] = session
		}
		var next func() map[string]any
		if method != access.Token {
			if code, next = r.socket("http://"+r.Node("edge-2").HTTPAddr(), access.Play, "stage", c); code != "" {
				t.Fatal(code)
			}
		}
		began := time.Now()
		if err := revoke(); err != nil {
			t.Fatal(err)
		}
		for _, session := range sessions {
			r.Poll(5*time.Second, func() error { return gone(session) })
		}
		if next != nil {
			want := map[string]string{access.JWT: "unauthorized_access", access.TOTP: "user_blocked"}[method]
			for m := next(); m["definition"] != want; m = next() {
				if m["definition"] == "play_finished" {
					t.Errorf("%s: a session ended without %s", method, want)
					break
				}
			}
		}
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("%s: the last session ended after %s", method, took)
		} else {
			t.Logf("%s: %d sessions ended within %s", method, len(sessions), took.Round(time.Millisecond))
		}
	}
	if gone(kept) == nil {
		t.Error("a session ended that nobody has revoked")
	}
	began := time.Now()
	r.set(func(a *settings.App) { // a new secret: hashes are void, the publisher's too
		rule := r.rule
		rule.HashSecret = strings.Repeat("x", 32)
		a.Access = settings.Access{Publish: settings.AccessRule(rule), Play: settings.AccessRule(rule)}
	})
	r.Poll(5*time.Second, func() error { return gone(kept) })
	r.Poll(10*time.Second, func() error {
		if i, ok := r.Node("origin-1").Hub().Info(key); ok && i.Flowing {
			return fmt.Errorf("the stream flows on, %d frames", p.Frames())
		}
		return nil
	})
	t.Logf("after a new secret all had ended within %s", time.Since(began).Round(time.Millisecond))
}
