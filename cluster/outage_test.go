package cluster

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestOutage(t *testing.T) {
	away := errors.New("away")
	for _, c := range []struct {
		name  string
		notes []error
		want  []string // messages of the log, those of level debug left out
	}{
		{"never", []error{nil, nil}, nil},
		{"one failure", []error{nil, away, nil, away, nil}, nil},
		{"one failure at the end", []error{nil, away}, nil},
		{"two in a row", []error{away, away, nil}, []string{"can't be reached", "is back"}},
		{"many", []error{away, away, away, away, nil, nil}, []string{"can't be reached", "is back"}},
		{"to the end", []error{nil, away, away}, []string{"can't be reached", "still away"}},
		{"twice", []error{away, away, nil, away, nil, away, away, nil}, []string{"can't be reached", "is back", "can't be reached", "is back"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var log bytes.Buffer
			synctest.Test(t, func(t *testing.T) {
				o := outage{log: slog.New(slog.NewTextHandler(&log, nil)), doing: "heartbeat"}
				for _, err := range c.notes {
					o.note(err)
					o.note(err) // another attempt at the same moment says nothing new
					<-time.After(HeartbeatEvery)
				}
				o.end()
			})
			lines := strings.Split(strings.TrimSuffix(log.String(), "\n"), "\n")
			if log.Len() == 0 {
				lines = nil
			}
			if len(lines) != len(c.want) {
				t.Fatalf("log:\n%swant %q", log.String(), c.want)
			}
			for i, want := range c.want {
				if !strings.Contains(lines[i], want) {
					t.Errorf("line %d is %q, want %q", i, lines[i], want)
				}
			}
		})
	}
}
