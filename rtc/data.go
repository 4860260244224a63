package rtc

import (
	"io"
	"sync"

	"github.com/pion/datachannel"
	"github.com/pion/dtls/v3"
	"github.com/pion/sctp"

	"sluice/media"
)

// maxMessage is the largest message of a data channel that is taken, in bytes.
const maxMessage = 256 << 10

// wantsData reports whether the session has a data channel's line.
func (v *Sender) wantsData() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.options.Data || v.dataLine
}

// runData runs SCTP (RFC 8831) until the session ends: it reads from all channels, and writes to the
// one that opened last, because some clients open one of their own beside ours.
func (v *Sender) runData(conn *dtls.Conn) {
	association, err := sctp.Client(sctp.Config{NetConn: conn, LoggerFactory: v.group.endpoint.logging, MaxMessageSize: maxMessage})
	if err != nil {
		v.fail(ErrDisconnected)
		return
	}
	var reading sync.WaitGroup
	defer reading.Wait()
	defer association.Close()
	var own []*datachannel.DataChannel
	if v.options.Data {
		// RFC 8832 §6: the DTLS server opens streams of odd numbers.
		d, err := datachannel.Dial(association, 1, &datachannel.Config{ChannelType: datachannel.ChannelTypeReliable, Label: v.options.Label, LoggerFactory: v.group.endpoint.logging})
		if err == nil {
			own = append(own, d)
			v.sctp.open(d)
			reading.Go(func() { v.readChannel(d) })
		}
	}
	for taken := 0; ; {
		d, err := datachannel.Accept(association, &datachannel.Config{LoggerFactory: v.group.endpoint.logging}, own...)
		if err != nil {
			break
		}
		if taken++; taken > maxChannels {
			_ = d.Close()
			continue
		}
		v.sctp.open(d)
		reading.Go(func() { v.readChannel(d) })
	}
	v.sctp.open(nil)
	v.fail(ErrDisconnected) // unless it was us who ended it
}

func (v *Sender) readChannel(d *datachannel.DataChannel) {
	buf := make([]byte, maxMessage)
	for {
		n, text, err := d.ReadDataChannel(buf)
		if err != nil {
			if err != io.EOF {
				_ = d.Close()
			}
			return
		}
		if f := v.options.Events.OnMessage; f != nil {
			f(media.Message{Binary: !text, Data: append([]byte(nil), buf[:n]...)})
		}
	}
}

// outlet is where messages to the peer go.
type outlet struct {
	mu      sync.Mutex
	channel *datachannel.DataChannel
}

func (o *outlet) open(d *datachannel.DataChannel) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.channel = d
}

// send never blocks: SCTP queues.
func (o *outlet) send(m media.Message) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.channel == nil || o.channel.BufferedAmount()+uint64(len(m.Data)) > maxBuffered {
		return
	}
	_, _ = o.channel.WriteDataChannel(m.Data, !m.Binary) // a channel that closes meanwhile takes the session with it
}
