package media

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
)

func TestKey(t *testing.T) {
	for _, c := range []struct {
		in string
		ok bool
	}{
		{"live/stream1", true},
		{"WebRTCAppEE/a-b_c.d", true},
		{"live/" + strings.Repeat("x", 128), true},
		{"live/" + strings.Repeat("x", 129), false},
		{"live", false},
		{"/stream1", false},
		{"live/", false},
		{"live/a/b", false},
		{"live/..", false},
		{"live/a b", false},
		{"live/ä", false},
		{"live/a\x00", false},
	} {
		k, err := ParseKey(c.in)
		if (err == nil) != c.ok {
			t.Errorf("ParseKey(%q): %v", c.in, err)
		}
		if err != nil && !errors.Is(err, ErrBadKey) {
			t.Errorf("ParseKey(%q): error %v does not wrap ErrBadKey", c.in, err)
		}
		if err == nil && k.String() != c.in {
			t.Errorf("ParseKey(%q).String() = %q", c.in, k)
		}
	}
}

func TestCodecParam(t *testing.T) {
	c := Codec{Name: "h264", Fmtp: "level-asymmetry-allowed=1; packetization-mode=1;profile-level-id=42e01f"}
	if !c.Is(H264) || c.Is(VP8) {
		t.Error("encoding names must compare without case")
	}
	for name, want := range map[string]string{"packetization-mode": "1", "PROFILE-LEVEL-ID": "42e01f", "other": ""} {
		if got := c.Param(name); got != want {
			t.Errorf("Param(%q) = %q, want %q", name, got, want)
		}
	}
}

func TestBurstKeepsPayloadsWhileItGrows(t *testing.T) {
	b := NewBurst(0, 90000)
	defer b.Release()
	var want [][]byte
	for i := range MaxPackets {
		p := bytes.Repeat([]byte{byte(i)}, 1+i%MaxPayload)
		want = append(want, p)
		if !b.Append(uint16(i), i == MaxPackets-1, p) {
			t.Fatalf("packet %d did not fit", i)
		}
	}
	if b.Append(0, false, []byte{1}) {
		t.Error("a full burst took another packet")
	}
	for i, p := range b.Packets {
		if p.Seq != uint16(i) || !bytes.Equal(p.Payload, want[i]) {
			t.Fatalf("packet %d changed while the burst grew", i)
		}
		if cap(p.Payload) != len(p.Payload) {
			t.Fatalf("packet %d can be appended to", i)
		}
	}
	if NewBurst(0, 0).Append(0, false, make([]byte, MaxPayload+1)) {
		t.Error("a payload over MaxPayload was taken")
	}
}

func TestBurstReferences(t *testing.T) {
	for name, f := range map[string]func(*Burst){"Release": (*Burst).Release, "Retain": func(b *Burst) { b.Retain() }} {
		t.Run(name+" after the last release panics", func(t *testing.T) {
			b := &Burst{} // not of the pool, which must not get it twice
			b.refs.Store(1)
			b.mem = make([]byte, 0, 17*burstMemory)
			b.Retain()
			b.Release()
			b.Release()
			defer func() {
				if recover() == nil {
					t.Error("it did not")
				}
			}()
			f(b)
		})
	}
}

func TestCodecNamesPutVideoFirst(t *testing.T) {
	got := CodecNames([]Track{{Kind: Audio, Codec: Codec{Name: Opus}}, {Kind: Video, Codec: Codec{Name: VP8}}})
	if fmt.Sprint(got) != "[VP8 opus]" {
		t.Errorf("CodecNames = %v", got)
	}
}

func BenchmarkBurst(b *testing.B) {
	payload := make([]byte, 1200)
	b.ReportAllocs()
	for b.Loop() {
		f := NewBurst(0, 1)
		for i := range 9 {
			f.Append(uint16(i), i == 8, payload)
		}
		f.Release()
	}
}

// No user can name a backup, and each name says what it is.
func TestBackupKeys(t *testing.T) {
	key := Key{App: "live", ID: "s"}
	if main, backup := key.Main(); main != key || backup {
		t.Errorf("%v is %v, %v", key, main, backup)
	}
	b := key.Backup()
	if main, backup := b.Main(); main != key || !backup {
		t.Errorf("%v is %v, %v", b, main, backup)
	}
	if _, err := NewKey(b.App, b.ID); err == nil {
		t.Errorf("%v is a name that users may have", b)
	}
}

func TestClone(t *testing.T) {
	b := NewBurst(1, 90)
	b.Key, b.Captured, b.Arrived = true, 5, 6
	b.Append(7, false, []byte{1, 2})
	b.Append(8, true, []byte{3})
	c := b.Clone()
	c.Packets[0].Payload[0], c.Packets[0].Seq, c.Timestamp = 9, 70, 91
	if b.Packets[0].Payload[0] != 1 || b.Packets[0].Seq != 7 || b.Timestamp != 90 {
		t.Error("a copy shares memory")
	}
	if c.Track != 1 || !c.Key || c.Captured != 5 || c.Arrived != 6 || len(c.Packets) != 2 || !c.Packets[1].Marker || c.Size() != 3 {
		t.Errorf("%+v", c)
	}
	b.Release()
	c.Release()
}

func TestPattern(t *testing.T) {
	key := Key{App: "live", ID: "cam1"}
	for pattern, want := range map[string]struct{ ok, matches bool }{
		"live/cam1": {true, true}, "live/cam2": {true, false}, "live/cam*": {true, true}, "live/*": {true, true}, "*": {true, true},
		"other/*": {true, false}, "li*": {true, true}, "live": {false, false}, "": {false, false}, "/*": {false, false}, "live/c*m": {false, false},
		"live/cam1/*": {false, false}, "live/": {false, false}, "live/../*": {false, false},
	} {
		if ok := CheckPattern(pattern) == nil; ok != want.ok || ok && key.Matches(pattern) != want.matches {
			t.Errorf("%q: taken %v, matches %v", pattern, ok, key.Matches(pattern))
		}
	}
}

func TestMade(t *testing.T) {
	key := Key{App: "live", ID: "s"}
	for _, k := range []Key{key, key.Backup()} {
		made := k.Made("480x800000")
		if source, what := made.Source(); source != k || what != "480x800000" {
			t.Errorf("%s is %s of %s", made, what, source)
		}
		if _, err := ParseKey(made.String()); !errors.Is(err, ErrBadKey) {
			t.Errorf("a user may ask for %s: %v", made, err)
		}
		if source, what := k.Source(); source != k || what != "" {
			t.Errorf("%s is %q of %s", k, what, source)
		}
	}
}

// Descriptors stay with their packets while a burst grows, and are copied with it.
func TestDescribe(t *testing.T) {
	b := NewBurstOf(0, 0, 100)
	defer b.Release()
	for i := range 40 {
		b.Append(uint16(i), false, bytes.Repeat([]byte{byte(i)}, 700))
		if i%3 > 0 {
			b.Describe(bytes.Repeat([]byte{byte(100 + i)}, i))
		}
	}
	b.Describe(make([]byte, 300)) // too long
	c := b.Clone()
	defer c.Release()
	for _, burst := range []*Burst{b, c} {
		for i, p := range burst.Packets {
			want := bytes.Repeat([]byte{byte(100 + i)}, i)
			if i%3 == 0 {
				want = nil
			}
			if !bytes.Equal(p.Descriptor, want) || !bytes.Equal(p.Payload, bytes.Repeat([]byte{byte(i)}, 700)) {
				t.Fatalf("packet %d has % x", i, p.Descriptor)
			}
		}
	}
}
