package codec

import "encoding/binary"

// Descriptor is what the dependency descriptor of a packet says (RTP payload format for AV1, appendix A), as far as it is needed to leave layers out.
type Descriptor struct {
	Layer
	Frame     uint16     // number of the frame, which is a layer's part of a picture
	Structure *Structure // nil: the one before is still in force
}

// Structure says what the layers of a stream are, until the next one is sent.
type Structure struct {
	Top   Layer    // the highest layers
	Sizes [][2]int // of the spatial layers, lowest first; none: they are not said

	offset    uint8
	templates []Layer
	targets   []Layer // up to which layers each decode target goes
	end       int     // bit of the descriptor that it came in, behind it
}

// MaxDescriptor is how long a descriptor may be: what a header extension takes (RFC 8285 §4.3).
const MaxDescriptor = 255

// bits reads big-endian bits. Behind the end they are 0, and over is true.
type bits struct {
	b    []byte
	at   int
	over bool
}

func (r *bits) read(n int) (v int) {
	for ; n > 0; n-- {
		v <<= 1
		if i := r.at >> 3; i < len(r.b) {
			v |= int(r.b[i]>>(7-r.at&7)) & 1
		} else {
			r.over = true
		}
		r.at++
	}
	return v
}

// within reads a number less than n (§A.8.1, ns).
func (r *bits) within(n int) int {
	w := 0
	for x := n; x != 0; x >>= 1 {
		w++
	}
	m := 1<<w - n
	v := r.read(w - 1)
	if v < m {
		return v
	}
	return v<<1 - m + r.read(1)
}

// ParseDescriptor reads a descriptor, by the structure that is in force where it has none itself. It reports false if it is malformed, or no structure is known.
func ParseDescriptor(b []byte, known *Structure) (d Descriptor, ok bool) {
	if len(b) < 3 || len(b) > MaxDescriptor {
		return d, false
	}
	d.Begins, d.Ends, d.Frame = b[0]&0x80 != 0, b[0]&0x40 != 0, binary.BigEndian.Uint16(b[1:])
	if len(b) > 3 && b[3]&0x80 != 0 {
		if d.Structure = parseStructure(&bits{b: b, at: 29}); d.Structure == nil {
			return d, false
		}
		known = d.Structure
	}
	if known == nil {
		return d, false
	}
	i := int((b[0]&0x3f + 64 - known.offset) & 0x3f)
	if i >= len(known.templates) {
		return d, false
	}
	d.Spatial, d.Temporal = known.templates[i].Spatial, known.templates[i].Temporal
	return d, true
}

// Bounds of a structure (§A.8.2): template ids have 6 bits, layers' numbers 2 and 3.
const (
	maxTemplates = 64
	maxTemporal  = 8
	maxDescribed = 4
)

// parseStructure reads template_dependency_structure (§A.8.2); nil: it is malformed.
func parseStructure(r *bits) *Structure {
	s := &Structure{offset: uint8(r.read(6)), targets: make([]Layer, r.read(5)+1)}
	var l Layer
	for more := true; more; {
		if len(s.templates) == maxTemplates || l.Spatial >= maxDescribed || l.Temporal >= maxTemporal || r.over {
			return nil
		}
		s.templates = append(s.templates, l)
		s.Top.Spatial, s.Top.Temporal = max(s.Top.Spatial, l.Spatial), max(s.Top.Temporal, l.Temporal)
		switch r.read(2) {
		case 1:
			l.Temporal++
		case 2:
			l.Temporal, l.Spatial = 0, l.Spatial+1
		case 3:
			more = false
		}
	}
	for _, t := range s.templates { // indications: 0 is not present
		for i := range s.targets {
			if to := &s.targets[i]; r.read(2) != 0 {
				to.Spatial, to.Temporal = max(to.Spatial, t.Spatial), max(to.Temporal, t.Temporal)
			}
		}
	}
	for range s.templates { // differences of frame numbers
		for r.read(1) == 1 && !r.over {
			r.read(4)
		}
	}
	if chains := r.within(len(s.targets) + 1); chains > 0 {
		for range s.targets {
			r.within(chains)
		}
		r.read(4 * chains * len(s.templates))
	}
	if r.read(1) == 1 {
		for range s.Top.Spatial + 1 {
			w := r.read(16) + 1
			s.Sizes = append(s.Sizes, [2]int{w, r.read(16) + 1})
		}
	}
	if s.end = r.at; r.over {
		return nil
	}
	return s
}

// Restrict writes a descriptor that has a structure with the decode targets active that need no more than some layers (§A.8.3). It returns dst with it appended;
// just the descriptor if it would be too long.
func (s *Structure) Restrict(dst, b []byte, upTo Layer) []byte {
	at := len(dst)
	rest := bits{b: b, at: s.end}
	if b[3]&0x40 != 0 { // active_decode_targets_present_flag
		rest.at += len(s.targets)
	}
	total := s.end + len(s.targets) + max(0, 8*len(b)-rest.at)
	if (total+7)/8 > MaxDescriptor {
		return append(dst, b...)
	}
	dst = append(dst, make([]byte, (total+7)/8)...)
	out := dst[at:]
	bit := 0
	put := func(v int) {
		out[bit>>3] |= byte(v) << (7 - bit&7)
		bit++
	}
	for head := (bits{b: b}); bit < s.end; {
		put(head.read(1))
	}
	out[3] |= 0x40
	for i := len(s.targets) - 1; i >= 0; i-- { // the first target is the lowest bit
		if t := s.targets[i]; t.Spatial <= upTo.Spatial && t.Temporal <= upTo.Temporal {
			put(1)
		} else {
			put(0)
		}
	}
	for bit < total {
		put(rest.read(1))
	}
	return dst
}
