package cluster

import (
	"context"
	"fmt"
	"time"

	"sluice/media"
)

const (
	// CountEvery is how old a count of viewers gets.
	CountEvery = 10 * time.Second
	// countPause is the least time between two counts, however many streams are asked about for the first time.
	countPause = 100 * time.Millisecond
)

// counted is the viewers of a stream.
type counted struct {
	viewers      int
	tried, asked time.Time // when the registry was asked last, and when somebody asked here
}

// Viewers is how many watch a stream, on all nodes. The registry adds that up at most every CountEvery, for all streams that are
// asked about here, in one query, and is left alone as long after a failure. With an error comes what was known last.
func (d *Directory) Viewers(ctx context.Context, key media.Key) (int, error) {
	if c := d.counted(key); time.Since(c.tried) < CountEvery {
		return c.viewers, nil
	}
	var err error
	select {
	case d.counting <- struct{}{}:
		defer func() { <-d.counting }()
		select {
		case <-time.After(countPause - time.Since(d.countedAt)):
		case <-ctx.Done():
		}
		if c := d.counted(key); time.Since(c.tried) < CountEvery { // somebody else has counted
			return c.viewers, nil
		}
		err = d.count(ctx)
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		err = fmt.Errorf("count the viewers of stream %q: %w", key, err)
	}
	return d.counted(key).viewers, err
}

// counted is what is known, and notes that somebody asks.
func (d *Directory) counted(key media.Key) counted {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := d.counts[key]
	c.asked = time.Now()
	d.counts[key] = c
	return c
}

// count asks for the viewers of the streams that somebody has asked about lately.
func (d *Directory) count(ctx context.Context) error {
	now := time.Now()
	d.countedAt = now
	d.mu.Lock()
	for key, c := range d.counts {
		if now.Sub(c.asked) > 2*CountEvery {
			delete(d.counts, key)
		}
	}
	of := keys(d.counts)
	d.mu.Unlock()
	viewers, err := d.reg.Viewers(ctx, of...)
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, key := range of {
		c := d.counts[key]
		if c.tried = now; err == nil {
			c.viewers = viewers[key]
		}
		d.counts[key] = c
	}
	return err
}
