package rtc

import (
	"crypto/cipher"
	"encoding/binary"
	"fmt"

	"github.com/pion/rtp"
	"github.com/pion/srtp/v3"
)

// opener decrypts a peer's RTP. It belongs to one goroutine at a time.
type opener struct {
	aead    cipher.AEAD // AEAD profiles
	salt    [12]byte
	sources []source
	plain   *srtp.Context // the others
}

// source is what one SSRC has sent.
type source struct {
	ssrc uint32
	top  uint64               // highest index: roll-over counter and sequence number
	seen [replayWindow]uint64 // a bit for each of the last, by index
}

const (
	replayWindow = 16 // words of 64: as many packets may come late
	maxSources   = 16 // that a peer may send
)

func newOpener(k keys) (*opener, error) {
	o := &opener{}
	var err error
	if !k.profile.gcm {
		if o.plain, err = srtp.CreateContext(k.theirKey, k.theirSalt, k.profile.srtp, srtp.SRTPReplayProtection(replayWindow*64)); err != nil {
			return nil, fmt.Errorf("make SRTP keys: %w", err)
		}
		return o, nil
	}
	o.aead, o.salt, err = sessionKeys(k.theirKey, k.theirSalt, labelEncryption, labelSalt)
	return o, err
}

// open decrypts a packet in place, and returns its payload with the padding. What was seen before is an error.
func (o *opener) open(b []byte, h *rtp.Header, headerLen int) ([]byte, error) {
	if o.aead == nil {
		plain, err := o.plain.DecryptRTP(b, b, h)
		if err != nil {
			return nil, err
		}
		return plain[headerLen:], nil
	}
	s := o.source(h.SSRC)
	index := uint64(h.SequenceNumber)
	if s != nil {
		index = s.index(h.SequenceNumber)
		if s.had(index) {
			return nil, errReplayed
		}
	}
	n := o.salt // RFC 7714 §8.1: 0, SSRC, ROC and sequence number, with the salt
	binary.BigEndian.PutUint32(n[2:], binary.BigEndian.Uint32(n[2:])^h.SSRC)
	binary.BigEndian.PutUint32(n[6:], binary.BigEndian.Uint32(n[6:])^uint32(index>>16))
	n[10] ^= byte(index >> 8)
	n[11] ^= byte(index)
	payload, err := o.aead.Open(b[headerLen:headerLen], n[:], b[headerLen:], b[:headerLen])
	if err != nil {
		return nil, errNotSealed
	}
	if s == nil {
		if len(o.sources) == maxSources {
			return nil, errNotSealed
		}
		o.sources = append(o.sources, source{ssrc: h.SSRC, top: index})
		s = &o.sources[len(o.sources)-1]
	}
	s.note(index)
	return payload, nil
}

func (o *opener) source(ssrc uint32) *source {
	for i := range o.sources {
		if o.sources[i].ssrc == ssrc {
			return &o.sources[i]
		}
	}
	return nil
}

// index guesses a packet's index from its sequence number (RFC 3711 §3.3.1).
func (s *source) index(seq uint16) uint64 {
	i := int64(s.top) + int64(int16(seq-uint16(s.top)))
	if i < 0 {
		i += 1 << 16
	}
	return uint64(i)
}

// had reports whether an index was seen, or is too old to tell.
func (s *source) had(index uint64) bool {
	const size = replayWindow * 64
	return index <= s.top && (s.top-index >= size || s.seen[index/64%replayWindow]>>(index%64)&1 == 1)
}

func (s *source) note(index uint64) {
	const size = replayWindow * 64
	if index > s.top {
		if index-s.top >= size {
			s.seen = [replayWindow]uint64{}
		} else {
			for i := s.top + 1; i <= index; i++ {
				s.seen[i/64%replayWindow] &^= 1 << (i % 64)
			}
		}
		s.top = index
	}
	s.seen[index/64%replayWindow] |= 1 << (index % 64)
}
