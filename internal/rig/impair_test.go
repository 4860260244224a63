package rig

import (
	"encoding/binary"
	"fmt"
	"sync"
	"testing"
	"time"

	"sluice/internal/impair"
	"sluice/media"
)

// wire counts what a bad network is given in the direction of the media, and what is asked for in the other.
// Headers of SRTP are readable by anybody (RFC 3711 §3.1), and so are the first eight bytes of SRTCP (§3.4).
type wire struct {
	down impair.Direction // of the media

	mu      sync.Mutex
	begun   bool
	ssrc    uint32
	sent    map[uint16]bool // lost the first time
	lost    int             // packets, the first time that they were sent
	again   int             // packets that were sent again
	nacks   int             // packets of RTCP
	plis    int
	foreign map[uint32]int
}

func newWire(down impair.Direction) *wire { return &wire{down: down, sent: map[uint16]bool{}} }

func (w *wire) tap(d impair.Direction, b []byte, f impair.Fate) {
	if len(b) < 12 || b[0]>>6 != 2 {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	switch rtcp := b[1] >= 192 && b[1] <= 223; {
	case rtcp && d != w.down:
		switch kind := b[0] & 31; {
		case b[1] == 205 && kind == 1: // RFC 4585 §6.2.1
			w.nacks++
		case b[1] == 206 && kind == 1: // RFC 4585 §6.3.1
			w.plis++
		}
	case !rtcp && d == w.down:
		seq, ssrc := binary.BigEndian.Uint16(b[2:]), binary.BigEndian.Uint32(b[8:])
		if !w.begun {
			w.begun, w.ssrc = true, ssrc
		}
		if _, known := w.sent[seq]; known || ssrc != w.ssrc {
			w.again++
			return
		}
		w.sent[seq] = f.Dropped
		if f.Dropped {
			w.lost++
		}
	}
}

// figures of a wire.
type figures struct{ packets, lost, again, nacks, plis int }

func (w *wire) sum() figures {
	w.mu.Lock()
	defer w.mu.Unlock()
	return figures{len(w.sent), w.lost, w.again, w.nacks, w.plis}
}

// badNetwork is a case: a publisher and a viewer, one of them behind a bad network, the other behind one on which nothing happens.
type badNetwork struct {
	t       *testing.T
	pub     *Publisher
	viewer  *Viewer
	wire    *wire         // of the one that is behind a bad one
	path    *impair.Relay // the same
	asked   int           // key frames, before it began
	started time.Time
}

// set breaks or mends both directions.
func (b *badNetwork) set(p impair.Path) {
	b.t.Helper()
	for _, d := range []impair.Direction{impair.Up, impair.Down} {
		if err := b.path.Set(d, p); err != nil {
			b.t.Fatal(err)
		}
	}
}

// more waits until the viewer has been shown n frames more.
func (b *badNetwork) more(n int, within time.Duration) {
	b.t.Helper()
	b.shows(b.viewer.Seen().Sum().Newest+n, within)
}

// shows waits until the viewer was shown a frame, and returns when.
func (b *badNetwork) shows(frame int, within time.Duration) time.Time {
	b.t.Helper()
	for deadline := time.Now().Add(within); ; {
		at, ok := b.viewer.Seen().ShownAt(frame)
		if ok {
			return at
		}
		if time.Now().After(deadline) {
			b.t.Fatalf("frame %d was not shown within %v: %+v, on the wire %+v", frame, within, b.viewer.Seen().Sum(), b.wire.sum())
		}
		<-time.After(10 * time.Millisecond)
	}
}

// settle mends the path, and waits until what is missing could be there.
func (b *badNetwork) settle() {
	b.t.Helper()
	b.set(impair.Path{})
	b.more(30, 10*time.Second)
}

// repaired checks that of what was lost on the way at least 99 % came later, that all frames are whole, and that
// it did not take more than needed.
func (b *badNetwork) repaired() {
	b.t.Helper()
	b.settle()
	s, w := b.viewer.Seen().Sum(), b.wire.sum()
	b.t.Logf("%+v; on the wire %+v; up %+v; down %+v", s, w, b.path.Stats(impair.Up), b.path.Stats(impair.Down))
	if w.lost < 60 {
		b.t.Errorf("%d packets were lost, which is too few to say anything", w.lost)
	}
	if s.Missing*100 > w.lost {
		b.t.Errorf("of %d packets that were lost %d never came", w.lost, s.Missing)
	}
	if s.Whole*100 < s.Frames*99 {
		b.t.Errorf("%d of %d frames are whole", s.Whole, s.Frames)
	}
	if w.again > 3*w.lost {
		b.t.Errorf("%d packets were sent again for %d that were lost", w.again, w.lost)
	}
	b.sound()
}

// sound checks what always holds.
func (b *badNetwork) sound() {
	b.t.Helper()
	if s := b.viewer.Seen().Sum(); s.Doubles > 0 || s.Foreign > 0 {
		b.t.Errorf("%d packets came twice, %d are of no frame", s.Doubles, s.Foreign)
	}
	if b.viewer.ended.Load() {
		b.t.Error("the viewer's session ended")
	}
	if n := b.pub.Asked() - b.asked; n > 3 {
		b.t.Errorf("%d key frames were asked for in %v", n, time.Since(b.started))
	}
}

// TestBadNetworks has a viewer or a publisher behind a bad network in each case. The cases share a cluster, and run together.
func TestBadNetworks(t *testing.T) {
	const lossy = 9 * 30 // frames: about a hundred packets of nine seconds are lost
	loss := impair.Config{Up: impair.Path{Loss: 0.01}, Down: impair.Path{Loss: 0.05}}
	upLoss := impair.Config{Up: impair.Path{Loss: 0.05}, Down: impair.Path{Loss: 0.01}}
	far := impair.Path{Delay: 50 * time.Millisecond, Jitter: 20 * time.Millisecond, Reorder: 0.02, Late: 15 * time.Millisecond}
	double := impair.Path{Duplicate: 0.1}
	cases := []struct {
		name   string
		plain  bool             // without RTX
		way    impair.Direction // of the media: Down for a viewer's network, Up for a publisher's
		path   impair.Config
		frames int // that are shown before do
		do     func(*badNetwork)
	}{
		{"viewer loses 5 %", false, impair.Down, loss, lossy, (*badNetwork).repaired},
		{"plain viewer loses 5 %", true, impair.Down, loss, lossy, (*badNetwork).repaired},
		{"publisher loses 5 %", false, impair.Up, upLoss, lossy, (*badNetwork).repaired},
		{"plain publisher loses 5 %", true, impair.Up, upLoss, lossy, (*badNetwork).repaired},
		{"viewer is far away", false, impair.Down, impair.Config{Up: far, Down: far}, 120, (*badNetwork).farAway},
		{"publisher is far away", false, impair.Up, impair.Config{Up: far, Down: far}, 120, (*badNetwork).farAway},
		{"viewer is cut off for a second", true, impair.Down, impair.Config{}, 30, (*badNetwork).outage}, // Pion drops RTX above 50 packets
		{"publisher is cut off for a second", false, impair.Up, impair.Config{}, 30, (*badNetwork).outage},
		{"plain publisher is cut off for a second", true, impair.Up, impair.Config{}, 30, (*badNetwork).outage},
		{"viewer gets another address", true, impair.Down, impair.Config{}, 30, (*badNetwork).moves},
		{"publisher gets another address", false, impair.Up, impair.Config{}, 30, (*badNetwork).moves},
		{"viewer gets duplicates", false, impair.Down, impair.Config{Up: double, Down: double}, 90, (*badNetwork).complete},
		{"publisher's packets come twice", false, impair.Up, impair.Config{Up: double, Down: double}, 90, (*badNetwork).complete},
	}
	c := Start(t, Options{Edges: 1})
	var all sync.WaitGroup
	defer all.Wait()
	for i, x := range cases {
		all.Go(func() { // t.Parallel runs no more at a time than there are processors
			t.Run(x.name, func(t *testing.T) {
				x.path.Seed = uint64(i)
				b := &badNetwork{t: t}
				b.start(c, media.Key{App: "live", ID: fmt.Sprint("bad", i)}, x.way, x.path, x.plain)
				defer b.viewer.Vanish()
				defer b.pub.Vanish()
				b.more(x.frames, 20*time.Second)
				x.do(b)
			})
		})
	}
}

// start publishes a stream and watches it, and waits for the first frame.
func (b *badNetwork) start(c *Cluster, key media.Key, way impair.Direction, path impair.Config, plain bool) {
	b.t.Helper()
	b.wire, b.started = newWire(way), time.Now()
	path.Tap = b.wire.tap
	bad, good := []Option{Behind(path), InPackets(8)}, []Option{Behind(impair.Config{}), InPackets(8)}
	if plain {
		bad = append(bad, Plain())
	}
	pub, view := good, bad
	if way == impair.Up {
		pub, view = bad, good
	}
	var err error
	if b.pub, err = c.Publish(key, pub...); err != nil {
		b.t.Fatal(err)
	}
	for b.viewer == nil { // as players do: again while the stream is not there yet
		if b.viewer, err = c.Watch(key, view...); err != nil && time.Since(b.started) > 10*time.Second {
			b.t.Fatal(err)
		}
		<-time.After(20 * time.Millisecond)
	}
	b.path = b.viewer.Path()
	if way == impair.Up {
		b.path = b.pub.Path()
	}
	b.shows(0, 10*time.Second)
	b.asked = b.pub.Asked()
}

// complete checks that nothing is missing, and that hardly anything was sent again.
func (b *badNetwork) complete() {
	b.t.Helper()
	b.settle()
	s, w := b.viewer.Seen().Sum(), b.wire.sum()
	b.t.Logf("%+v; on the wire %+v; up %+v; down %+v", s, w, b.path.Stats(impair.Up), b.path.Stats(impair.Down))
	if s.Missing > 0 || s.Whole < s.Frames-1 || s.Shown+s.Passed < s.Frames-1 { // the last one may be under way
		b.t.Errorf("nothing was lost, and yet %d packets are missing, %d of %d frames are whole, %d were shown", s.Missing, s.Whole, s.Frames, s.Shown)
	}
	// Who joins is sent the whole group of pictures at once; the next key frame may overtake its last packet.
	if s.Passed > 30 {
		b.t.Errorf("a key frame was shown instead of %d frames before it, which is more than one group of pictures", s.Passed)
	}
	if s.Freeze > slower*500*time.Millisecond {
		b.t.Errorf("nothing was shown for %v", s.Freeze)
	}
	// A packet that is late may be asked for. The path's duplicates look as if they were sent once.
	if late := int(b.path.Stats(b.wire.down).Reordered); w.again > late+w.packets/100 {
		b.t.Errorf("%d of %d packets were sent again; %d were late", w.again, w.packets, late)
	}
	b.sound()
}

func (b *badNetwork) farAway() {
	if s := b.path.Stats(b.wire.down); s.Reordered == 0 {
		b.t.Errorf("nothing was reordered: %+v", s)
	}
	b.complete()
}

// outage cuts the path for a second.
func (b *badNetwork) outage() {
	b.set(impair.Path{Loss: 1})
	<-time.After(time.Second)
	b.set(impair.Path{})
	mended := time.Now()
	after := b.shows(b.pub.Frames()+1, 10*time.Second).Sub(mended)
	b.more(30, 10*time.Second)
	w := b.wire.sum()
	if w.again > 3*w.lost {
		b.t.Errorf("%d packets were sent again for %d that were lost", w.again, w.lost)
	}
	b.t.Logf("pictures again %v after the path was mended; %+v; on the wire %+v", after, b.viewer.Seen().Sum(), w)
	if after > slower*1500*time.Millisecond {
		b.t.Errorf("pictures came %v after the path was mended", after)
	}
	b.sound()
}

// moves gives the one behind the path another address.
func (b *badNetwork) moves() {
	if err := b.path.Rebind(); err != nil {
		b.t.Fatal(err)
	}
	moved := time.Now()
	after := b.shows(b.pub.Frames()+1, 20*time.Second).Sub(moved)
	b.more(60, 10*time.Second)
	b.t.Logf("pictures again %v after the move; %+v; on the wire %+v", after, b.viewer.Seen().Sum(), b.wire.sum())
	if after > 6*time.Second {
		b.t.Errorf("pictures came %v after the address had changed", after)
	}
	b.sound()
}
