package rtc

import (
	"errors"
	"io"
	"sync"
	"sync/atomic"

	"github.com/pion/datachannel"
	"github.com/pion/dtls/v3"
	"github.com/pion/sctp"

	"sluice/media"
)

// maxBuffered is how many bytes may wait on a data channel for a peer that is slow; what comes then is dropped.
const maxBuffered = 1 << 20

// maxChannels is how many data channels of a peer are taken; each costs a buffer of smallMessage.
const maxChannels = 8

// Sizes of a data channel's messages, in bytes.
const (
	maxMessage   = 64 << 10 // the largest that is taken, or sent: what a description without a limit means, too (RFC 8841 §6.1)
	smallMessage = 2 << 10  // those up to this need no buffer of their own
)

// wantsData reports whether the session has a data channel's line.
func (s *session) wantsData() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.data || s.dataLine
}

// runData runs SCTP (RFC 8831) until the session ends: it reads from all channels, and writes to the
// one that opened last, because some clients open one of their own beside ours.
func (s *session) runData(conn *dtls.Conn) {
	road := &farewell{Conn: conn}
	defer func() { s.fail(road.reason()) }() // unless it was us who ended it
	association, err := sctp.Client(sctp.Config{NetConn: road, LoggerFactory: s.endpoint.logging, MaxMessageSize: maxMessage})
	if err != nil {
		return
	}
	var reading sync.WaitGroup
	defer reading.Wait()
	defer association.Close()
	var own []*datachannel.DataChannel
	if s.data {
		// RFC 8832 §6: the DTLS server opens streams of odd numbers.
		d, err := datachannel.Dial(association, 1, &datachannel.Config{ChannelType: datachannel.ChannelTypeReliable, Label: s.label, LoggerFactory: s.endpoint.logging})
		if err == nil {
			own = append(own, d)
			s.sctp.open(d)
			reading.Go(func() { s.readChannel(d) })
		}
	}
	for taken := 0; ; {
		d, err := datachannel.Accept(association, &datachannel.Config{LoggerFactory: s.endpoint.logging}, own...)
		if err != nil {
			break
		}
		if taken++; taken > maxChannels {
			_ = d.Close()
			continue
		}
		s.sctp.open(d)
		reading.Go(func() { s.readChannel(d) })
	}
	s.sctp.open(nil)
}

// farewell is the DTLS connection below a data channel. It outlives the channel, so that a peer that has closed it can still leave.
type farewell struct {
	*dtls.Conn
	left atomic.Bool // the peer has said goodbye
}

func (f *farewell) Read(b []byte) (int, error) {
	n, err := f.Conn.Read(b)
	if errors.Is(err, io.EOF) {
		f.left.Store(true)
	}
	return n, err
}

// Close leaves the connection to the session's end.
func (f *farewell) Close() error { return nil }

// reason waits for the end of the connection, and says why it ended.
func (f *farewell) reason() error {
	var ignored [64]byte
	for !f.left.Load() {
		if _, err := f.Read(ignored[:]); err != nil {
			break
		}
	}
	if f.left.Load() {
		return ErrLeft
	}
	return ErrDisconnected
}

// readChannel reads a channel until it ends. A larger buffer is there only while a large message is read: one that does not fit stays
// where it is, and is read again.
func (s *session) readChannel(d *datachannel.DataChannel) {
	small := make([]byte, smallMessage)
	buf := small
	for {
		n, text, err := d.ReadDataChannel(buf)
		switch {
		case errors.Is(err, io.ErrShortBuffer) && len(buf) < maxMessage:
			buf = make([]byte, min(4*len(buf), maxMessage))
			continue
		case err != nil:
			if !errors.Is(err, io.EOF) {
				_ = d.Close()
			}
			return
		}
		if f := s.events.OnMessage; f != nil {
			s.tell(func() { f(media.Message{Binary: !text, Data: append([]byte(nil), buf[:n]...)}) })
		}
		buf = small
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
