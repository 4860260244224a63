package crowd

import (
	"bytes"
	"crypto/rand"
	"testing"

	"github.com/pion/rtp"
)

func TestPeeker(t *testing.T) {
	for i, p := range profiles() {
		t.Run([]string{"GCM 128", "GCM 256", "CM"}[i], func(t *testing.T) {
			key, salt := make([]byte, p.key), make([]byte, p.salt)
			_, _ = rand.Read(key)
			_, _ = rand.Read(salt)
			k, err := newKeys(p, key, salt, key, salt)
			if err != nil {
				t.Fatal(err)
			}
			for _, n := range []int{5, 64, 900} {
				payload := make([]byte, n)
				_, _ = rand.Read(payload)
				for _, seq := range []uint16{0xfffe, 0xffff, 0, 1} {
					h := rtp.Header{Version: 2, PayloadType: 102, SequenceNumber: seq, SSRC: 0x89abcdef}
					plain, _ := (&rtp.Packet{Header: h, Payload: payload}).Marshal()
					sealed, err := k.out.EncryptRTP(nil, plain, &h)
					if err != nil {
						t.Fatal(err)
					}
					roc := uint32(0)
					if n > 5 || seq < 9 { // the context goes on counting
						roc, _ = k.out.ROC(h.SSRC)
					}
					if got := k.peek.open(sealed[12:12+n], h.SSRC, roc, seq); !bytes.Equal(got, payload[:min(n, peekSize)]) {
						t.Errorf("%d bytes, number %d: wrong", n, seq)
					}
				}
				k.out.SetROC(h0, 0)
			}
		})
	}
}

const h0 = 0x89abcdef
