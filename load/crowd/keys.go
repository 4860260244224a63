package crowd

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/big"
	"time"

	"github.com/pion/dtls/v3"
	"github.com/pion/logging"
	"github.com/pion/srtp/v3"
)

// profile is an SRTP protection profile (RFC 5764 §4.1.2, RFC 7714 §14.2).
type profile struct {
	dtls      dtls.SRTPProtectionProfile
	srtp      srtp.ProtectionProfile
	key, salt int // bytes
	gcm       bool
}

func profiles() []profile {
	return []profile{
		{dtls.SRTP_AEAD_AES_128_GCM, srtp.ProtectionProfileAeadAes128Gcm, 16, 12, true},
		{dtls.SRTP_AEAD_AES_256_GCM, srtp.ProtectionProfileAeadAes256Gcm, 32, 12, true},
		{dtls.SRTP_AES128_CM_HMAC_SHA1_80, srtp.ProtectionProfileAes128CmHmacSha1_80, 16, 14, false},
	}
}

// identity is the certificate of all sessions of this process. One is enough: nobody compares them.
type identity struct {
	certificate tls.Certificate
	fingerprint string
	profiles    []profile
}

func newIdentity(now time.Time) (*identity, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(now.UnixNano()), NotBefore: now.Add(-24 * time.Hour), NotAfter: now.Add(30 * 24 * time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	return &identity{tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, formatFingerprint(der), profiles()}, nil
}

var errFingerprint = errors.New("the server's certificate is not that of its answer")

// dtlsConfig is for a session with a server of these fingerprints.
func (id *identity) dtlsConfig(prints [][sha256.Size]byte) *dtls.Config {
	c := &dtls.Config{
		Certificates:            []tls.Certificate{id.certificate},
		ExtendedMasterSecret:    dtls.RequireExtendedMasterSecret,
		ClientAuth:              dtls.RequireAnyClientCert,
		InsecureSkipVerify:      true, // the fingerprint decides
		InsecureSkipVerifyHello: true,
		FlightInterval:          100 * time.Millisecond,
		LoggerFactory:           &logging.DefaultLoggerFactory{Writer: io.Discard, DefaultLogLevel: logging.LogLevelDisabled},
		VerifyPeerCertificate: func(raw [][]byte, _ [][]*x509.Certificate) error {
			for _, p := range prints {
				if len(raw) > 0 && sha256.Sum256(raw[0]) == p {
					return nil
				}
			}
			return errFingerprint
		},
	}
	for _, p := range id.profiles {
		c.SRTPProtectionProfiles = append(c.SRTPProtectionProfiles, p.dtls)
	}
	return c
}

// keys are both directions of a session.
type keys struct {
	in, out *srtp.Context
	peek    *peeker
}

// exportKeys takes the keys out of a connection (RFC 5764 §4.2).
func exportKeys(conn *dtls.Conn, client bool) (*keys, error) {
	agreed, ok := conn.SelectedSRTPProtectionProfile()
	state, alive := conn.ConnectionState()
	if !ok || !alive {
		return nil, errors.New("no SRTP profile in common")
	}
	for _, p := range profiles() {
		if p.dtls != agreed {
			continue
		}
		m, err := state.ExportKeyingMaterial("EXTRACTOR-dtls_srtp", nil, 2*(p.key+p.salt))
		if err != nil {
			return nil, fmt.Errorf("export the keys: %w", err)
		}
		ck, sk, cs, ss := m[:p.key], m[p.key:2*p.key], m[2*p.key:2*p.key+p.salt], m[2*p.key+p.salt:]
		if client {
			return newKeys(p, sk, ss, ck, cs)
		}
		return newKeys(p, ck, cs, sk, ss)
	}
	return nil, fmt.Errorf("SRTP profile %v is not ours", agreed)
}

func newKeys(p profile, inKey, inSalt, outKey, outSalt []byte) (*keys, error) {
	k := &keys{}
	var err error
	if k.in, err = srtp.CreateContext(inKey, inSalt, p.srtp); err != nil {
		return nil, fmt.Errorf("make SRTP keys: %w", err)
	}
	if k.out, err = srtp.CreateContext(outKey, outSalt, p.srtp); err != nil {
		return nil, fmt.Errorf("make SRTP keys: %w", err)
	}
	k.peek, err = newPeeker(p, inKey, inSalt)
	return k, err
}

// peeker decrypts the beginning of a packet and nothing else. All profiles encrypt with AES in counter mode, so that a few blocks
// tell all that a load tool wants to know of a payload. That the rest is right is tried on a sample, see session.sample.
type peeker struct {
	block cipher.Block
	salt  [14]byte
	gcm   bool
	out   [peekSize]byte
}

// peekSize is enough for a stamp, and for the types of the units of a key frame's first packet; four blocks of AES.
const peekSize = 64

func newPeeker(p profile, key, salt []byte) (*peeker, error) {
	k := &peeker{gcm: p.gcm}
	session, err := derive(key, salt, 0, p.key) // labels: RFC 3711 §4.3.1
	if err != nil {
		return nil, err
	}
	s, err := derive(key, salt, 2, p.salt)
	if err != nil {
		return nil, err
	}
	copy(k.salt[:], s)
	k.block, err = aes.NewCipher(session)
	return k, err
}

// derive is the key derivation of RFC 3711 §4.3.3 with a rate of 0.
func derive(master, salt []byte, label byte, n int) ([]byte, error) {
	block, err := aes.NewCipher(master)
	if err != nil {
		return nil, fmt.Errorf("derive SRTP keys: %w", err)
	}
	iv := make([]byte, aes.BlockSize)
	copy(iv, salt)
	iv[7] ^= label
	out := make([]byte, n)
	cipher.NewCTR(block, iv).XORKeyStream(out, out)
	return out, nil
}

// open decrypts the first bytes of a payload; they are valid until the next call.
func (k *peeker) open(payload []byte, ssrc, roc uint32, seq uint16) []byte {
	var iv [aes.BlockSize]byte
	copy(iv[:], k.salt[:])
	if k.gcm { // RFC 7714 §8.1; the counter begins with 2 (SP 800-38D §7.1)
		binary.BigEndian.PutUint32(iv[2:], binary.BigEndian.Uint32(iv[2:])^ssrc)
		binary.BigEndian.PutUint32(iv[6:], binary.BigEndian.Uint32(iv[6:])^roc)
		iv[10] ^= byte(seq >> 8)
		iv[11] ^= byte(seq)
		iv[12], iv[13], iv[15] = 0, 0, 2
	} else { // RFC 3711 §4.1.1
		binary.BigEndian.PutUint32(iv[4:], binary.BigEndian.Uint32(iv[4:])^ssrc)
		binary.BigEndian.PutUint32(iv[8:], binary.BigEndian.Uint32(iv[8:])^roc)
		iv[12] ^= byte(seq >> 8)
		iv[13] ^= byte(seq)
	}
	n := min(len(payload), peekSize)
	for at := 0; at < n; at += aes.BlockSize {
		k.block.Encrypt(k.out[at:], iv[:])
		iv[15]++ // four blocks: no carry
	}
	for i := range n {
		k.out[i] ^= payload[i]
	}
	return k.out[:n]
}
