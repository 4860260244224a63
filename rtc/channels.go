package rtc

import (
	"sync"

	"github.com/pion/webrtc/v4"

	"sluice/media"
)

// maxBuffered is how many bytes may wait on a data channel for a peer that is slow; what comes then is dropped.
const maxBuffered = 1 << 20

// channels are a session's data channels: it reads from all and writes to the one that opened last, because some
// clients open one of their own beside ours.
type channels struct {
	onMessage func(media.Message)

	mu     sync.Mutex
	open   *webrtc.DataChannel
	taken  int
	closed bool
}

// maxChannels is how many data channels of a peer are taken; each costs a buffer.
const maxChannels = 8

// add takes a channel of the peer.
func (c *channels) add(d *webrtc.DataChannel) {
	c.mu.Lock()
	c.taken++
	full := c.taken > maxChannels
	c.mu.Unlock()
	if full {
		_ = d.Close()
		return
	}
	d.OnOpen(func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.open = d
	})
	d.OnMessage(func(m webrtc.DataChannelMessage) {
		c.mu.Lock()
		closed := c.closed
		if c.open == nil {
			c.open = d // its OnOpen is still under way
		}
		c.mu.Unlock()
		if c.onMessage != nil && !closed {
			c.onMessage(media.Message{Binary: !m.IsString, Data: m.Data})
		}
	})
}

func (c *channels) send(m media.Message) {
	c.mu.Lock()
	d := c.open
	if d == nil || c.closed || d.BufferedAmount()+uint64(len(m.Data)) > maxBuffered {
		c.mu.Unlock()
		return
	}
	c.mu.Unlock()
	if m.Binary {
		_ = d.Send(m.Data) // a channel that closes meanwhile takes the session with it
	} else {
		_ = d.SendText(string(m.Data))
	}
}

func (c *channels) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
}
