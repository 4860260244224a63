package rtc

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"testing"

	"github.com/pion/rtp"
	"github.com/pion/srtp/v3"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The vectors of RFC 3711 §B.3.
func TestKeyDerivation(t *testing.T) {
	master, salt := unhex(t, "e1f97a0d3e018be0d64fa32c06de4139"), unhex(t, "0ec675ad498afeebb6960b3aabe6")
	for _, c := range []struct {
		label byte
		want  string
	}{{labelEncryption, "c61e7a93744f39ee10734afe3ff7a087"}, {labelSalt, "30cbbc08863d8c85d49db34a9ae1"}} {
		got, err := derive(master, salt, c.label, len(c.want)/2)
		if err != nil || hex.EncodeToString(got) != c.want {
			t.Errorf("label %d: %x, %v, want %s", c.label, got, err, c.want)
		}
	}
}

// Whatever profile was agreed on, another implementation of SRTP reads what was sealed, also over a roll-over of the sequence number and
// with late packets, and refuses what was changed.
func TestSealedPacketsAreRead(t *testing.T) {
	for _, p := range profiles() {
		t.Run(fmt.Sprint(p.dtls), func(t *testing.T) {
			material := make([]byte, p.material())
			for i := range material {
				material[i] = byte(i*7 + 1)
			}
			ours, theirs := splitKeys(p, material, false), splitKeys(p, material, true)
			if !bytes.Equal(ours.ourKey, theirs.theirKey) || !bytes.Equal(ours.theirSalt, theirs.ourSalt) {
				t.Fatal("the two sides have different keys")
			}
			s, err := newSealer(ours)
			if err != nil {
				t.Fatal(err)
			}
			reader, err := srtp.CreateContext(theirs.theirKey, theirs.theirSalt, p.srtp)
			if err != nil {
				t.Fatal(err)
			}
			out := outTrack{}
			again := outTrack{}
			for _, seq := range []uint16{65533, 65534, 0, 65535, 1, 2} {
				payload := bytes.Repeat([]byte{byte(seq)}, 100)
				sealed := s.seal(nil, seq == 1, 96, seq, out.rollOver(seq), 12345, 0xdecafbad, payload)
				if len(sealed) != headerSize+len(payload)+s.overhead {
					t.Errorf("packet %d has %d bytes", seq, len(sealed))
				}
				spoiled := bytes.Clone(sealed)
				spoiled[20] ^= 1
				if _, err := reader.DecryptRTP(nil, spoiled, nil); err == nil {
					t.Errorf("packet %d was read although it was changed", seq)
				}
				plain, err := reader.DecryptRTP(nil, sealed, nil)
				if err != nil {
					t.Fatalf("packet %d: %v", seq, err)
				}
				var got rtp.Packet
				if err := got.Unmarshal(plain); err != nil {
					t.Fatal(err)
				}
				if got.SequenceNumber != seq || got.Timestamp != 12345 || got.SSRC != 0xdecafbad || got.Marker != (seq == 1) || got.PayloadType != 96 || !bytes.Equal(got.Payload, payload) {
					t.Errorf("packet %d came as %v", seq, got.Header)
				}
				if p.gcm { // the same packet again has the same bytes: a nonce is never used for two texts
					if twice := s.seal(nil, seq == 1, 96, seq, again.rollOver(seq), 12345, 0xdecafbad, payload); !bytes.Equal(twice, sealed) {
						t.Errorf("packet %d differs when it is sealed again", seq)
					}
				}
			}
			sealed := s.seal(nil, false, 97, 7, 0, 1, 0xfeed, []byte{1, 2}, []byte{3, 4, 5}) // of two parts, as retransmissions are
			plain, err := reader.DecryptRTP(nil, sealed, nil)
			if err != nil || !bytes.Equal(plain[headerSize:], []byte{1, 2, 3, 4, 5}) {
				t.Errorf("a packet of two parts came as %x, %v", plain, err)
			}
		})
	}
}

func TestSealDoesNotAllocate(t *testing.T) {
	p := profiles()[0]
	s, err := newSealer(splitKeys(p, make([]byte, p.material()), false))
	if err != nil {
		t.Fatal(err)
	}
	arena, payload := make([]byte, 0, 4096), make([]byte, 1200)
	if n := testing.AllocsPerRun(100, func() { s.seal(arena, false, 96, 1, 0, 1, 1, payload) }); n != 0 {
		t.Errorf("%v allocations for a packet", n)
	}
}

func BenchmarkSeal(b *testing.B) {
	for _, p := range profiles() {
		b.Run(fmt.Sprint(p.dtls), func(b *testing.B) {
			s, err := newSealer(splitKeys(p, make([]byte, p.material()), false))
			if err != nil {
				b.Fatal(err)
			}
			arena, payload := make([]byte, 0, 4096), make([]byte, 1200)
			b.ReportAllocs()
			var seq uint16
			for b.Loop() {
				seq++
				s.seal(arena, false, 96, seq, 0, 1, 1, payload)
			}
		})
	}
}
