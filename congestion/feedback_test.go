package congestion

import (
	"slices"
	"testing"

	"github.com/pion/rtcp"
)

// seen is what each says of a packet.
type seen struct {
	number uint16
	came   bool
	delta  int64
}

func walk(b []byte) (all []seen) {
	each(b, func(n uint16, came bool, delta int64) { all = append(all, seen{n, came, delta}) })
	return all
}

func messages() []rtcp.TransportLayerCC {
	delta := func(symbol uint16, us int64) *rtcp.RecvDelta { return &rtcp.RecvDelta{Type: symbol, Delta: us} }
	const no, small, large = rtcp.TypeTCCPacketNotReceived, rtcp.TypeTCCPacketReceivedSmallDelta, rtcp.TypeTCCPacketReceivedLargeDelta
	return []rtcp.TransportLayerCC{
		{BaseSequenceNumber: 65534, PacketStatusCount: 3, ReferenceTime: 5,
			PacketChunks: []rtcp.PacketStatusChunk{&rtcp.RunLengthChunk{PacketStatusSymbol: small, RunLength: 3}},
			RecvDeltas:   []*rtcp.RecvDelta{delta(small, 250), delta(small, 0), delta(small, 63750)}},
		{BaseSequenceNumber: 7, PacketStatusCount: 9, ReferenceTime: 1<<24 - 1,
			PacketChunks: []rtcp.PacketStatusChunk{
				&rtcp.StatusVectorChunk{SymbolSize: rtcp.TypeTCCSymbolSizeTwoBit, SymbolList: []uint16{small, no, large, no, small, large, no}},
				&rtcp.StatusVectorChunk{SymbolSize: rtcp.TypeTCCSymbolSizeOneBit, SymbolList: []uint16{no, small, no, no, no, no, no, no, no, no, no, no, no, no}}},
			RecvDeltas: []*rtcp.RecvDelta{delta(small, 500), delta(large, -4000), delta(small, 1000), delta(large, 100_000), delta(small, 750)}},
		{BaseSequenceNumber: 1, PacketStatusCount: 20, PacketChunks: []rtcp.PacketStatusChunk{&rtcp.RunLengthChunk{PacketStatusSymbol: no, RunLength: 20}}},
	}
}

func bytesOf(t testing.TB, m rtcp.TransportLayerCC) []byte {
	t.Helper()
	m.Header = rtcp.Header{Count: rtcp.FormatTCC, Type: rtcp.TypeTransportSpecificFeedback}
	size := 20 + 2*len(m.PacketChunks)
	for _, d := range m.RecvDeltas {
		size += int(d.Type)
	}
	m.Header.Length = uint16((size+3)/4 - 1)
	b, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return b[12:]
}

// What Pion writes is read, whatever the chunks.
func TestEach(t *testing.T) {
	for _, m := range messages() {
		var want []seen
		deltas := m.RecvDeltas
		add := func(symbol uint16) {
			s := seen{number: m.BaseSequenceNumber + uint16(len(want))}
			if len(want) == int(m.PacketStatusCount) {
				return
			}
			if symbol != rtcp.TypeTCCPacketNotReceived {
				s.came, s.delta, deltas = true, deltas[0].Delta, deltas[1:]
			}
			want = append(want, s)
		}
		for _, c := range m.PacketChunks {
			switch c := c.(type) {
			case *rtcp.RunLengthChunk:
				for range c.RunLength {
					add(c.PacketStatusSymbol)
				}
			case *rtcp.StatusVectorChunk:
				for _, s := range c.SymbolList {
					add(s)
				}
			}
		}
		b := bytesOf(t, m)
		if got := walk(b); !slices.Equal(got, want) {
			t.Errorf("%v: read %v", want, got)
		}
		for n := range b { // cut short: as far as it goes
			if got := walk(b[:n]); len(got) > len(want) {
				t.Errorf("%d bytes tell of %d packets", n, len(got))
			}
		}
	}
}

func FuzzFeedback(f *testing.F) {
	for _, m := range messages() {
		f.Add(bytesOf(f, m))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		before := slices.Clone(b)
		c := Control{}
		for range 100 {
			c.Send(1000, begin)
		}
		c.Feedback(b, begin)
		if !slices.Equal(b, before) {
			t.Error("the message was changed")
		}
		if e := c.Estimate(); len(b) >= headSize && (e < leastEstimate || e > mostEstimate) {
			t.Errorf("estimate %d", e)
		}
	})
}
