package rtc

import (
	"time"

	"github.com/pion/rtcp"
)

// reception is what receiver reports say of a track (RFC 3550 §6.4.1, §A.3, §A.8).
type reception struct {
	rate int64 // of the clock

	begun          bool
	base, top      uint32 // first and highest number, with roll-overs
	received       uint32
	expectedBefore uint32 // at the last report
	receivedBefore uint32
	transit        int64 // of the last packet, in units of the clock
	jitter         float64
	srID           uint32 // middle bits of the last sender report
	srAt           time.Time
}

// add notes a packet that was not sent again.
func (r *reception) add(seq uint16, timestamp uint32, now time.Time) {
	arrived := now.UnixMicro() * r.rate / 1e6
	transit := arrived - int64(timestamp)
	r.received++
	if !r.begun {
		r.begun, r.base, r.top, r.transit = true, uint32(seq), uint32(seq), transit
		return
	}
	if d := int16(seq - uint16(r.top)); d > 0 {
		r.top += uint32(d)
	}
	d := int64(int32(uint32(transit - r.transit))) // timestamps wrap
	r.transit = transit
	r.jitter += (float64(max(d, -d)) - r.jitter) / 16
}

// report notes a sender report.
func (r *reception) report(ntp uint64, now time.Time) { r.srID, r.srAt = uint32(ntp>>16), now }

// make makes the track's part of a receiver report.
func (r *reception) make(ssrc uint32, now time.Time) rtcp.ReceptionReport {
	expected := r.top - r.base + 1
	lost := int64(expected) - int64(r.received)
	out := rtcp.ReceptionReport{SSRC: ssrc, LastSequenceNumber: r.top, Jitter: uint32(r.jitter), TotalLost: uint32(min(max(lost, 0), 1<<23-1))}
	interval, got := int64(expected-r.expectedBefore), int64(r.received-r.receivedBefore)
	if interval > 0 && interval > got {
		out.FractionLost = uint8(min((interval-got)*256/interval, 255))
	}
	r.expectedBefore, r.receivedBefore = expected, r.received
	if r.srID != 0 {
		out.LastSenderReport, out.Delay = r.srID, uint32(now.Sub(r.srAt)*65536/time.Second)
	}
	return out
}
