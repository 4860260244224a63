package relay

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// prefix is the length of a frame's length, big endian, in bytes.
const prefix = 4

// A Reader cuts a QUIC stream into frames.
type Reader struct {
	r   *bufio.Reader
	max int
	buf []byte
}

// NewReader returns a reader of frames of at most max bytes.
func NewReader(r io.Reader, max int) *Reader {
	return &Reader{r: bufio.NewReaderSize(r, 4<<10), max: max}
}

// step is by how much memory for a frame grows: a peer gets memory for bytes that it sends, not for those that it announces.
const step = 64 << 10

// Next returns a frame, which is valid until the next call. The error is io.EOF only between
// frames, and wraps ErrMalformed when the frame is too long.
func (r *Reader) Next() ([]byte, error) {
	var head [prefix]byte
	if _, err := io.ReadFull(r.r, head[:]); err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint32(head[:]))
	if n == 0 || n > r.max {
		return nil, fmt.Errorf("frame of %d bytes, not 1 to %d: %w", n, r.max, ErrMalformed)
	}
	r.buf = r.buf[:0]
	for len(r.buf) < n {
		at, more := len(r.buf), min(n-len(r.buf), step)
		if at+more > cap(r.buf) {
			grown := make([]byte, at, min(max(2*cap(r.buf), at+more), n))
			copy(grown, r.buf)
			r.buf = grown
		}
		r.buf = r.buf[:at+more]
		if _, err := io.ReadFull(r.r, r.buf[at:]); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
	}
	return r.buf, nil
}

// framed appends a frame with its length; body appends what is in it.
func framed(dst []byte, body func([]byte) []byte) []byte {
	at := len(dst)
	dst = body(append(dst, 0, 0, 0, 0))
	binary.BigEndian.PutUint32(dst[at:], uint32(len(dst)-at-prefix))
	return dst
}

// cursor reads fields from a frame and remembers that one was missing or out of
// bounds. What it returns after that is zero.
type cursor struct {
	b   []byte
	bad bool
}

func (c *cursor) bytes(n uint64) []byte {
	if c.bad || n > uint64(len(c.b)) {
		c.bad = true
		return nil
	}
	b := c.b[:n:n]
	c.b = c.b[n:]
	return b
}

func (c *cursor) u8() byte {
	if b := c.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

func (c *cursor) u16() uint16 {
	if b := c.bytes(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (c *cursor) u32() uint32 {
	if b := c.bytes(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (c *cursor) u64() uint64 {
	if b := c.bytes(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

// uvarint reads a number of at most limit, in the encoding of encoding/binary.
func (c *cursor) uvarint(limit uint64) uint64 {
	v, n := binary.Uvarint(c.b)
	if c.bad || n <= 0 || v > limit {
		c.bad = true
		return 0
	}
	c.b = c.b[n:]
	return v
}

func (c *cursor) text(limit uint64) string { return string(c.bytes(c.uvarint(limit))) }

func appendText(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

// texts reads at most limit names.
func (c *cursor) texts(limit uint64) (all []string) {
	for range c.uvarint(limit) {
		all = append(all, c.text(maxName))
	}
	return all
}

// appendTexts appends at most limit of the names.
func appendTexts(dst []byte, all []string, limit int) []byte {
	all = all[:min(len(all), limit)]
	dst = binary.AppendUvarint(dst, uint64(len(all)))
	for _, s := range all {
		dst = appendText(dst, s)
	}
	return dst
}
