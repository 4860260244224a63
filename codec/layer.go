package codec

import (
	"encoding/binary"

	"sluice/media"
)

// Layer is where a packet belongs in a picture that is sent in layers (SVC): each needs those of lower numbers. Spatial layers are larger pictures, temporal ones
// more pictures a second.
type Layer struct {
	Spatial, Temporal uint8
	Begins            bool // it begins the layer's part of the picture
	Ends              bool // it ends it
}

// LayerOf reads the layer of a packet of VP9 (RFC 9628 §4.2). It reports false if its sender names none.
func LayerOf(name string, p []byte) (l Layer, ok bool) {
	if name != media.VP9 || len(p) < 2 || p[0]&0x20 == 0 { // L
		return l, false
	}
	i := 1
	if p[0]&0x80 != 0 { // I: picture id of 7 or 15 bits
		if p[i]&0x80 != 0 {
			i++
		}
		i++
	}
	if i >= len(p) {
		return l, false
	}
	return Layer{Spatial: p[i] >> 1 & 7, Temporal: p[i] >> 5, Begins: p[0]&0x08 != 0, Ends: p[0]&0x04 != 0}, true
}

// MaxSpatial is how many spatial layers there can be.
const MaxSpatial = 8

// LayerSizes reads the sizes of the spatial layers from a packet of VP9 that has the scalability structure (RFC 9628 §4.2.1), lowest first. It returns none for other packets.
func LayerSizes(name string, p []byte) (sizes [][2]int) {
	if name != media.VP9 || len(p) < 2 || p[0]&0x02 == 0 { // V
		return nil
	}
	at, _ := find(name, p)
	i := at.end
	if i == 0 { // no numbers at all
		i = 1
	}
	if p[0]&0x30 == 0x30 { // L and F: the layers' indices come without TL0PICIDX
		i++
	}
	if p[0]&0x50 == 0x50 { // F and P: up to three reference indices, each saying whether there is another
		for n := 0; n < 3; n++ {
			if i >= len(p) {
				return nil
			}
			i++
			if p[i-1]&1 == 0 {
				break
			}
		}
	}
	if i >= len(p) || p[i]&0x10 == 0 { // Y: it has sizes
		return nil
	}
	n := int(p[i]>>5) + 1
	if i++; i+4*n > len(p) {
		return nil
	}
	for ; n > 0; n, i = n-1, i+4 {
		sizes = append(sizes, [2]int{int(binary.BigEndian.Uint16(p[i:])), int(binary.BigEndian.Uint16(p[i+2:]))})
	}
	return sizes
}
