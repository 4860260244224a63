package crowd

import (
	"encoding/binary"
)

// A synthetic picture of 1280x720 that every decoder shows: a key frame is one colour, the frames after it repeat it, and filler
// (NAL type 12, H.264 §7.3.2.7) brings each to the size that the bitrate asks for. So a browser can watch the stream that the load is made of.
const (
	pictureWidth, pictureHeight = 1280, 720
	macroblocks                 = pictureWidth / 16 * pictureHeight / 16
)

// maxPayload is what goes into one RTP packet, in bytes, as with most browsers.
const maxPayload = 1188

// NAL unit headers (H.264 §7.3.1): importance and type.
const (
	nalSlice  = 0x41
	nalIDR    = 0x65
	nalSEI    = 0x06
	nalSPS    = 0x67
	nalPPS    = 0x68
	nalFiller = 0x0c
	nalSTAPA  = 0x78 // RFC 6184 §5.7.1
	nalFUA    = 0x7c // RFC 6184 §5.8
)

// bitWriter writes the syntax elements of H.264 (§7.2, §9.1).
type bitWriter struct {
	b    []byte
	free int // bits in the last byte
}

func (w *bitWriter) u(n int, v uint32) {
	for i := n - 1; i >= 0; i-- {
		if w.free == 0 {
			w.b, w.free = append(w.b, 0), 8
		}
		w.free--
		w.b[len(w.b)-1] |= byte(v>>i&1) << w.free
	}
}

// ue is an unsigned Exp-Golomb code.
func (w *bitWriter) ue(v uint32) {
	n := 0
	for x := v + 1; x > 1; x >>= 1 {
		n++
	}
	w.u(n, 0)
	w.u(n+1, v+1)
}

// nal ends a unit with its stop bit and guards it against start codes (§7.4.1).
func (w *bitWriter) nal(header byte) []byte {
	w.u(1, 1)
	out, zeros := []byte{header}, 0
	for _, b := range w.b {
		if zeros >= 2 && b <= 3 {
			out, zeros = append(out, 3), 0
		}
		out = append(out, b)
		if zeros++; b != 0 {
			zeros = 0
		}
	}
	return out
}

// makeSPS is a sequence parameter set (§7.3.2.1.1): constrained baseline, level 3.1.
func makeSPS() []byte {
	var w bitWriter
	w.u(24, 0x42e01f)
	w.ue(0)                    // seq_parameter_set_id
	w.ue(0)                    // frame_num has 4 bits
	w.ue(2)                    // pic_order_cnt_type: shown in the order of decoding
	w.ue(1)                    // max_num_ref_frames
	w.u(1, 0)                  // gaps_in_frame_num_value_allowed_flag
	w.ue(pictureWidth/16 - 1)  // pic_width_in_mbs_minus1
	w.ue(pictureHeight/16 - 1) // pic_height_in_map_units_minus1
	w.u(1, 1)                  // frame_mbs_only_flag
	w.u(1, 1)                  // direct_8x8_inference_flag
	w.u(1, 0)                  // frame_cropping_flag
	w.u(1, 1)                  // vui_parameters_present_flag
	w.u(8, 0)                  // aspect ratio, overscan, video signal, chroma, timing, HRDs, pic_struct: none
	w.u(1, 1)                  // bitstream_restriction_flag
	w.u(1, 1)                  // motion_vectors_over_pic_boundaries_flag
	w.ue(0)                    // max_bytes_per_pic_denom
	w.ue(0)                    // max_bits_per_mb_denom
	w.ue(11)                   // log2_max_mv_length_horizontal
	w.ue(11)                   // log2_max_mv_length_vertical
	w.ue(0)                    // max_num_reorder_frames: a decoder need not wait
	w.ue(1)                    // max_dec_frame_buffering
	return w.nal(nalSPS)
}

// makePPS is a picture parameter set (§7.3.2.2).
func makePPS() []byte {
	var w bitWriter
	w.ue(0)   // pic_parameter_set_id
	w.ue(0)   // seq_parameter_set_id
	w.u(2, 0) // CAVLC, no bottom_field_pic_order
	w.ue(0)   // one slice group
	w.ue(0)   // num_ref_idx_l0_default_active_minus1
	w.ue(0)   // num_ref_idx_l1_default_active_minus1
	w.u(3, 0) // no weighted prediction
	w.ue(0)   // pic_init_qp_minus26
	w.ue(0)   // pic_init_qs_minus26
	w.ue(0)   // chroma_qp_index_offset
	w.u(3, 4) // deblocking_filter_control_present_flag; no constrained intra prediction, no redundant pictures
	return w.nal(nalPPS)
}

// makeIDR is a picture of one colour: its first macroblock has samples, all others are predicted from their neighbours.
func makeIDR(id uint32, y, cb, cr byte) []byte {
	var w bitWriter
	w.ue(0)      // first_mb_in_slice
	w.ue(7)      // slice_type: all I
	w.ue(0)      // pic_parameter_set_id
	w.u(4, 0)    // frame_num
	w.ue(id & 1) // idr_pic_id: two in a row differ
	w.u(2, 0)    // dec_ref_pic_marking
	w.ue(0)      // slice_qp_delta
	w.ue(1)      // disable_deblocking_filter_idc
	w.ue(25)     // mb_type I_PCM (table 7-11)
	w.free = 0
	for i := range 256 + 64 + 64 {
		switch {
		case i < 256:
			w.u(8, uint32(y))
		case i < 256+64:
			w.u(8, uint32(cb))
		default:
			w.u(8, uint32(cr))
		}
	}
	for mb := 1; mb < macroblocks; mb++ {
		w.ue(3) // mb_type I_16x16_2_0_0: predicted from the mean of the neighbours, no residual but the DC's
		w.ue(0) // intra_chroma_pred_mode
		w.ue(0) // mb_qp_delta
		// coeff_token of no coefficients (table 9-5): a neighbour with samples counts as one with 16.
		if mb == 1 || mb == pictureWidth/16 {
			w.u(6, 3)
		} else {
			w.u(1, 1)
		}
	}
	return w.nal(nalIDR)
}

// makeSlice is a picture that repeats the last one. number counts from the key frame.
func makeSlice(number uint32) []byte {
	var w bitWriter
	w.ue(0)            // first_mb_in_slice
	w.ue(5)            // slice_type: all P
	w.ue(0)            // pic_parameter_set_id
	w.u(4, number&0xf) // frame_num
	w.u(3, 0)          // no override of references, no reordering, no marking
	w.ue(0)            // slice_qp_delta
	w.ue(1)            // disable_deblocking_filter_idc
	w.ue(macroblocks)  // mb_skip_run
	return w.nal(nalSlice)
}

// A stamp is an SEI message (§D.1.7) of user data: the wall clock of the frame's sending. It is the first unit of each frame's first
// packet, which is a STAP-A, so that a viewer finds it at a fixed place.
const (
	stampBytes = 9 // of 7 bits, the highest bit set: no zeros, which would need guarding
	stampSize  = 3 + 16 + stampBytes + 1 + 1
)

func stampID() [16]byte { return [16]byte([]byte("sluice load time")) }

func appendStamp(b []byte, unixNano int64, key bool) []byte {
	id := stampID()
	b = append(b, nalSEI, 5, 16+stampBytes+1) // user_data_unregistered
	b = append(b, id[:]...)
	for i := range stampBytes {
		b = append(b, byte(unixNano>>(7*i))|0x80)
	}
	flag := byte(0x80)
	if key {
		flag |= 1
	}
	return append(b, flag, 0x80)
}

// readStamp finds the stamp in the beginning of a frame's first packet.
func readStamp(p []byte) (unixNano int64, key, ok bool) {
	if len(p) > 3 && p[0]&0x1f == nalSTAPA&0x1f {
		p = p[3:]
	}
	if len(p) < stampSize || p[0] != nalSEI || p[1] != 5 || p[2] != 16+stampBytes+1 || [16]byte(p[3:19]) != stampID() {
		return 0, false, false
	}
	for i := range stampBytes {
		unixNano |= int64(p[19+i]&0x7f) << (7 * i)
	}
	return unixNano, p[19+stampBytes]&1 != 0, true
}

// painter makes the payloads of one stream's frames.
type painter struct {
	sets   []byte // SPS and PPS with their sizes, as a STAP-A has them
	filler []byte // a unit of the largest size
	stream int
	keys   uint32
	number uint32 // frames since the key frame
}

func newPainter(stream int) *painter {
	p := &painter{stream: stream}
	for _, u := range [][]byte{makeSPS(), makePPS()} {
		p.sets = append(binary.BigEndian.AppendUint16(p.sets, uint16(len(u))), u...)
	}
	p.filler = fillerUnit(maxPayload)
	return p
}

// fillerUnit is a unit of n ≥ 2 bytes that decoders skip.
func fillerUnit(n int) []byte {
	u := make([]byte, n)
	for i := range u {
		u[i] = 0xff
	}
	u[0], u[n-1] = nalFiller, 0x80
	return u
}

// frame appends the payloads of the next frame, of about size bytes together. What it appends may be kept; it is never changed.
func (p *painter) frame(out [][]byte, size int, key bool, unixNano int64) [][]byte {
	first := make([]byte, 1, maxPayload)
	first[0] = nalSTAPA
	first = append(first, 0, 0)
	first = appendStamp(first, unixNano, key)
	binary.BigEndian.PutUint16(first[1:], uint16(len(first)-3))
	if key {
		p.number = 0
		first = append(first, p.sets...)
		out = append(out, first)
		size -= len(first)
		// A colour of its own for each stream, a little different after each key frame: somebody who looks sees that it goes on.
		c := byte(p.stream*37 + int(p.keys)*11)
		n := len(out)
		out = fragments(out, makeIDR(p.keys, 70+c%100, 80+c/2, 200-c/3))
		p.keys++
		for _, b := range out[n:] {
			size -= len(b)
		}
	} else {
		u := makeSlice(p.number)
		first = append(binary.BigEndian.AppendUint16(first, uint16(len(u))), u...)
		if n := min(size, maxPayload) - len(first) - 2; n >= 2 { // full, so that packets have one size as an encoder's
			first = append(binary.BigEndian.AppendUint16(first, uint16(n)), p.filler[:n-1]...)
			first = append(first, 0x80)
		}
		out = append(out, first)
		size -= len(first)
	}
	p.number++
	for ; size >= maxPayload; size -= maxPayload {
		out = append(out, p.filler)
	}
	if size >= 2 {
		out = append(out, fillerUnit(size))
	}
	return out
}

// fragments cuts a unit into FU-As (RFC 6184 §5.8).
func fragments(out [][]byte, unit []byte) [][]byte {
	header, rest := unit[0], unit[1:]
	start := byte(0x80)
	for len(rest) > 0 {
		n, end := min(len(rest), maxPayload-2), byte(0)
		if n == len(rest) {
			end = 0x40
		}
		b := append(make([]byte, 0, n+2), nalFUA, start|end|header&0x1f)
		out = append(out, append(b, rest[:n]...))
		rest, start = rest[n:], 0
	}
	return out
}

// silence is an Opus packet of 20 ms (RFC 6716 §3.2.5) of n bytes, 6 to 255: a frame of silence and padding.
func silence(n int) []byte {
	b := make([]byte, n)
	copy(b, []byte{0xfb, 0x41, byte(n - 5), 0xff, 0xfe})
	return b
}
