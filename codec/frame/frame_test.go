package frame

import (
	"encoding/hex"
	"strings"
	"testing"
	"time"

	"github.com/pion/rtp"
	"github.com/pion/rtp/codecs"

	"sluice/media"
)

// Frames as encoders made them (x264, x265, libvpx, SVT-AV1; black pictures), NAL units
// divided by spaces; they serve as cases and as fuzz seeds.
type frameCase struct {
	name, codec, hex string
	key              bool
	width, height    int
	sets             int
}

func frameCases() []frameCase {
	return []frameCase{
		{"baseline", media.H264, "6742c01fd9005005bb011000000300100000030320f1832480 68cb83cb20 6588840af2628000a7bc9c", true, 1280, 720, 2},
		{"high, 8 lines cropped", media.H264, "67640028acb200f0044fcb80880000030008000003019078c19240 68ebc3cb22c0 6588840afffef6737c0a", true, 1920, 1080, 2},
		{"main, cropped on both sides", media.H264, "674d400dd901519e226c0440000003004000000c83c50a92 68ebc3cb20 6588840afffef6737c0a", true, 322, 182, 2},
		{"key frame without sets", media.H264, "6588840afffef6737c0a", true, 0, 0, 0},
		{"other frame", media.H264, "419a2468", false, 0, 0, 0},
		{"cut SPS", media.H264, "6742c0 68cb83cb20 6588840af2628000a7bc9c", true, 0, 0, 0},
		{"main, cropped", media.H265, "40010c01ffff01600000030090000003000003003c928090 42010101600000030090000003000003003ca00a480b9c95964a924caf016808000003000800000300c840 4401c172b46240 2801af1d6592a0f7015bfff24efec7001f", true, 322, 182, 3},
		{"other frame", media.H265, "0201d0097e10", false, 0, 0, 0},
		{"key frame", media.VP8, "900f009d012a4201b600004708858588998488020200061604f70681649f6bdb", true, 322, 182, 0},
		{"other frame", media.VP8, "310200011010001400186000", false, 0, 0, 0},
		{"key frame of 3 bytes", media.VP8, "900f00", false, 0, 0, 0},
		{"key frame", media.VP9, "824983420014100b560038241c184a00005061f6300000671a9a849ddc5a997941a53dc570", true, 322, 182, 0},
		{"other frame", media.VP9, "8600409200", false, 0, 0, 0},
		{"key frame", media.AV1, "0a0b000000043d06d4fbf90040322110008ce080000400080095cddb3bec77a32e8e4386379f1d6505f392d316dd3660", true, 322, 182, 1},
		{"other frame", media.AV1, "320a30000000000000000000", false, 0, 0, 0},
	}
}

// packets makes the RTP packets of a case's frame, as another implementation would.
func (c frameCase) packets(mtu uint16) []*rtp.Packet {
	var p rtp.Payloader
	startCode := false
	switch c.codec {
	case media.H264:
		p, startCode = &codecs.H264Payloader{DisableStapA: mtu < 100}, true
	case media.H265:
		p, startCode = &codecs.H265Payloader{}, true
	case media.VP8:
		p = &codecs.VP8Payloader{EnablePictureID: true}
	case media.VP9:
		p = &codecs.VP9Payloader{}
	case media.AV1:
		p = &codecs.AV1Payloader{}
	}
	var frame []byte
	for unit := range strings.FieldsSeq(c.hex) {
		if startCode {
			frame = append(frame, 0, 0, 0, 1)
		}
		b, err := hex.DecodeString(unit)
		if err != nil {
			panic(err)
		}
		frame = append(frame, b...)
	}
	return packetise(p.Payload(mtu, frame), 1000, 90000)
}

func packetise(payloads [][]byte, seq uint16, timestamp uint32) []*rtp.Packet {
	pkts := make([]*rtp.Packet, len(payloads))
	for i, b := range payloads {
		pkts[i] = &rtp.Packet{Header: rtp.Header{Version: 2, SequenceNumber: seq + uint16(i), Timestamp: timestamp, Marker: i == len(payloads)-1}, Payload: b}
	}
	return pkts
}

func TestFrame(t *testing.T) {
	for _, c := range frameCases() {
		for _, mtu := range []uint16{1200, 20} {
			t.Run(c.codec+" "+c.name, func(t *testing.T) {
				var got []Frame
				a := Assembler{Codec: c.codec, Video: true, Out: func(f Frame) { got = append(got, f) }}
				for _, p := range c.packets(mtu) {
					a.Push(p, time.Unix(1, 0), false)
				}
				if len(got) != 1 || a.Damaged != 0 {
					t.Fatalf("%d frames, %d damaged", len(got), a.Damaged)
				}
				f := got[0]
				if f.Key != c.key || f.Params.Width != c.width || f.Params.Height != c.height || len(f.Params.Sets) != c.sets {
					t.Errorf("key %v, %dx%d, %d parameter sets", f.Key, f.Params.Width, f.Params.Height, len(f.Params.Sets))
				}
				if f.RTP != 90000 {
					t.Errorf("timestamp %d", f.RTP)
				}
			})
		}
	}
}

// A frame counts only when all its packets came, whichever is missing.
func TestFrameWithLoss(t *testing.T) {
	for _, c := range frameCases() {
		if !c.key || len(c.packets(20)) < 2 {
			continue
		}
		t.Run(c.codec+" "+c.name, func(t *testing.T) {
			n := len(c.packets(20))
			for missing := range n {
				var got []Frame
				a := Assembler{Codec: c.codec, Video: true, Out: func(f Frame) { got = append(got, f) }}
				gap := false
				for round := range uint32(3) { // the frame with the loss is the second of three
					for i, p := range c.packets(20) {
						p.Timestamp += 3000 * round
						if round == 1 && i == missing {
							gap = true
							continue
						}
						a.Push(p, time.Unix(1, 0), gap)
						gap = false
					}
				}
				if missing == 0 && len(got) == 3 && beginsFrame(c.codec, c.packets(20)[1].Payload) {
					continue // what is missing was a parameter set in front of a picture that is all there
				}
				if len(got) != 2 || got[0].RTP != 90000 || got[1].RTP != 96000 {
					t.Errorf("without packet %d of %d: %d frames", missing, n, len(got))
				}
			}
		})
	}
}

func TestFrameThatNeverEnds(t *testing.T) {
	a := Assembler{Codec: media.VP8, Video: true, Out: func(Frame) { t.Error("a frame") }}
	for i := range 3 * maxFramePackets {
		a.Push(&rtp.Packet{Header: rtp.Header{SequenceNumber: uint16(i), Timestamp: 1}, Payload: []byte{0x10, 0}}, time.Time{}, false)
		if cap(a.packets) > 2*maxFramePackets {
			t.Fatal("it takes more and more memory")
		}
	}
}

func FuzzFrame(f *testing.F) {
	for _, c := range frameCases() {
		for _, p := range c.packets(40) {
			f.Add(c.codec, p.Payload, true)
		}
	}
	f.Add(media.Opus, []byte{0xfc}, true)
	f.Fuzz(func(t *testing.T, codec string, payload []byte, marker bool) {
		before := hex.EncodeToString(payload)
		a := Assembler{Codec: codec, Video: codec != media.Opus, Out: func(fr Frame) {
			if len(fr.Data) == 0 {
				t.Error("an empty frame")
			}
		}}
		for i := range 3 {
			a.Push(&rtp.Packet{Header: rtp.Header{Timestamp: uint32(i) / 2, Marker: marker}, Payload: payload}, time.Time{}, i == 1)
		}
		if hex.EncodeToString(payload) != before {
			t.Error("the input was changed")
		}
	})
}
