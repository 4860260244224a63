// Package frame puts frames together of the packets of a track, and finds out what can be read of them.
//
// Imports: media.
package frame

import (
	"encoding/binary"
	"errors"
	"strings"
	"time"

	"github.com/bluenviron/mediacommon/v2/pkg/codecs/av1"
	"github.com/bluenviron/mediacommon/v2/pkg/codecs/h264"
	"github.com/bluenviron/mediacommon/v2/pkg/codecs/h265"
	"github.com/bluenviron/mediacommon/v2/pkg/codecs/vp9"
	"github.com/pion/rtp"
	"github.com/pion/rtp/codecs"

	"sluice/media"
)

// The most packets of one frame, 5 MB.
const maxFramePackets = 4096

// Frame is a complete picture, or a packet of sound.
type Frame struct {
	RTP     uint32    // timestamp
	Arrived time.Time // when its last packet was there, and all before it
	Data    []byte    // as Matroska has it: length-prefixed for H.264 and H.265, OBUs for AV1
	Params  Params
	Key     bool // a decoder can start here
	Size    int  // bytes of RTP payload
}

// Params is what a key frame tells about the frames that follow.
type Params struct {
	Width, Height int
	Sets          [][]byte // H.264: SPS, PPS; H.265: VPS, SPS, PPS; AV1: sequence header
}

// Assembler makes frames of a track's packets in order. Its owner's goroutine only.
type Assembler struct {
	Codec   string
	Video   bool
	Out     func(Frame)
	Damaged uint64 // frames that were never complete, as far as we know of them

	packets []*rtp.Packet // of the frame that is being put together
	broken  bool          // one of them is missing
}

// Reset forgets the frame that is being put together.
func (a *Assembler) Reset() { a.packets, a.broken = nil, false }

// Push takes the next packet in order; gap tells that some before it are lost.
func (a *Assembler) Push(pkt *rtp.Packet, now time.Time, gap bool) {
	if gap {
		// The loss may be of the frame that is open, of the one that begins here, or of both.
		if len(a.packets) > 0 {
			a.broken = true
			if a.packets[0].Timestamp != pkt.Timestamp {
				a.finish(now)
			}
		}
		a.broken = a.broken || !beginsFrame(a.Codec, pkt.Payload)
	}
	if len(pkt.Payload) == 0 { // padding that probes the path
		return
	}
	if len(a.packets) > 0 && a.packets[0].Timestamp != pkt.Timestamp {
		a.finish(now) // its sender sets no marker
	}
	if len(a.packets) == maxFramePackets { // no picture is so large: a sender that never ends one
		a.packets, a.broken = a.packets[:0], true
	}
	a.packets = append(a.packets, pkt)
	if !a.Video || pkt.Marker {
		a.finish(now)
	}
}

func (a *Assembler) finish(now time.Time) {
	packets, broken := a.packets, a.broken
	a.packets, a.broken = a.packets[:0], false
	if len(packets) == 0 {
		return
	}
	f := Frame{RTP: packets[0].Timestamp, Arrived: now, Key: !a.Video}
	if !broken {
		broken = a.fill(&f, packets) != nil
	}
	if broken {
		a.Damaged++
		return
	}
	a.Out(f)
}

func (a *Assembler) fill(f *Frame, packets []*rtp.Packet) error {
	d := depacketizer(a.Codec)
	for _, p := range packets {
		f.Size += len(p.Payload)
		if d == nil {
			f.Data = append(f.Data, p.Payload...)
			continue
		}
		b, err := d.Unmarshal(p.Payload)
		if err != nil {
			return err
		}
		f.Data = append(f.Data, b...)
	}
	if a.Video && len(f.Data) > 0 {
		inspect(a.Codec, f)
	}
	if len(f.Data) == 0 {
		return errors.New("empty frame")
	}
	return nil
}

// depacketizer is one for a single frame: what a broken one left must not get into the next.
func depacketizer(codec string) rtp.Depacketizer {
	switch {
	case strings.EqualFold(codec, media.H264):
		return &codecs.H264Packet{IsAVC: true}
	case strings.EqualFold(codec, media.H265):
		return &codecs.H265Depacketizer{}
	case strings.EqualFold(codec, media.VP8):
		return &codecs.VP8Packet{}
	case strings.EqualFold(codec, media.VP9):
		return &codecs.VP9Packet{}
	case strings.EqualFold(codec, media.AV1):
		return &codecs.AV1Depacketizer{}
	}
	return nil // Opus and G.711: the payload is the frame
}

// beginsFrame tells whether a packet after a loss may be the first of its frame.
func beginsFrame(codec string, p []byte) bool {
	switch {
	case strings.EqualFold(codec, media.H264) && len(p) > 2:
		// A slice is the first one when first_mb_in_slice, the first number of its header, is 0: a bit 1 (H.264 §7.3.3).
		switch t := p[0] & 0x1f; {
		case t >= 1 && t <= 5:
			return p[1]&0x80 != 0
		case t == 28: // FU-A (RFC 6184 §5.8): start bit, type, then the slice header
			inner := p[1] & 0x1f
			return p[1]&0x80 != 0 && (inner > 5 || p[2]&0x80 != 0)
		}
		return true
	case strings.EqualFold(codec, media.H265) && len(p) > 3:
		// first_slice_segment_in_pic_flag is the first bit of a slice header (H.265 §7.3.6.1).
		switch t := p[0] >> 1 & 0x3f; {
		case t < 32:
			return p[2]&0x80 != 0
		case t == 49: // FU (RFC 7798 §4.4.3)
			return p[2]&0x80 != 0 && (p[2]&0x3f >= 32 || p[3]&0x80 != 0)
		}
		return true
	}
	d, ok := depacketizer(codec).(interface{ IsPartitionHead([]byte) bool })
	return !ok || d.IsPartitionHead(p)
}

// inspect finds out whether a decoder can start with a frame, and its size. It
// does not trust the bytes: what it can't read is no key frame.
func inspect(codec string, f *Frame) {
	switch {
	case strings.EqualFold(codec, media.H264):
		inspectH264(f)
	case strings.EqualFold(codec, media.H265):
		inspectH265(f)
	case strings.EqualFold(codec, media.VP8):
		// RFC 6386 §9.1: frame tag of 3 bytes, start code, 14 bits each of width and height.
		if b := f.Data; len(b) >= 10 && b[0]&1 == 0 && b[3] == 0x9d && b[4] == 0x01 && b[5] == 0x2a {
			f.Key = true
			f.Params.Width = int(binary.LittleEndian.Uint16(b[6:]) & 0x3fff)
			f.Params.Height = int(binary.LittleEndian.Uint16(b[8:]) & 0x3fff)
		}
	case strings.EqualFold(codec, media.VP9):
		var h vp9.Header
		if h.Unmarshal(f.Data) == nil && !h.NonKeyFrame && !h.ShowExistingFrame && h.FrameSize != nil {
			f.Key, f.Params.Width, f.Params.Height = true, h.Width(), h.Height()
		}
	case strings.EqualFold(codec, media.AV1):
		inspectAV1(f)
	}
}

func inspectH264(f *Frame) {
	var sps, pps []byte
	eachUnit(f.Data, func(u []byte) {
		switch h264.NALUType(u[0] & 0x1f) {
		case h264.NALUTypeSPS:
			sps = u
		case h264.NALUTypePPS:
			pps = u
		case h264.NALUTypeIDR:
			f.Key = true
		}
	})
	var s h264.SPS
	if len(sps) < 4 || pps == nil || s.Unmarshal(sps) != nil {
		return
	}
	f.Params = Params{Width: s.Width(), Height: s.Height(), Sets: [][]byte{sps, pps}}
}

func inspectH265(f *Frame) {
	// The depacketizer gives start codes (Annex B) of 4 or 3 bytes.
	var au h264.AnnexB
	if au.Unmarshal(f.Data) != nil {
		f.Data = nil
		return
	}
	f.Data = f.Data[:0:0]
	var vps, sps, pps []byte
	for _, u := range au {
		f.Data = append(binary.BigEndian.AppendUint32(f.Data, uint32(len(u))), u...)
		if len(u) < 2 {
			continue
		}
		switch t := h265.NALUType(u[0] >> 1 & 0x3f); {
		case t == h265.NALUType_VPS_NUT:
			vps = u
		case t == h265.NALUType_SPS_NUT:
			sps = u
		case t == h265.NALUType_PPS_NUT:
			pps = u
		case t >= h265.NALUType_BLA_W_LP && t <= h265.NALUType_CRA_NUT:
			f.Key = true
		}
	}
	var s h265.SPS
	if vps == nil || pps == nil || len(sps) < 16 || s.Unmarshal(sps) != nil {
		return
	}
	f.Params = Params{Width: s.Width(), Height: s.Height(), Sets: [][]byte{vps, sps, pps}}
}

func inspectAV1(f *Frame) {
	var tu av1.Bitstream
	if tu.Unmarshal(f.Data) != nil {
		return
	}
	for _, obu := range tu {
		var s av1.SequenceHeader
		// A sequence header comes with each key frame (AV1 RTP §4, "start of a coded video sequence").
		if av1.OBUType(obu[0]>>3&15) == av1.OBUTypeSequenceHeader && s.Unmarshal(obu) == nil {
			f.Key = true
			f.Params = Params{Width: s.Width(), Height: s.Height(), Sets: [][]byte{obu}}
			return
		}
	}
}

// eachUnit calls back with each non-empty NAL unit of a length-prefixed frame.
func eachUnit(b []byte, unit func([]byte)) {
	for len(b) > 4 {
		n := uint64(binary.BigEndian.Uint32(b))
		if b = b[4:]; n > uint64(len(b)) {
			return
		}
		if n > 0 {
			unit(b[:n])
		}
		b = b[n:]
	}
}
