package settings

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/cluster"
	"sluice/cluster/memory"
	"sluice/cluster/sqlite"
)

var stores = []struct {
	name string
	open func(*testing.T) func() cluster.Store
}{
	{"memory", func(*testing.T) func() cluster.Store {
		s := memory.NewStore(time.Now)
		return func() cluster.Store { return s.Open() }
	}},
	{"sqlite", func(t *testing.T) func() cluster.Store {
		path := filepath.Join(t.TempDir(), "s.db")
		return func() cluster.Store {
			s, err := sqlite.Open(t.Context(), path)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = s.Close() })
			return s
		}
	}},
}

func newStore(t *testing.T, docs cluster.Documents) *Store {
	t.Helper()
	s, err := New(docs, Config{Apps: []string{"live", "WebRTCAppEE"}, Log: slog.New(slog.DiscardHandler),
		Defaults: App{PlayoutDelay: "100ms", ViewerLimit: -1, Ladder: Ladder{Rungs: []string{"480p:800k"}}},
		Check: func(a App) error {
			if slices.Contains(a.Ladder.Rungs, "bad") {
				return errors.New("rungs: bad is no rung")
			}
			return nil
		}})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func load(t *testing.T, s *Store) {
	t.Helper()
	if err := s.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestAppsComeAndGo(t *testing.T) {
	for _, st := range stores {
		t.Run(st.name, func(t *testing.T) {
			open := st.open(t)
			s, other := newStore(t, open()), newStore(t, open())
			want := func(names ...string) {
				t.Helper()
				load(t, other)
				if !slices.Equal(s.Apps(), names) || !slices.Equal(other.Apps(), names) {
					t.Errorf("applications are %v, and %v at another node; want %v", s.Apps(), other.Apps(), names)
				}
			}
			want("WebRTCAppEE", "live")
			for _, step := range []struct {
				name string
				do   func() error
				err  error
				want []string
			}{
				{"make", func() error { return s.AddApp(t.Context(), "stage", "ada") }, nil, []string{"WebRTCAppEE", "live", "stage"}},
				{"make again", func() error { return other.AddApp(t.Context(), "stage", "ada") }, ErrAppExists, []string{"WebRTCAppEE", "live", "stage"}},
				{"make one of the first", func() error { return s.AddApp(t.Context(), "live", "ada") }, ErrAppExists, []string{"WebRTCAppEE", "live", "stage"}},
				{"delete one of the first", func() error { return other.RemoveApp(t.Context(), "live", "ada") }, nil, nil},
				{"delete it again", func() error { load(t, s); return s.RemoveApp(t.Context(), "live", "ada") }, ErrNoApp, []string{"WebRTCAppEE", "stage"}},
				{"make it again", func() error { return s.AddApp(t.Context(), "live", "ada") }, nil, []string{"WebRTCAppEE", "live", "stage"}},
				{"delete", func() error { return s.RemoveApp(t.Context(), "stage", "ada") }, nil, []string{"WebRTCAppEE", "live"}},
				{"settings of none", func() error {
					_, err := s.SetApp(t.Context(), "stage", Change{Version: -1}, func(*App) error { return nil })
					return err
				}, ErrNoApp, []string{"WebRTCAppEE", "live"}},
				{"versions of none", func() error { _, err := s.AppVersions(t.Context(), "nosuch"); return err }, ErrNoApp, []string{"WebRTCAppEE", "live"}},
				{"a path", func() error { return s.AddApp(t.Context(), "../x", "ada") }, ErrBad, []string{"WebRTCAppEE", "live"}},
				{"an address of ours", func() error { return s.AddApp(t.Context(), "Rest", "ada") }, ErrBad, []string{"WebRTCAppEE", "live"}},
				{"too long", func() error { return s.AddApp(t.Context(), strings.Repeat("a", 33), "ada") }, ErrBad, []string{"WebRTCAppEE", "live"}},
			} {
				if err := step.do(); !errors.Is(err, step.err) {
					t.Errorf("%s: %v, want %v", step.name, err, step.err)
				}
				if step.want != nil {
					want(step.want...)
				}
			}
		})
	}
}

func TestVersions(t *testing.T) {
	for _, st := range stores {
		t.Run(st.name, func(t *testing.T) {
			open := st.open(t)
			s, other := newStore(t, open()), newStore(t, open())
			told := 0
			s.OnChange(func() { told++ })
			delay := func(d string) func(*App) error {
				return func(a *App) error { a.PlayoutDelay = d; return nil }
			}
			set := func(s *Store, version int, d string) (Version[App], error) {
				return s.SetApp(t.Context(), "live", Change{By: "ada", Version: version}, delay(d))
			}
			if v, err := set(s, 0, "200ms"); err != nil || v.Number != 1 || v.By != "ada" || v.Settings.PlayoutDelay != "200ms" || v.Settings.Ladder.Rungs[0] != "480p:800k" || told != 1 {
				t.Fatalf("the first change is %+v, %v; told %d times", v, err, told)
			}
			if _, err := set(other, 0, "300ms"); !errors.Is(err, ErrChanged) {
				t.Errorf("a change of an old version: %v", err)
			}
			if v, err := set(other, 1, "200ms"); err != nil || v.Number != 1 {
				t.Errorf("a change of nothing is %+v, %v", v, err)
			}
			if v, err := set(other, 1, "300ms"); err != nil || v.Number != 2 {
				t.Errorf("the second change is %+v, %v", v, err)
			}
			if _, err := s.SetApp(t.Context(), "live", Change{Version: -1}, func(a *App) error { a.Ladder.Rungs = []string{"bad"}; return nil }); !errors.Is(err, ErrBad) {
				t.Errorf("a bad rung: %v", err)
			}
			for _, origin := range []string{"example.com", "https://example.com/", "javascript:alert(1)", "https://a@example.com", "*"} {
				if _, err := s.SetApp(t.Context(), "live", Change{Version: -1}, func(a *App) error { a.Origins = []string{origin}; return nil }); !errors.Is(err, ErrBad) {
					t.Errorf("origin %q: %v", origin, err)
				}
			}
			if _, err := s.SetApp(t.Context(), "live", Change{Version: -1}, func(a *App) error {
				a.Origins = slices.Repeat([]string{"https://" + strings.Repeat("a", 200)}, 200)
				return nil
			}); !errors.Is(err, ErrBad) {
				t.Errorf("settings that are too large: %v", err)
			}
			v, err := s.RollBackApp(t.Context(), "live", "bob", 1)
			if err != nil || v.Number != 3 || v.By != "bob" || v.Note != "roll-back to version 1" || v.Settings.PlayoutDelay != "200ms" {
				t.Errorf("the roll-back is %+v, %v", v, err)
			}
			if v, err := s.RollBackApp(t.Context(), "live", "bob", 0); err != nil || v.Settings.PlayoutDelay != "100ms" {
				t.Errorf("the roll-back to the beginning is %+v, %v", v, err)
			}
			if _, err := s.RollBackApp(t.Context(), "live", "bob", 99); !errors.Is(err, ErrNoVersion) {
				t.Errorf("a roll-back to what never was: %v", err)
			}
			for i := range maxKept {
				if _, err := set(s, -1, fmt.Sprintf("%dms", 500+i)); err != nil {
					t.Fatal(err)
				}
			}
			all, err := other.AppVersions(t.Context(), "live")
			if err != nil || len(all) != maxKept || all[0].Number != maxKept+4 || all[0].Settings.PlayoutDelay != "549ms" || all[len(all)-1].Number != 5 {
				t.Errorf("%d versions are kept, %v", len(all), err)
			}
			load(t, other)
			if a, ok := other.App("live"); !ok || a.PlayoutDelay != "549ms" {
				t.Errorf("the other node has %+v", a)
			}
			if a, _ := other.App("WebRTCAppEE"); a.PlayoutDelay != "100ms" {
				t.Errorf("another application has %+v", a)
			}
		})
	}
}

func TestClusterSettings(t *testing.T) {
	s := newStore(t, memory.NewStore(time.Now).Open())
	v, err := s.SetCluster(t.Context(), Change{By: "ada", Version: -1}, func(c *Cluster) error { c.ServerName = "stage"; return nil })
	if err != nil || v.Number != 1 || s.Cluster().ServerName != "stage" {
		t.Errorf("the change is %+v, %v; it is %+v", v, err, s.Cluster())
	}
	if _, err := s.SetCluster(t.Context(), Change{Version: -1}, func(c *Cluster) error { c.LogLevel = "loud"; return nil }); !errors.Is(err, ErrBad) {
		t.Errorf("a bad level: %v", err)
	}
	if v, err := s.RollBackCluster(t.Context(), "ada", 0); err != nil || v.Settings.ServerName != "" || s.Cluster().ServerName != "" {
		t.Errorf("the roll-back is %+v, %v", v, err)
	}
}

// Several change the same settings at once: no change is lost.
func TestConcurrentChanges(t *testing.T) {
	m := memory.NewStore(time.Now)
	var wg sync.WaitGroup
	for i := range 4 {
		s := newStore(t, m.Open())
		wg.Go(func() {
			_, err := s.SetApp(t.Context(), "live", Change{Version: -1}, func(a *App) error {
				a.Origins = append(slices.Clone(a.Origins), fmt.Sprintf("https://%d.example", i))
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	s := newStore(t, m.Open())
	load(t, s)
	if a, _ := s.App("live"); len(a.Origins) != 4 || !a.Allows("https://3.EXAMPLE") || a.Allows("https://9.example") || !a.Allows("") {
		t.Errorf("of four changes there are %v", a.Origins)
	}
}

// A document that nobody can read, and a registry that is away, leave what was known.
func TestKeepsWhatItKnows(t *testing.T) {
	reg := memory.NewStore(time.Now).Open()
	s := newStore(t, reg)
	if _, err := s.SetApp(t.Context(), "live", Change{Version: -1}, func(a *App) error { a.PlayoutDelay = "1s"; return nil }); err != nil {
		t.Fatal(err)
	}
	d, err := reg.Get(t.Context(), Kind, "live", appDocument)
	if err != nil {
		t.Fatal(err)
	}
	d.Body = []byte(`{"versions":[{"version":9,"settings":{"playoutDelay":5}}]}`)
	if _, err := reg.Put(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	load(t, s)
	if a, ok := s.App("live"); !ok || a.PlayoutDelay != "1s" {
		t.Errorf("the settings are %+v", a)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := reg.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Load(ended); err == nil {
		t.Error("a closed registry can be read")
	}
	if _, err := s.SetApp(ended, "live", Change{Version: -1}, func(*App) error { return nil }); !errors.Is(err, ErrUnavailable) {
		t.Errorf("a change without the registry: %v", err)
	}
	if a, ok := s.App("live"); !ok || a.PlayoutDelay != "1s" {
		t.Errorf("without the registry the settings are %+v", a)
	}
}
