package rtc

import (
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/pion/srtp/v3"
)

// srtcp seals and opens a session's control packets (RFC 3711 §3.4, RFC 7714 §9). Whoever uses it holds the session's mu.
type srtcp struct {
	in, out         cipher.AEAD // AEAD profiles
	inSalt, outSalt [12]byte
	index           uint32 // of the last that was sealed
	seen            []seenControl
	plainIn         *srtp.Context // the others
	plainOut        *srtp.Context
}

// seenControl is what a source has sent: the highest index, and which of the 63 before it.
type seenControl struct {
	ssrc, top uint32
	before    uint64
}

// maxControlIndex is the last index of a control packet (RFC 3711 §3.4): 31 bits.
const maxControlIndex = 1<<31 - 1

// maxControlSources is how many sources a peer's control packets may name.
const maxControlSources = 64

var (
	errNotSealed = errors.New("not sealed with the session's keys")
	errReplayed  = errors.New("seen before")
	errUsedUp    = errors.New("the keys have sealed as many control packets as they may")
)

func newSRTCP(k keys) (*srtcp, error) {
	c := &srtcp{}
	var err error
	if !k.profile.gcm {
		if c.plainIn, err = srtp.CreateContext(k.theirKey, k.theirSalt, k.profile.srtp, srtp.SRTCPReplayProtection(64)); err != nil {
			return nil, fmt.Errorf("make SRTCP keys: %w", err)
		}
		if c.plainOut, err = srtp.CreateContext(k.ourKey, k.ourSalt, k.profile.srtp); err != nil {
			return nil, fmt.Errorf("make SRTCP keys: %w", err)
		}
		return c, nil
	}
	if c.in, c.inSalt, err = sessionKeys(k.theirKey, k.theirSalt, labelControlEncryption, labelControlSalt); err != nil {
		return nil, err
	}
	c.out, c.outSalt, err = sessionKeys(k.ourKey, k.ourSalt, labelControlEncryption, labelControlSalt)
	return c, err
}

// Sizes of a sealed control packet (RFC 7714 §9.2).
const (
	controlHeader  = 8 // in clear
	controlTrailer = 4 // E flag and index
	tagSize        = 16
)

func controlNonce(salt *[12]byte, ssrc, index uint32) (n [12]byte) {
	n = *salt
	binary.BigEndian.PutUint32(n[2:], binary.BigEndian.Uint32(n[2:])^ssrc)
	binary.BigEndian.PutUint32(n[8:], binary.BigEndian.Uint32(n[8:])^index)
	return n
}

// seal appends a sealed packet to dst.
func (c *srtcp) seal(dst, plain []byte) ([]byte, error) {
	if c.out == nil {
		sealed, err := c.plainOut.EncryptRTCP(nil, plain, nil)
		return append(dst, sealed...), err
	}
	if c.index == maxControlIndex { // the next would have the nonce of an earlier one (RFC 3711 §9.2)
		return dst, errUsedUp
	}
	c.index++
	n := controlNonce(&c.outSalt, binary.BigEndian.Uint32(plain[4:]), c.index)
	var aad [controlHeader + controlTrailer]byte
	copy(aad[:], plain[:controlHeader])
	binary.BigEndian.PutUint32(aad[controlHeader:], 1<<31|c.index)
	dst = append(dst, plain[:controlHeader]...)
	dst = c.out.Seal(dst, n[:], plain[controlHeader:], aad[:])
	return append(dst, aad[controlHeader:]...), nil
}

// open returns the packet in clear, which takes the place of b. What was seen before is an error.
func (c *srtcp) open(b []byte) ([]byte, error) {
	if c.in == nil {
		return c.plainIn.DecryptRTCP(nil, b, nil)
	}
	end := len(b) - controlTrailer
	if end < controlHeader+tagSize {
		return nil, errNotSealed
	}
	word := binary.BigEndian.Uint32(b[end:])
	ssrc, index := binary.BigEndian.Uint32(b[4:]), word&0x7fffffff
	if word>>31 == 0 { // not encrypted: nobody we speak to does that
		return nil, errNotSealed
	}
	n := controlNonce(&c.inSalt, ssrc, index)
	var aad [controlHeader + controlTrailer]byte
	copy(aad[:], b[:controlHeader])
	copy(aad[controlHeader:], b[end:])
	plain, err := c.in.Open(b[controlHeader:controlHeader], n[:], b[controlHeader:end], aad[:])
	if err != nil {
		return nil, errNotSealed
	}
	if !c.fresh(ssrc, index) {
		return nil, errReplayed
	}
	return b[:controlHeader+len(plain)], nil
}

// fresh notes an index, and reports whether it was new (RFC 3711 §3.3.2).
func (c *srtcp) fresh(ssrc, index uint32) bool {
	for i := range c.seen {
		s := &c.seen[i]
		if s.ssrc != ssrc {
			continue
		}
		switch d := int64(index) - int64(s.top); {
		case d > 0:
			s.before = s.before<<d | 1<<(d-1) // a shift by 64 or more leaves nothing
			s.top = index
			return true
		case d == 0 || d < -64 || s.before>>(-d-1)&1 == 1:
			return false
		default:
			s.before |= 1 << (-d - 1)
			return true
		}
	}
	if len(c.seen) == maxControlSources {
		return false
	}
	c.seen = append(c.seen, seenControl{ssrc: ssrc, top: index})
	return true
}
