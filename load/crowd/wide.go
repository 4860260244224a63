package crowd

import (
	"encoding/binary"
	"time"

	"github.com/pion/interceptor/pkg/twcc"
)

// wide tells the server when packets came (draft-holmer-rmcat-transport-wide-cc-extensions-01), as browsers do: each 100 ms.
type wide struct {
	recorder *twcc.Recorder
	told     time.Time
}

const wideEvery = 100 * time.Millisecond

// wideNumber is a packet's transport-wide number, in a one-byte header extension (RFC 8285 §4.2).
func wideNumber(b []byte) (uint16, bool) {
	at := 12 + 4*int(b[0]&15)
	if b[0]&0x10 == 0 || len(b) < at+4 || binary.BigEndian.Uint16(b[at:]) != 0xbede {
		return 0, false
	}
	end := at + 4 + 4*int(binary.BigEndian.Uint16(b[at+2:]))
	for at += 4; at < min(end, len(b)); {
		id, size := b[at]>>4, int(b[at]&15)+1
		switch {
		case b[at] == 0: // padding
			at++
			continue
		case id == wideID && size == 2 && at+3 <= len(b):
			return binary.BigEndian.Uint16(b[at+1:]), true
		}
		at += 1 + size
	}
	return 0, false
}

// note keeps when a packet came, in Unix nanoseconds.
func (w *wide) note(ssrc uint32, b []byte, at int64) {
	if n, ok := wideNumber(b); ok {
		w.recorder.Record(ssrc, n, at/1000)
	}
}

// tell sends what is to be told.
func (w *wide) tell(s *session, now time.Time) {
	if now.Sub(w.told) < wideEvery {
		return
	}
	w.told = now
	for _, p := range w.recorder.BuildFeedbackPacket() {
		s.sendRTCP(p)
	}
}
