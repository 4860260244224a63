package api

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"sluice/internal/auth"
)

// junk is what people and programs put where a name, a number or a time should be.
var junk = []string{"", "0", "-1", "1", "99999999999999999999", "1e9", "NaN", "true", "null", "live", "camera", "edge-1", "root", "..", "../../etc/passwd", "%2e%2e%2f", "a/b", "a b", "\x00", "\n",
	"é", "\xff\xfe", "日本語", "'; DROP TABLE documents; --", `{"$ne":null}`, "$where", "<script>", "{{.}}", "${jndi:ldap://x}", "*", "~backup", "a~made~b", ".", "count", "list", "settings", "2026-11-22T10:00:00Z", "asc"}

// generator makes requests from the OpenAPI document.
type generator struct {
	*rand.Rand
	schemas huma.Registry
}

func (g generator) junk() string {
	if g.IntN(20) == 0 {
		return strings.Repeat("A", 1+g.IntN(3000))
	}
	return junk[g.IntN(len(junk))]
}

// value is one for a schema, which it mostly fits.
func (g generator) value(s *huma.Schema, depth int) any {
	if s != nil && s.Ref != "" {
		s = g.schemas.SchemaFromRef(s.Ref)
	}
	if s == nil || depth > 5 || g.IntN(8) == 0 {
		return []any{nil, g.junk(), g.IntN(1000) - 500, g.Float64() * 1e20, []any{}, map[string]any{}, true}[g.IntN(7)]
	}
	switch {
	case len(s.Enum) > 0 && g.IntN(3) > 0:
		return s.Enum[g.IntN(len(s.Enum))]
	case s.Type == huma.TypeObject:
		m := map[string]any{}
		for name, p := range s.Properties {
			if g.IntN(3) > 0 {
				m[name] = g.value(p, depth+1)
			}
		}
		if g.IntN(4) == 0 {
			m[g.junk()] = g.junk()
		}
		return m
	case s.Type == huma.TypeArray:
		list := []any{}
		for range g.IntN(5) {
			list = append(list, g.value(s.Items, depth+1))
		}
		return list
	case s.Type == huma.TypeInteger, s.Type == huma.TypeNumber:
		return []any{0, 1, -1, 50, int64(1) << 62, 1.5}[g.IntN(6)]
	case s.Type == huma.TypeBoolean:
		return g.IntN(2) == 0
	}
	return g.junk()
}

// request is one for an operation.
func (g generator) request(op *huma.Operation) (path, body string) {
	path = op.Path
	query := url.Values{}
	for _, p := range op.Parameters {
		v := fmt.Sprint(g.value(p.Schema, 0))
		switch {
		case p.In == "path":
			if v == "" || v == "." || v == ".." {
				v = "x"
			}
			if p.Name == "app" && g.IntN(3) > 0 {
				v = "live"
			}
			path = strings.ReplaceAll(path, "{"+p.Name+"}", url.PathEscape(v))
		case p.In == "query" && g.IntN(2) == 0:
			query.Set(p.Name, v)
		}
	}
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	if op.RequestBody != nil {
		b, err := json.Marshal(g.value(op.RequestBody.Content["application/json"].Schema, 0))
		if body = string(b); err != nil || g.IntN(10) == 0 {
			body = g.junk() + body
		}
	}
	return path, body
}

// TestJunk: whatever comes, the answer is no fault of the server, and none takes long.
func TestJunk(t *testing.T) {
	for _, st := range stores {
		t.Run(st.name, func(t *testing.T) {
			t.Parallel()
			each := 50 // of an operation
			if st.name == "mongodb" {
				each = 10 // it takes longer
			}
			s := newServer(t, st.open(t)(t))
			s.add(t, auth.Account{Name: "root", Role: auth.Administrator})
			s.stage(t)
			root, _ := s.key(t, auth.KeyInfo{Name: "root"})
			g := generator{rand.New(rand.NewPCG(1, 2)), s.huma.OpenAPI().Components.Schemas}
			answers := map[int]int{}
			for _, op := range everyOperation(s.API) {
				if op.OperationID == "getEvents" { // it does not end
					continue
				}
				s.deps.Live.Forget()
				s.beat(t)
				for range each {
					path, body := g.request(op)
					if strings.ContainsAny(path, "\x00\n ") {
						continue // no such request line can be sent
					}
					began := time.Now()
					got := s.ask(t, root, op.Method, path, body, func(r *http.Request) { r.RemoteAddr = fmt.Sprintf("10.%d.%d.1:1", g.IntN(250), g.IntN(250)) })
					answers[got.status/100]++
					if got.status >= 500 {
						t.Errorf("%s %q with %.300q: %d %.300s", op.Method, path, body, got.status, got.body)
					}
					if took := time.Since(began); took > 2*time.Second+lateness {
						t.Errorf("%s %q takes %s", op.Method, path, took)
					}
				}
				if op.OperationID == "deleteApplication" { // for the operations that follow
					_ = s.deps.Settings.AddApp(t.Context(), "live", "root") // it may be there still
				}
			}
			if answers[2] < 100 || answers[4] < 100 {
				t.Errorf("the answers are %v: the requests are too much alike", answers)
			}
			t.Log("answers by hundreds", answers)
			if apps := s.deps.Settings.Apps(); !slices.Contains(apps, "live") {
				t.Errorf("the applications are %q", apps)
			}
		})
	}
}
