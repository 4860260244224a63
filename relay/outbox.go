package relay

import (
	"context"
	"io"
	"sync"
)

// What an Outbox holds at most. Messages, and what is asked or told again anyway, are dropped when
// it is full; Put says so, and the caller counts.
const (
	outboxFrames = 256
	outboxBytes  = 1 << 20
)

// Outbox is the queue of control frames that wait to be written.
type Outbox struct {
	wake chan struct{}

	mu     sync.Mutex
	frames []Frame
	bytes  int // of the messages in it
	closed bool
}

// NewOutbox returns an empty outbox.
func NewOutbox() *Outbox { return &Outbox{wake: make(chan struct{}, 1)} }

// Put adds a frame. It never blocks, and reports whether there was room. A message's data must not change after.
func (o *Outbox) Put(f Frame) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	size := 0
	switch f := f.(type) {
	case Message:
		size = len(f.Data)
		if len(o.frames) >= outboxFrames || o.bytes+size > outboxBytes || size > MaxMessage {
			return false
		}
	case KeyFrameRequest, Below, Ping:
		if len(o.frames) >= outboxFrames {
			return false
		}
	}
	if o.closed {
		return false
	}
	o.frames = append(o.frames, f)
	o.bytes += size
	o.signal()
	return true
}

// Close lets Run return once it has written what is in the outbox.
func (o *Outbox) Close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
	o.signal()
}

func (o *Outbox) signal() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// Run writes frames as they come, until Close, an error or the end of ctx.
func (o *Outbox) Run(ctx context.Context, w io.Writer) error {
	var buf []byte
	for {
		o.mu.Lock()
		frames, closed := o.frames, o.closed
		o.frames, o.bytes = nil, 0
		o.mu.Unlock()
		buf = buf[:0]
		for _, f := range frames {
			buf = AppendFrame(buf, f)
		}
		if len(buf) > 0 {
			if _, err := w.Write(buf); err != nil {
				return err
			}
			if cap(buf) > outboxBytes/4 {
				buf = nil
			}
			continue
		}
		if closed {
			return nil
		}
		select {
		case <-o.wake:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
