package frame

import (
	"encoding/binary"
	"fmt"
	"strings"
	"time"

	"github.com/at-wat/ebml-go/webm"
	"github.com/bluenviron/mediacommon/v2/pkg/codecs/av1"
	"github.com/bluenviron/mediacommon/v2/pkg/codecs/h264"
	"github.com/bluenviron/mediacommon/v2/pkg/codecs/h265"

	"sluice/media"
)

// MatroskaTrack describes a track by its codec and its first key frame, as Matroska and WebM do (RFC 9559).
func MatroskaTrack(number int, kind media.Kind, codec string, channels uint16, rate uint32, p Params) (webm.TrackEntry, error) {
	t := webm.TrackEntry{TrackNumber: uint64(number), TrackUID: uint64(number), TrackType: 1}
	if kind == media.Video {
		t.Video = &webm.Video{PixelWidth: uint64(p.Width), PixelHeight: uint64(p.Height)}
	} else {
		t.TrackType = 2
		t.Audio = &webm.Audio{SamplingFrequency: float64(rate), Channels: uint64(max(1, channels))}
	}
	if need := map[string]int{"h264": 2, "h265": 3, "av1": 1}[strings.ToLower(codec)]; len(p.Sets) < need {
		return t, fmt.Errorf("the %s stream has sent no parameter sets", codec)
	}
	var err error
	switch strings.ToLower(codec) {
	case "h264":
		t.CodecID = "V_MPEG4/ISO/AVC"
		t.CodecPrivate = avcConfig(p.Sets)
	case "h265":
		t.CodecID = "V_MPEGH/ISO/HEVC"
		t.CodecPrivate, err = hevcConfig(p.Sets)
	case "vp8":
		t.CodecID = "V_VP8"
	case "vp9":
		t.CodecID = "V_VP9"
	case "av1":
		t.CodecID = "V_AV1"
		t.CodecPrivate, err = av1Config(p.Sets)
	case "opus":
		t.CodecID, t.SeekPreRoll = "A_OPUS", uint64(80*time.Millisecond)
		t.CodecPrivate = opusHead(byte(max(1, channels)))
	case "pcmu":
		t.CodecID, t.CodecPrivate = "A_MS/ACM", waveFormat(7, channels, rate)
	case "pcma":
		t.CodecID, t.CodecPrivate = "A_MS/ACM", waveFormat(6, channels, rate)
	default:
		err = fmt.Errorf("codec %s can't be written to a file yet", codec)
	}
	return t, err
}

// avcConfig is the AVCDecoderConfigurationRecord (ISO/IEC 14496-15 §5.3.3.1).
func avcConfig(sets [][]byte) []byte {
	sps, pps := sets[0], sets[1]
	b := []byte{1, sps[1], sps[2], sps[3], 0xff, 0xe1} // lengths of 4 bytes; one SPS
	b = append(binary.BigEndian.AppendUint16(b, uint16(len(sps))), sps...)
	b = append(b, 1)
	return append(binary.BigEndian.AppendUint16(b, uint16(len(pps))), pps...)
}

// hevcConfig is the HEVCDecoderConfigurationRecord (ISO/IEC 14496-15 §8.3.3.1).
func hevcConfig(sets [][]byte) ([]byte, error) {
	var s h265.SPS
	if err := s.Unmarshal(sets[1]); err != nil {
		return nil, fmt.Errorf("read the SPS: %w", err)
	}
	raw := h264.EmulationPreventionRemove(sets[1])
	if len(raw) < 15 {
		return nil, fmt.Errorf("read the SPS: it is too short")
	}
	// Profile, tier and level stand in the SPS as in the record: 12 bytes after the NAL unit's header and one byte.
	b := append([]byte{1}, raw[3:15]...)
	b = append(b, 0xf0, 0, 0xfc, 0xfc|byte(s.ChromaFormatIdc), 0xf8|byte(s.BitDepthLumaMinus8), 0xf8|byte(s.BitDepthChromaMinus8), 0, 0)
	layers, nested := raw[2]>>1&7+1, raw[2]&1
	b = append(b, layers<<3|nested<<2|3, byte(len(sets))) // lengths of 4 bytes
	for _, u := range sets {
		b = append(b, 0x80|u[0]>>1&0x3f, 0, 1)
		b = append(binary.BigEndian.AppendUint16(b, uint16(len(u))), u...)
	}
	return b, nil
}

// av1Config is the AV1CodecConfigurationRecord (AV1-ISOBMFF §2.3.3).
func av1Config(sets [][]byte) ([]byte, error) {
	var s av1.SequenceHeader
	if err := s.Unmarshal(sets[0]); err != nil {
		return nil, fmt.Errorf("read the sequence header: %w", err)
	}
	flag := func(v bool, shift int) byte {
		if v {
			return 1 << shift
		}
		return 0
	}
	c := s.ColorConfig
	b := []byte{0x81, s.SeqProfile << 5, 0, 0}
	if len(s.SeqLevelIdx) > 0 {
		b[1] |= s.SeqLevelIdx[0] & 0x1f
	}
	if len(s.SeqTier) > 0 {
		b[2] = flag(s.SeqTier[0], 7)
	}
	b[2] |= flag(c.HighBitDepth, 6) | flag(c.TwelveBit, 5) | flag(c.MonoChrome, 4) | flag(c.SubsamplingX, 3) |
		flag(c.SubsamplingY, 2) | byte(c.ChromaSamplePosition)&3
	obus, err := av1.Bitstream(sets).Marshal()
	return append(b, obus...), err
}

// opusHead is the identification header (RFC 7845 §5.1). Nothing is to be skipped: it began long ago.
func opusHead(channels byte) []byte {
	b := append([]byte("OpusHead"), 1, channels, 0, 0)
	b = binary.LittleEndian.AppendUint32(b, 48000)
	return append(b, 0, 0, 0)
}

// waveFormat is a WAVEFORMATEX of a codec with 8 bits a sample.
func waveFormat(tag, channels uint16, rate uint32) []byte {
	channels = max(1, channels)
	b := binary.LittleEndian.AppendUint16(nil, tag)
	b = binary.LittleEndian.AppendUint16(b, channels)
	b = binary.LittleEndian.AppendUint32(b, rate)
	b = binary.LittleEndian.AppendUint32(b, rate*uint32(channels))
	b = binary.LittleEndian.AppendUint16(b, channels)
	b = binary.LittleEndian.AppendUint16(b, 8)
	return binary.LittleEndian.AppendUint16(b, 0)
}
