package cluster

import (
	"log/slog"
	"sync"
)

// BadRows are rows that a Registry passes over because it can't read them, such as those of another version of Sluice: one of them must
// not hide all others. It says so once for each row and version.
type BadRows struct {
	log *slog.Logger

	mu   sync.Mutex
	told map[[2]string]struct{}
}

// mostTold bounds what is remembered.
const mostTold = 1000

// NewBadRows returns an empty list; log may be nil.
func NewBadRows(log *slog.Logger) *BadRows {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &BadRows{log: log, told: map[[2]string]struct{}{}}
}

// Skip notes a row. version is that of who wrote it, if it can be read.
func (b *BadRows) Skip(id, version string, why error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := b.told[[2]string{id, version}]; ok {
		return
	}
	if len(b.told) >= mostTold {
		clear(b.told)
	}
	b.told[[2]string{id, version}] = struct{}{}
	b.log.Warn("a row of the registry can't be read and is passed over: was it written by another version?", "id", id, "version", version, "error", why)
}
