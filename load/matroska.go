package load

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"strings"
	"time"

	"github.com/at-wat/ebml-go"
	"github.com/at-wat/ebml-go/webm"
	"github.com/bluenviron/mediacommon/v2/pkg/codecs/av1"
	"github.com/bluenviron/mediacommon/v2/pkg/codecs/h264"
	"github.com/bluenviron/mediacommon/v2/pkg/codecs/h265"

	"sluice/media"
)

// A cluster holds at most so much time; a key frame begins a new one.
const clusterTime = 5 * time.Second

// matroska writes frames into a file (RFC 9559); WebM when its codecs allow it. Its length
// is kept up to date with each cluster, so that an interrupted file is a good one.
type matroska struct {
	f          *os.File
	durationAt int64 // offset of the Duration element's value
	cluster    webm.Cluster
	open       bool // cluster has blocks
	last       time.Duration
}

type ebmlFile struct {
	Header  webm.EBMLHeader    `ebml:"EBML"`
	Segment webm.SegmentStream `ebml:"Segment,size=unknown"`
}

// The length that is written before any is known: one that can be found again among the header's bytes.
const noDuration = 1.0 / 3

// newMatroska writes the header. It owns the file from then on.
func newMatroska(f *os.File, tracks []webm.TrackEntry) (*matroska, error) {
	m := &matroska{f: f}
	head := ebmlFile{Header: *webm.DefaultEBMLHeader}
	for _, t := range tracks {
		switch t.CodecID {
		case "V_VP8", "V_VP9", "V_AV1", "A_OPUS":
		default:
			head.Header.DocType = "matroska"
		}
	}
	head.Segment.Info = webm.Info{TimecodeScale: uint64(time.Millisecond), MuxingApp: "sluice", WritingApp: "sluice play", Duration: noDuration}
	head.Segment.Tracks.TrackEntry = tracks
	var b bytes.Buffer
	if err := ebml.Marshal(&head, &b); err != nil {
		return nil, fmt.Errorf("make the file's header: %w", err)
	}
	value := binary.BigEndian.AppendUint64(nil, math.Float64bits(noDuration))
	at := bytes.Index(b.Bytes(), value)
	if at < 0 {
		return nil, fmt.Errorf("make the file's header: no duration in it")
	}
	m.durationAt = int64(at)
	_, err := f.Write(b.Bytes())
	return m, err
}

// write adds a frame; at is its time in the file.
func (m *matroska) write(track int, at time.Duration, key, video bool, data []byte) error {
	ms := at.Milliseconds()
	rel := ms - int64(m.cluster.Timecode)
	if m.open && (key && video || rel >= clusterTime.Milliseconds() || rel < math.MinInt16) {
		if err := m.flush(); err != nil {
			return err
		}
	}
	if !m.open {
		m.open, m.cluster.Timecode, rel = true, uint64(ms), 0
	}
	m.cluster.SimpleBlock = append(m.cluster.SimpleBlock, ebml.Block{
		TrackNumber: uint64(track + 1), Timecode: int16(rel), Keyframe: key, Data: [][]byte{data}})
	m.last = max(m.last, at)
	return nil
}

func (m *matroska) flush() error {
	if !m.open {
		return nil
	}
	c := struct {
		Cluster webm.Cluster `ebml:"Cluster"`
	}{m.cluster}
	m.open, m.cluster = false, webm.Cluster{}
	var b bytes.Buffer
	if err := ebml.Marshal(&c, &b); err != nil {
		return fmt.Errorf("make a cluster: %w", err)
	}
	if _, err := m.f.Write(b.Bytes()); err != nil {
		return err
	}
	length := float64(m.last) / float64(time.Millisecond)
	_, err := m.f.WriteAt(binary.BigEndian.AppendUint64(nil, math.Float64bits(length)), m.durationAt)
	return err
}

// trackEntry describes a track by its codec and its first key frame.
func trackEntry(number int, kind media.Kind, codec string, channels uint16, rate uint32, p params) (webm.TrackEntry, error) {
	t := webm.TrackEntry{TrackNumber: uint64(number), TrackUID: uint64(number), TrackType: 1}
	if kind == media.Video {
		t.Video = &webm.Video{PixelWidth: uint64(p.width), PixelHeight: uint64(p.height)}
	} else {
		t.TrackType = 2
		t.Audio = &webm.Audio{SamplingFrequency: float64(rate), Channels: uint64(max(1, channels))}
	}
	if need := map[string]int{"h264": 2, "h265": 3, "av1": 1}[strings.ToLower(codec)]; len(p.sets) < need {
		return t, fmt.Errorf("the %s stream has sent no parameter sets", codec)
	}
	var err error
	switch strings.ToLower(codec) {
	case "h264":
		t.CodecID = "V_MPEG4/ISO/AVC"
		t.CodecPrivate = avcConfig(p.sets)
	case "h265":
		t.CodecID = "V_MPEGH/ISO/HEVC"
		t.CodecPrivate, err = hevcConfig(p.sets)
	case "vp8":
		t.CodecID = "V_VP8"
	case "vp9":
		t.CodecID = "V_VP9"
	case "av1":
		t.CodecID = "V_AV1"
		t.CodecPrivate, err = av1Config(p.sets)
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
