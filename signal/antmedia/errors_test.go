package antmedia

import (
	"fmt"
	"testing"

	"sluice/ingest/relay"
)

// TestRefuseUnreachable: a stream that is live but can't be had is not told as one that is not live.
func TestRefuseUnreachable(t *testing.T) {
	r, known := refuse(fmt.Errorf("play: %w", relay.ErrUnreachable))
	if !known || r.definition != highResource {
		t.Errorf("%+v, known %v", r, known)
	}
}
