package load

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

// frame is a complete picture, or a packet of sound.
type frame struct {
	rtp     uint32    // timestamp
	arrived time.Time // when its last packet was there, and all before it
	data    []byte    // as Matroska has it: length-prefixed for H.264 and H.265, OBUs for AV1
	params  params
	key     bool // a decoder can start here
	resumed bool // the track's first one in another session
	size    int  // bytes of RTP payload
}

// params is what a key frame tells about the frames that follow.
type params struct {
	width, height int
	sets          [][]byte // H.264: SPS, PPS; H.265: VPS, SPS, PPS; AV1: sequence header
}

// assembler makes frames of a track's packets in order. Its owner's goroutine only.
type assembler struct {
	codec string
	video bool
	out   func(frame)

	packets []*rtp.Packet // of the frame that is being put together
	broken  bool          // one of them is missing
	damaged uint64        // frames that were never complete, as far as we know of them
}

// push takes the next packet in order; gap tells that some before it are lost.
func (a *assembler) push(pkt *rtp.Packet, now time.Time, gap bool) {
	if gap {
		// The loss may be of the frame that is open, of the one that begins here, or of both.
		if len(a.packets) > 0 {
			a.broken = true
			if a.packets[0].Timestamp != pkt.Timestamp {
				a.finish(now)
			}
		}
		a.broken = a.broken || !beginsFrame(a.codec, pkt.Payload)
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
	if !a.video || pkt.Marker {
		a.finish(now)
	}
}

func (a *assembler) finish(now time.Time) {
	packets, broken := a.packets, a.broken
	a.packets, a.broken = a.packets[:0], false
	if len(packets) == 0 {
		return
	}
	f := frame{rtp: packets[0].Timestamp, arrived: now, key: !a.video}
	if !broken {
		broken = a.fill(&f, packets) != nil
	}
	if broken {
		a.damaged++
		return
	}
	a.out(f)
}

func (a *assembler) fill(f *frame, packets []*rtp.Packet) error {
	d := depacketizer(a.codec)
	for _, p := range packets {
		f.size += len(p.Payload)
		if d == nil {
			f.data = append(f.data, p.Payload...)
			continue
		}
		b, err := d.Unmarshal(p.Payload)
		if err != nil {
			return err
		}
		f.data = append(f.data, b...)
	}
	if a.video && len(f.data) > 0 {
		inspect(a.codec, f)
	}
	if len(f.data) == 0 {
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
func inspect(codec string, f *frame) {
	switch {
	case strings.EqualFold(codec, media.H264):
		inspectH264(f)
	case strings.EqualFold(codec, media.H265):
		inspectH265(f)
	case strings.EqualFold(codec, media.VP8):
		// RFC 6386 §9.1: frame tag of 3 bytes, start code, 14 bits each of width and height.
		if b := f.data; len(b) >= 10 && b[0]&1 == 0 && b[3] == 0x9d && b[4] == 0x01 && b[5] == 0x2a {
			f.key = true
			f.params.width = int(binary.LittleEndian.Uint16(b[6:]) & 0x3fff)
			f.params.height = int(binary.LittleEndian.Uint16(b[8:]) & 0x3fff)
		}
	case strings.EqualFold(codec, media.VP9):
		var h vp9.Header
		if h.Unmarshal(f.data) == nil && !h.NonKeyFrame && !h.ShowExistingFrame && h.FrameSize != nil {
			f.key, f.params.width, f.params.height = true, h.Width(), h.Height()
		}
	case strings.EqualFold(codec, media.AV1):
		inspectAV1(f)
	}
}

func inspectH264(f *frame) {
	var sps, pps []byte
	eachUnit(f.data, func(u []byte) {
		switch h264.NALUType(u[0] & 0x1f) {
		case h264.NALUTypeSPS:
			sps = u
		case h264.NALUTypePPS:
			pps = u
		case h264.NALUTypeIDR:
			f.key = true
		}
	})
	var s h264.SPS
	if len(sps) < 4 || pps == nil || s.Unmarshal(sps) != nil {
		return
	}
	f.params = params{width: s.Width(), height: s.Height(), sets: [][]byte{sps, pps}}
}

func inspectH265(f *frame) {
	// The depacketizer gives start codes (Annex B) of 4 or 3 bytes.
	var au h264.AnnexB
	if au.Unmarshal(f.data) != nil {
		f.data = nil
		return
	}
	f.data = f.data[:0:0]
	var vps, sps, pps []byte
	for _, u := range au {
		f.data = append(binary.BigEndian.AppendUint32(f.data, uint32(len(u))), u...)
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
			f.key = true
		}
	}
	var s h265.SPS
	if vps == nil || pps == nil || len(sps) < 16 || s.Unmarshal(sps) != nil {
		return
	}
	f.params = params{width: s.Width(), height: s.Height(), sets: [][]byte{vps, sps, pps}}
}

func inspectAV1(f *frame) {
	var tu av1.Bitstream
	if tu.Unmarshal(f.data) != nil {
		return
	}
	for _, obu := range tu {
		var s av1.SequenceHeader
		// A sequence header comes with each key frame (AV1 RTP §4, "start of a coded video sequence").
		if av1.OBUType(obu[0]>>3&15) == av1.OBUTypeSequenceHeader && s.Unmarshal(obu) == nil {
			f.key = true
			f.params = params{width: s.Width(), height: s.Height(), sets: [][]byte{obu}}
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
