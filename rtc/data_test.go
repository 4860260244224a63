package rtc

import (
	"bytes"
	"testing"

	"github.com/pion/webrtc/v4"

	"sluice/media"
)

// Messages of all sizes come whole and in their order, whatever size the buffer has.
func TestMessagesOfAllSizes(t *testing.T) {
	e := listen(t)
	pc := peer(t)
	d, err := pc.CreateDataChannel("sizes", nil)
	if err != nil {
		t.Fatal(err)
	}
	sizes := []int{1, smallMessage, smallMessage + 1, 1, 8 * smallMessage, maxMessage - 1, maxMessage, 7, maxMessage, 3}
	d.OnOpen(func() {
		for i, n := range sizes {
			_ = d.Send(bytes.Repeat([]byte{byte(i)}, n))
		}
	})
	heard := make(chan media.Message, 2*len(sizes))
	r, answer, err := e.AnswerReceiver(offer(t, pc, &webrtc.OfferOptions{}), ReceiverOptions{Events: Events{OnMessage: func(m media.Message) { heard <- m }}})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	accept(t, pc, answer)
	for i, n := range sizes {
		if m := await(t, heard, "a message"); !bytes.Equal(m.Data, bytes.Repeat([]byte{byte(i)}, n)) || !m.Binary {
			t.Fatalf("message %d has %d bytes, want %d of %d", i, len(m.Data), n, i)
		}
	}
}
