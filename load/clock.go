package load

import (
	"time"

	"github.com/pion/rtcp"
)

// Seconds between 1900, where NTP begins, and 1970 (RFC 5905 §6).
const ntpEpoch = 2208988800

func toNTP(unixNano int64) uint64 {
	s, ns := unixNano/1e9, unixNano%1e9
	return uint64(s+ntpEpoch)<<32 | uint64(ns)<<32/1e9
}

func fromNTP(ntp uint64) int64 {
	return (int64(ntp>>32)-ntpEpoch)*1e9 + int64((ntp&0xffffffff)*1e9>>32)
}

// wallClock maps a track's RTP timestamps to the wall clock of who sends them (RFC 3550 §6.4.1).
type wallClock struct {
	rate int64 // RTP timestamp units a second
	rtp  uint32
	wall int64 // Unix nanoseconds at rtp
	ok   bool  // a sender report has been seen
}

// set takes over a sender report.
func (c *wallClock) set(sr *rtcp.SenderReport) {
	c.rtp, c.wall, c.ok = sr.RTPTime, fromNTP(sr.NTPTime), true
}

// at is the wall clock, in Unix nanoseconds, at an RTP timestamp within 2^31 units
// (6 hours of video) of the last report.
func (c *wallClock) at(rtp uint32) int64 {
	return c.wall + int64(int32(rtp-c.rtp))*int64(time.Second)/c.rate
}

// stamp is the RTP timestamp at a wall clock in Unix nanoseconds.
func (c *wallClock) stamp(wall int64) uint32 {
	d := wall - c.wall
	return c.rtp + uint32(d/1e9*c.rate+d%1e9*c.rate/1e9)
}
