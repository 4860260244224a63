package rtc

import (
	"testing"
	"time"

	"github.com/pion/interceptor/pkg/twcc"
	"github.com/pion/rtcp"
)

// The estimate follows the path: a queue that fills and losses bring it down to what the path takes, and a path that takes more lets it grow.
func TestEstimateFollowsThePath(t *testing.T) {
	for _, c := range []struct {
		name        string
		sent, path  float64 // bit/s
		loss        int     // one of so many packets; 0: none
		least, most float64 // of the estimate, bit/s
	}{
		{"the path takes half of it", 2e6, 1e6, 0, 0.5e6, 1.1e6},
		{"the path takes much more", 2e6, 50e6, 0, 2e6, 4e6},
		{"a fifth is lost", 2e6, 50e6, 5, 50e3, 1.2e6},
		{"one of a hundred is lost", 2e6, 50e6, 100, 2e6, 4e6},
	} {
		t.Run(c.name, func(t *testing.T) {
			const size = 1250
			var w wide
			recorder := twcc.NewRecorder(1)
			now := time.Unix(1000, 0)
			begin := now
			free := now // when the path has sent what waits
			estimate := 0
			told := now
			for i := 0; now.Sub(begin) < 20*time.Second; i++ {
				now = now.Add(time.Duration(size * 8 / c.sent * float64(time.Second)))
				n := w.stamp(size, now)
				if free.Before(now) {
					free = now
				}
				if free.Sub(now) < 300*time.Millisecond && (c.loss == 0 || i%c.loss != 0) { // a queue is not endless
					free = free.Add(time.Duration(size * 8 / c.path * float64(time.Second)))
					recorder.Record(2, n, free.Add(20*time.Millisecond).UnixMicro())
				}
				if now.Sub(told) >= 60*time.Millisecond {
					told = now
					for _, p := range recorder.BuildFeedbackPacket() {
						b, err := p.Marshal()
						if err != nil {
							t.Fatal(err)
						}
						var f rtcp.TransportLayerCC
						if err := f.Unmarshal(b); err != nil {
							t.Fatal(err)
						}
						estimate = w.feedback(&f, now)
					}
				}
			}
			if float64(estimate) < c.least || float64(estimate) > c.most {
				t.Errorf("estimated %d bit/s, want %.0f to %.0f", estimate, c.least, c.most)
			}
		})
	}
}
