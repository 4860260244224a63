package rtc

import (
	"encoding/binary"
	"time"

	"github.com/pion/rtcp"
)

// maxAgain is how many packets a peer may have asked for that the loop has not seen.
const maxAgain = 512

// asked is a packet that a peer has asked for.
type asked struct {
	track int
	seq   uint16 // out
}

// control implements side.
func (v *Sender) control(packets []rtcp.Packet) {
	now := time.Now()
	for _, p := range packets {
		switch p := p.(type) {
		case *rtcp.ReceiverReport:
			for _, r := range p.Reports {
				v.receiverReport(r, now)
			}
		case *rtcp.SenderReport:
			for _, r := range p.Reports {
				v.receiverReport(r, now)
			}
		case *rtcp.PictureLossIndication:
			v.keyFrame(p.MediaSSRC)
		case *rtcp.FullIntraRequest:
			for _, f := range p.FIR {
				v.keyFrame(f.SSRC)
			}
		case *rtcp.TransportLayerNack:
			v.nack(p)
		case *rtcp.ReceiverEstimatedMaximumBitrate:
			v.mu.Lock()
			v.stats.Estimate = int(p.Bitrate)
			v.mu.Unlock()
		}
	}
}

// maxArrivals is how many bytes about arrival times wait for the loop at most: those of a second or more.
const maxArrivals = 4096

// arrivals implements side: what the peer tells of the packets that came waits for the shard's loop.
func (v *Sender) arrivals(b []byte) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.shard == nil || len(v.arrived)+2+len(b) > maxArrivals {
		return
	}
	if len(v.arrived) == 0 {
		v.shard.post(task{call: v.takeArrivals})
	}
	v.arrived = binary.BigEndian.AppendUint16(v.arrived, uint16(len(b)))
	v.arrived = append(v.arrived, b...)
}

// learn takes it, in the shard's loop. Then the path is looked at, while all that is known of it is at hand.
func (v *Sender) learn(sh *shard) {
	if v.takeTold(sh) {
		v.tellPath(sh.now)
	}
}

// takeTold gives the path's estimate what the peer has told; false: there is none.
func (v *Sender) takeTold(sh *shard) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	known := v.path != nil && !v.gone
	if known {
		v.learned = sh.now
		for b := v.arrived; len(b) > 0; {
			n := 2 + int(binary.BigEndian.Uint16(b))
			v.path.Feedback(b[2:n], sh.now)
			b = b[n:]
		}
		v.stats.Estimate = v.path.Estimate()
	}
	v.arrived = v.arrived[:0]
	return known
}

// trackOf finds a track by its SSRC. SSRCs don't change after the session was opened.
func (v *Sender) trackOf(ssrc uint32) int {
	for i := range v.tracks {
		if v.tracks[i].wanted && v.tracks[i].ssrc == ssrc {
			return i
		}
	}
	return -1
}

func (v *Sender) keyFrame(ssrc uint32) {
	if i := v.trackOf(ssrc); i >= 0 && i == v.group.picture {
		v.onKeyRequest(int(v.picture.Load()))
	}
}

// receiverReport keeps what the peer says of what it gets (RFC 3550 §6.4.2).
func (v *Sender) receiverReport(r rtcp.ReceptionReport, now time.Time) {
	i := v.trackOf(r.SSRC)
	if i < 0 {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.stats.Lost = float64(r.FractionLost) / 256
	if r.FractionLost >= redLoss {
		v.redUntil.Store(now.Add(redFor).UnixNano())
	}
	if rate := v.group.tracks[i].Codec.ClockRate; rate > 0 {
		v.stats.Jitter = time.Duration(r.Jitter) * time.Second / time.Duration(rate)
	}
	if r.LastSenderReport != 0 && r.LastSenderReport == v.srID {
		v.stats.RoundTrip = now.Sub(v.srAt) - time.Duration(r.Delay)*time.Second/65536
	}
}

// nack has a request for packets that were lost (RFC 4585 §6.2.1).
func (v *Sender) nack(p *rtcp.TransportLayerNack) {
	i := v.trackOf(p.MediaSSRC)
	sh := v.home()
	if i < 0 || sh == nil {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	posted := len(v.asked) > 0
	for _, pair := range p.Nacks {
		pair.Range(func(seq uint16) bool {
			if len(v.asked) < maxAgain {
				v.asked = append(v.asked, asked{i, seq})
			}
			return len(v.asked) < maxAgain
		})
	}
	if !posted && len(v.asked) > 0 {
		sh.post(task{call: v.sendAgain})
	}
}
