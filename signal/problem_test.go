package signal_test

import (
	"errors"
	"fmt"
	"testing"

	"sluice/ingest/relay"
	"sluice/internal/problem"
	"sluice/signal"
	"sluice/stream"
)

func TestProblemOf(t *testing.T) {
	for _, c := range []struct {
		name string
		err  error
		want problem.Code
	}{
		{"nobody publishes", stream.ErrOffline, problem.StreamOffline},
		{"the origin is out of reach", fmt.Errorf("pull: %w", relay.ErrUnreachable), problem.OriginUnreachable},
		{"not foreseen", errors.New("disk on fire"), problem.Internal},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := signal.ProblemOf(c.err).Code; got != c.want {
				t.Errorf("code %v, want %v", got, c.want)
			}
		})
	}
}
