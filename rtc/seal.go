package rtc

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"fmt"

	"github.com/pion/dtls/v3"
	"github.com/pion/rtp"
	"github.com/pion/srtp/v3"
)

// profile is an SRTP protection profile as DTLS agrees on it (RFC 5764 §4.1.2, RFC 7714 §14.2).
type profile struct {
	dtls      dtls.SRTPProtectionProfile
	srtp      srtp.ProtectionProfile
	key, salt int // bytes
	overhead  int // bytes that a sealed RTP packet has more
	gcm       bool
}

// profiles in our order of preference: what the processor does fastest first.
func profiles() []profile {
	return []profile{
		{dtls.SRTP_AEAD_AES_128_GCM, srtp.ProtectionProfileAeadAes128Gcm, 16, 12, 16, true},
		{dtls.SRTP_AEAD_AES_256_GCM, srtp.ProtectionProfileAeadAes256Gcm, 32, 12, 16, true},
		{dtls.SRTP_AES128_CM_HMAC_SHA1_80, srtp.ProtectionProfileAes128CmHmacSha1_80, 16, 14, 10, false},
	}
}

// keys are what a DTLS handshake leaves behind: both directions' master keys and salts.
type keys struct {
	profile             profile
	ourKey, ourSalt     []byte
	theirKey, theirSalt []byte
}

// splitKeys cuts the exported material (RFC 5764 §4.2): client key, server key, client salt, server salt.
func splitKeys(p profile, material []byte, client bool) keys {
	k := keys{profile: p}
	k.theirKey, material = material[:p.key], material[p.key:]
	k.ourKey, material = material[:p.key], material[p.key:]
	k.theirSalt, material = material[:p.salt], material[p.salt:]
	k.ourSalt = material[:p.salt]
	if client {
		k.ourKey, k.theirKey, k.ourSalt, k.theirSalt = k.theirKey, k.ourKey, k.theirSalt, k.ourSalt
	}
	return k
}

func (p profile) material() int { return 2 * (p.key + p.salt) }

// sealer encrypts RTP to one peer. It belongs to the shard's loop.
type sealer struct {
	overhead int
	aead     cipher.AEAD // AEAD profiles
	salt     [12]byte
	nonce    [12]byte
	plain    *srtp.Context // the others
	scratch  []byte
}

// newSealer derives the session keys (RFC 3711 §4.3).
func newSealer(k keys) (*sealer, error) {
	s := &sealer{overhead: k.profile.overhead}
	if !k.profile.gcm {
		var err error
		if s.plain, err = srtp.CreateContext(k.ourKey, k.ourSalt, k.profile.srtp); err != nil {
			return nil, fmt.Errorf("make SRTP keys: %w", err)
		}
		return s, nil
	}
	var err error
	s.aead, s.salt, err = sessionKeys(k.ourKey, k.ourSalt, labelEncryption, labelSalt)
	return s, err
}

// sessionKeys derives a session key and salt for an AEAD profile (RFC 7714 §11, RFC 3711 §4.3).
func sessionKeys(master, masterSalt []byte, encryption, salting byte) (aead cipher.AEAD, salt [12]byte, err error) {
	key, err := derive(master, masterSalt, encryption, len(master))
	if err != nil {
		return nil, salt, err
	}
	s, err := derive(master, masterSalt, salting, len(salt))
	if err != nil {
		return nil, salt, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, salt, fmt.Errorf("make SRTP keys: %w", err)
	}
	if aead, err = cipher.NewGCM(block); err != nil {
		return nil, salt, fmt.Errorf("make SRTP keys: %w", err)
	}
	return aead, [12]byte(s), nil
}

// Labels of the key derivation (RFC 3711 §4.3.1).
const (
	labelEncryption        = 0
	labelSalt              = 2
	labelControlEncryption = 3
	labelControlSalt       = 5
)

// derive is the key derivation of RFC 3711 §4.3.3: AES in counter mode over the salt with the label.
// The key derivation rate is 0, so the index plays no part.
func derive(master, salt []byte, label byte, n int) ([]byte, error) {
	block, err := aes.NewCipher(master)
	if err != nil {
		return nil, fmt.Errorf("derive SRTP keys: %w", err)
	}
	iv := make([]byte, aes.BlockSize)
	copy(iv, salt) // 112 bits; the last 16 are the counter
	iv[7] ^= label
	out := make([]byte, n)
	cipher.NewCTR(block, iv).XORKeyStream(out, out)
	return out, nil
}

// headerSize is that of an RTP header without contributing sources and extensions (RFC 3550 §5.1).
const headerSize = 12

// packetHeader is what is written into the header of a packet.
type packetHeader struct {
	marker    bool
	pt        uint8
	wideID    uint8 // of the header extension with the transport-wide number; 0: none
	seq       uint16
	wide      uint16 // transport-wide number
	delayID   uint8  // of the header extension with the playout delay; 0: none
	delay     uint32 // 12 bits each of the least and the most, in 10 ms
	roc       uint32
	timestamp uint32
	ssrc      uint32

	described  uint8  // id of the header extension with a dependency descriptor
	descriptor []byte // nil: none
	frames     uint16 // by which its frame number is shifted
}

// extension is the size of the header extensions (RFC 8285 §4.2): a head, an element of 3 bytes and one of 4, a descriptor, and padding to words.
func (h *packetHeader) extension() int {
	switch {
	case len(h.descriptor) > 0:
		n, head := len(h.descriptor), 1
		if h.long() {
			head = 2
		}
		if h.wideID != 0 {
			n += head + 2
		}
		if h.delayID != 0 {
			n += head + 3
		}
		return 4 + (n+head+3)&^3
	case h.wideID != 0 && h.delayID != 0:
		return 12
	case h.wideID != 0 || h.delayID != 0:
		return 8
	}
	return 0
}

// appendExtension writes them.
func (h *packetHeader) appendExtension(dst []byte) []byte {
	size := h.extension()
	if size == 0 {
		return dst
	}
	if len(h.descriptor) > 0 {
		return h.appendDescribed(dst, size)
	}
	dst = append(dst, 0xbe, 0xde, 0, byte(size/4-1))
	if h.wideID != 0 {
		dst = append(dst, h.wideID<<4|1, byte(h.wide>>8), byte(h.wide))
	}
	if h.delayID != 0 {
		dst = append(dst, h.delayID<<4|2, byte(h.delay>>16), byte(h.delay>>8), byte(h.delay))
	}
	if h.wideID != 0 { // to whole words
		dst = append(dst, 0)
	}
	return dst
}

// long reports whether the descriptor needs headers of two bytes for all extensions (RFC 8285 §4.3).
func (h *packetHeader) long() bool { return len(h.descriptor) > 16 }

// appendDescribed is appendExtension with a descriptor, whose frame number is shifted.
func (h *packetHeader) appendDescribed(dst []byte, size int) []byte {
	at, long, words := len(dst), h.long(), size/4-1
	if long {
		dst = append(dst, 0x10, 0x00, byte(words>>8), byte(words))
	} else {
		dst = append(dst, 0xbe, 0xde, byte(words>>8), byte(words))
	}
	element := func(id uint8, n int) {
		if long {
			dst = append(dst, id, byte(n))
		} else {
			dst = append(dst, id<<4|byte(n-1))
		}
	}
	if h.wideID != 0 {
		element(h.wideID, 2)
		dst = append(dst, byte(h.wide>>8), byte(h.wide))
	}
	if h.delayID != 0 {
		element(h.delayID, 3)
		dst = append(dst, byte(h.delay>>16), byte(h.delay>>8), byte(h.delay))
	}
	element(h.described, len(h.descriptor))
	number := len(dst) + 1
	dst = append(dst, h.descriptor...)
	binary.BigEndian.PutUint16(dst[number:], binary.BigEndian.Uint16(dst[number:])+h.frames)
	for len(dst) < at+size {
		dst = append(dst, 0)
	}
	return dst
}

// seal appends a packet to dst: header in clear, payload encrypted (RFC 7714 §8, RFC 3711 §3.3). It allocates nothing
// with the AEAD profiles when dst has the room.
func (s *sealer) seal(dst []byte, h packetHeader, payload ...[]byte) []byte {
	at := len(dst)
	first, second, size := byte(0x80), h.pt, headerSize+h.extension()
	if h.marker {
		second |= 0x80
	}
	if size > headerSize {
		first = 0x90
	}
	dst = append(dst, first, second, byte(h.seq>>8), byte(h.seq),
		byte(h.timestamp>>24), byte(h.timestamp>>16), byte(h.timestamp>>8), byte(h.timestamp),
		byte(h.ssrc>>24), byte(h.ssrc>>16), byte(h.ssrc>>8), byte(h.ssrc))
	dst = h.appendExtension(dst)
	if s.aead == nil {
		return s.sealPlain(dst, at, payload)
	}
	n := &s.nonce // RFC 7714 §8.1: 0, SSRC, ROC and sequence number, with the salt
	*n = s.salt
	binary.BigEndian.PutUint32(n[2:], binary.BigEndian.Uint32(n[2:])^h.ssrc)
	binary.BigEndian.PutUint32(n[6:], binary.BigEndian.Uint32(n[6:])^h.roc)
	n[10] ^= byte(h.seq >> 8)
	n[11] ^= byte(h.seq)
	body := payload[0]
	if len(payload) > 1 { // a retransmission: in place
		for _, p := range payload {
			dst = append(dst, p...)
		}
		body = dst[at+size:]
	}
	return s.aead.Seal(dst[:at+size], n[:], body, dst[at:at+size])
}

// sealPlain is for the profiles without AEAD, where Pion's context counts the roll-overs itself.
func (s *sealer) sealPlain(dst []byte, at int, payload [][]byte) []byte {
	for _, p := range payload {
		dst = append(dst, p...)
	}
	var h rtp.Header
	if _, err := h.Unmarshal(dst[at:]); err != nil {
		return dst[:at]
	}
	out, err := s.plain.EncryptRTP(s.scratch[:0], dst[at:], &h)
	if err != nil {
		return dst[:at]
	}
	s.scratch = out
	return append(dst[:at], out...)
}
