package webrtc

import (
	"fmt"

	"sluice/codec"
	"sluice/media"
)

// scalable makes renditions of a picture that comes in layers (SVC): each is the layers up to one, which is all that its viewers get. They are made for nobody in
// particular, as their packets are copied once for all who watch them.
type scalable struct {
	codec  media.Codec
	track  int // the picture
	tracks int // that the publisher has
	points []point
	sizes  [][2]int // of the spatial layers; none: not known
	top    codec.Layer
	seen   int // pictures since a higher layer was seen

	structure *codec.Structure // of AV1: what its descriptors go by
	packets   []packet         // of the burst at hand
}

// packet is where a packet belongs; structure is set if it begins another one.
type packet struct {
	codec.Layer
	structure *codec.Structure
}

// point is an operating point: a picture of some of the layers.
type point struct {
	track int
	upTo  codec.Layer
	seqs  thinned
}

// learnFrom is how many pictures are looked at before it counts as known which layers there are.
const learnFrom = 8

// newScalable is for the tracks of a publisher; nil: its picture can't come in layers.
func newScalable(tracks []media.Track) *scalable {
	for i, t := range tracks {
		if t.Kind == media.Video && (t.Codec.Is(media.VP9) || t.Codec.Is(media.AV1)) && len(media.Main(tracks)) == len(tracks) {
			return &scalable{codec: t.Codec, track: i, tracks: len(tracks)}
		}
	}
	return nil
}

// split gives the parts of a burst to the renditions that they belong to, and adds those for layers that are new. The burst is only read.
func (s *scalable) split(b *media.Burst, add func([]media.Track), write func(*media.Burst)) {
	if b.Track != s.track {
		return
	}
	s.packets = s.packets[:0]
	for i := range b.Packets {
		p, ok := s.place(&b.Packets[i])
		if !ok {
			return
		}
		s.packets = append(s.packets, p)
		if p.Spatial > s.top.Spatial || p.Temporal > s.top.Temporal {
			s.top.Spatial, s.top.Temporal = max(s.top.Spatial, p.Spatial), max(s.top.Temporal, p.Temporal)
			s.seen = 0
		}
		if p.Begins && p.Spatial == 0 {
			s.seen++
		}
	}
	if s.seen >= learnFrom {
		if more := s.missing(); len(more) > 0 {
			add(more)
		}
	}
	for i := range s.points {
		if part := s.points[i].of(s.packets, b); part != nil {
			write(part)
		}
	}
}

// place reads where a packet belongs.
func (s *scalable) place(in *media.Packet) (p packet, ok bool) {
	if s.codec.Is(media.AV1) {
		d, ok := codec.ParseDescriptor(in.Descriptor, s.structure)
		if d.Structure != nil {
			s.structure, s.sizes = d.Structure, d.Structure.Sizes
		}
		return packet{d.Layer, d.Structure}, ok
	}
	if sizes := codec.LayerSizes(s.codec.Name, in.Payload); len(sizes) > 0 {
		s.sizes = sizes
	}
	p.Layer, ok = codec.LayerOf(s.codec.Name, in.Payload)
	return p, ok
}

// allTemporal is more temporal layers than there can be.
const allTemporal = 8

// missing are the renditions of layers that have none yet: for each spatial layer but the highest the picture up to it, and for each temporal one
// but the highest that of the lowest spatial layer.
func (s *scalable) missing() (more []media.Track) {
	need := func(name string, upTo codec.Layer) {
		for _, p := range s.points {
			if p.upTo == upTo {
				return
			}
		}
		t := media.Track{Kind: media.Video, Codec: s.codec, Rendition: name}
		if int(upTo.Spatial) < len(s.sizes) {
			t.Height = s.sizes[upTo.Spatial][1]
		}
		s.points = append(s.points, point{track: s.tracks, upTo: upTo})
		s.tracks++
		more = append(more, t)
	}
	for n := int(s.top.Spatial) - 1; n >= 0; n-- {
		need(fmt.Sprintf("s%d", n), codec.Layer{Spatial: uint8(n), Temporal: allTemporal})
	}
	for n := int(s.top.Temporal) - 1; n >= 0; n-- {
		need(fmt.Sprintf("t%d", n), codec.Layer{Temporal: uint8(n)})
	}
	return more
}

// of is the part of a burst that belongs to a point; nil: nothing does.
func (p *point) of(packets []packet, b *media.Burst) (part *media.Burst) {
	for i := range b.Packets {
		in := &b.Packets[i]
		l := packets[i]
		seq, ok := p.seqs.number(in.Seq, l.Spatial <= p.upTo.Spatial && l.Temporal <= p.upTo.Temporal)
		if !ok {
			continue
		}
		if part == nil {
			part = media.NewBurstOf(p.track, b.Timestamp, b.Size())
			part.Captured, part.Arrived = b.Captured, b.Arrived
		}
		// The highest layer that is left ends the picture (RFC 9628 §4.1, RTP payload format for AV1 §4.2).
		part.Append(seq, in.Marker || l.Ends && l.Spatial == p.upTo.Spatial, in.Payload)
		if l.structure == nil {
			part.Describe(in.Descriptor)
		} else {
			part.Describe(l.structure.Restrict(nil, in.Descriptor, p.upTo))
		}
	}
	return part
}

// thinned renumbers packets of which some are left out.
type thinned struct {
	begun   bool
	top     uint16 // highest that was seen
	skipped uint16
	shifts  [remembered]uint16 // of the last numbers
}

// remembered is how late a packet may come.
const remembered = 1024

// number is the new number of a packet that is kept; it must not be asked twice for one. What has not come yet is taken for kept: if it is not, its number stays a gap.
func (t *thinned) number(seq uint16, keep bool) (uint16, bool) {
	if !t.begun {
		t.begun, t.top = true, seq-1
	}
	switch d := int16(seq - t.top); {
	case d > 0:
		for s := seq - uint16(min(d, remembered)) + 1; s != seq+1; s++ {
			t.shifts[s%remembered] = t.skipped
		}
		t.top = seq
		if !keep {
			t.skipped++
		}
	case -d >= remembered:
		return 0, false
	}
	return seq - t.shifts[seq%remembered], keep
}
