package load

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"time"

	"github.com/at-wat/ebml-go"
	"github.com/at-wat/ebml-go/webm"
)

// A cluster holds at most so much time; a key frame begins a new one.
const clusterTime = 5 * time.Second

// matroskaFile writes frames into a file (RFC 9559); WebM when its codecs allow it. Its length
// is kept up to date with each cluster, so that an interrupted file is a good one.
type matroskaFile struct {
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

// newMatroskaFile writes the header. It owns the file from then on.
func newMatroskaFile(f *os.File, tracks []webm.TrackEntry) (*matroskaFile, error) {
	m := &matroskaFile{f: f}
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
func (m *matroskaFile) write(track int, at time.Duration, key, video bool, data []byte) error {
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

func (m *matroskaFile) flush() error {
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
