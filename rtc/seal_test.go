package rtc

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"testing"

	"github.com/pion/rtcp"
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
			for _, seq := range []uint16{65533, 65534, 0, 65535, 1, 2} {
				payload := bytes.Repeat([]byte{byte(seq)}, 100)
				index, ok := out.once(seq)
				if _, twice := out.once(seq); !ok || twice {
					t.Fatalf("packet %d can be sealed once: %v, twice: %v", seq, ok, twice)
				}
				roc := uint32(index >> 16)
				sealed := s.seal(nil, packetHeader{marker: seq == 1, pt: 96, seq: seq, roc: roc, timestamp: 12345, ssrc: 0xdecafbad}, payload)
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
					if twice := s.seal(nil, packetHeader{marker: seq == 1, pt: 96, seq: seq, roc: roc, timestamp: 12345, ssrc: 0xdecafbad}, payload); !bytes.Equal(twice, sealed) {
						t.Errorf("packet %d differs when it is sealed again", seq)
					}
				}
			}
			sealed := s.seal(nil, packetHeader{pt: 97, seq: 7, timestamp: 1, ssrc: 0xfeed, wideID: 5, wide: 0x1234}, []byte{1, 2}, []byte{3, 4, 5}) // of two parts, as retransmissions are
			plain, err := reader.DecryptRTP(nil, sealed, nil)
			var got rtp.Packet
			if err != nil || got.Unmarshal(plain) != nil || !bytes.Equal(got.Payload, []byte{1, 2, 3, 4, 5}) || !bytes.Equal(got.GetExtension(5), []byte{0x12, 0x34}) {
				t.Errorf("a packet of two parts with a transport-wide number came as %x, %v", plain, err)
			}
		})
	}
}

// What another implementation seals is opened, once; what was changed or comes again is not.
func TestOpen(t *testing.T) {
	for _, p := range profiles() {
		t.Run(fmt.Sprint(p.dtls), func(t *testing.T) {
			material := make([]byte, p.material())
			for i := range material {
				material[i] = byte(7 * i)
			}
			ours, theirs := splitKeys(p, material, false), splitKeys(p, material, true)
			writer, err := srtp.CreateContext(theirs.ourKey, theirs.ourSalt, p.srtp)
			if err != nil {
				t.Fatal(err)
			}
			o, err := newOpener(ours)
			if err != nil {
				t.Fatal(err)
			}
			open := func(b []byte) ([]byte, error) {
				b = bytes.Clone(b)
				var h rtp.Header
				n, err := h.Unmarshal(b)
				if err != nil {
					t.Fatal(err)
				}
				return o.open(b, &h, n)
			}
			for _, ssrc := range []uint32{1, 2} {
				var all [][]byte
				for seq := range uint16(3000) {
					plain, err := (&rtp.Packet{Header: rtp.Header{Version: 2, PayloadType: 96, SequenceNumber: 65000 + seq, SSRC: ssrc}, Payload: []byte{1, byte(seq), byte(seq >> 8)}}).Marshal()
					if err != nil {
						t.Fatal(err)
					}
					sealed, err := writer.EncryptRTP(nil, plain, nil)
					if err != nil {
						t.Fatal(err)
					}
					all = append(all, sealed)
				}
				for i := range all { // two by two in the wrong order, every seventh not at all
					at := i ^ 1
					if at%7 == 0 {
						continue
					}
					spoiled := bytes.Clone(all[at])
					spoiled[len(spoiled)-1] ^= 1
					if _, err := open(spoiled); err == nil {
						t.Fatalf("packet %d was opened although it was changed", at)
					}
					payload, err := open(all[at])
					if err != nil || !bytes.Equal(payload, []byte{1, byte(at), byte(at >> 8)}) {
						t.Fatalf("packet %d: %x, %v", at, payload, err)
					}
					if _, err := open(all[at]); err == nil {
						t.Fatalf("packet %d was opened twice", at)
					}
				}
				for _, at := range []int{1, 1000, 2500} {
					if _, err := open(all[at]); err == nil {
						t.Errorf("packet %d was opened at the end once more", at)
					}
				}
				if _, err := open(all[2989]); err != nil {
					t.Errorf("a late packet: %v", err)
				}
			}
		})
	}
}

// Control packets go both ways between this implementation and another, and none is taken twice.
func TestControlPackets(t *testing.T) {
	for _, p := range profiles() {
		t.Run(fmt.Sprint(p.dtls), func(t *testing.T) {
			material := make([]byte, p.material())
			for i := range material {
				material[i] = byte(5 * i)
			}
			ours, theirs := splitKeys(p, material, true), splitKeys(p, material, false)
			writer, err := srtp.CreateContext(theirs.ourKey, theirs.ourSalt, p.srtp)
			if err != nil {
				t.Fatal(err)
			}
			reader, err := srtp.CreateContext(theirs.theirKey, theirs.theirSalt, p.srtp)
			if err != nil {
				t.Fatal(err)
			}
			c, err := newSRTCP(ours)
			if err != nil {
				t.Fatal(err)
			}
			var all [][]byte
			for i := range 200 {
				plain, err := (&rtcp.PictureLossIndication{SenderSSRC: uint32(i % 2), MediaSSRC: uint32(i)}).Marshal()
				if err != nil {
					t.Fatal(err)
				}
				sealed, err := c.seal(nil, plain)
				if err != nil {
					t.Fatal(err)
				}
				if got, err := reader.DecryptRTCP(nil, sealed, nil); err != nil || !bytes.Equal(got, plain) {
					t.Fatalf("packet %d came as %x, %v", i, got, err)
				}
				if sealed, err = writer.EncryptRTCP(nil, plain, nil); err != nil {
					t.Fatal(err)
				}
				all = append(all, sealed)
			}
			for i := range all {
				at := i ^ 3
				spoiled := bytes.Clone(all[at])
				spoiled[9] ^= 1
				if _, err := c.open(spoiled); err == nil {
					t.Fatalf("packet %d was opened although it was changed", at)
				}
				got, err := c.open(bytes.Clone(all[at]))
				if err != nil || got[11] != byte(at) {
					t.Fatalf("packet %d: %x, %v", at, got, err)
				}
				if _, err := c.open(bytes.Clone(all[at])); err == nil {
					t.Fatalf("packet %d was opened twice", at)
				}
			}
			if _, err := c.open(bytes.Clone(all[0])); err == nil {
				t.Error("an old packet was opened again")
			}
			for n := range 20 {
				if _, err := c.open(make([]byte, n)); err == nil {
					t.Errorf("%d bytes were opened", n)
				}
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
	if n := testing.AllocsPerRun(100, func() { s.seal(arena, packetHeader{pt: 96, seq: 1, timestamp: 1, ssrc: 1}, payload) }); n != 0 {
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
				s.seal(arena, packetHeader{pt: 96, seq: seq, timestamp: 1, ssrc: 1}, payload)
			}
		})
	}
}
