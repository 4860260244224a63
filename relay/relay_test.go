package relay

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"reflect"
	"strings"
	"testing"
	"time"

	"sluice/media"
)

// frames are what a control stream may carry, with their bytes.
var frames = []struct {
	name string
	hex  string // with the length before it
	f    Frame
}{
	{"hello", "00000005" + "01" + "01" + "026531", Hello{Version: 1, Node: "e1"}},
	{"subscribe", "0000000c" + "02" + "06" + "6c6976652f73" + "00" + "00" + "00" + "00", Subscribe{Key: media.Key{App: "live", ID: "s"}}},
	{"subscribe in a tree", "00000015" + "02" + "06" + "6c6976652f73" + "026575" + "03613a31" + "03" + "02" + "016f" + "0170",
		Subscribe{Key: media.Key{App: "live", ID: "s"}, Region: "eu", Addr: "a:1", Hops: 3, Avoid: []string{"o", "p"}}},
	{"subscribe to a backup", "00000013" + "02" + "0d" + "6c6976652f737e6261636b7570" + "00" + "00" + "00" + "00", Subscribe{Key: media.Key{App: "live", ID: "s"}.Backup()}},
	{"no tracks", "00000003" + "03" + "01" + "00", Tracks{Generation: 1}},
	{"tracks", "00000020" + "03" + "02" + "02" + "02" + "0448323634" + "00015f90" + "0000" + "03613d31" + "01" + "046f707573" + "0000bb80" + "0002" + "00",
		Tracks{Generation: 2, Tracks: []media.Track{
			{Kind: media.Video, Codec: media.Codec{Name: "H264", ClockRate: 90000, Fmtp: "a=1"}},
			{Kind: media.Audio, Codec: media.Codec{Name: "opus", ClockRate: 48000, Channels: 2}}}}},
	{"text", "00000003" + "04" + "6869", Message{Data: []byte("hi")}},
	{"empty text", "00000001" + "04", Message{Data: []byte{}}},
	{"binary", "00000003" + "05" + "00ff", Message{Binary: true, Data: []byte{0, 255}}},
	{"key frame", "00000002" + "06" + "01", KeyFrameRequest{Track: 1}},
	{"end", "00000002" + "07" + "02", End{Code: Moved}},
	{"redirect", "0000000a" + "08" + "03613a31" + "016b" + "026532", Redirect{Addr: "a:1", Key: "k", Node: "e2"}},
	{"path", "00000007" + "09" + "02" + "016f" + "026531", Path{Nodes: []string{"o", "e1"}}},
	{"below", "00000008" + "0a" + "8002" + "01" + "01" + "026575", Below{Nodes: 256, Busy: true, Regions: []string{"eu"}}},
	{"move", "00000001" + "0b", Move{}},
	{"ping", "00000001" + "0c", Ping{}},
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestControlFrames(t *testing.T) {
	var all []byte
	for _, c := range frames {
		want := unhex(t, c.hex)
		if got := AppendFrame(nil, c.f); !bytes.Equal(got, want) {
			t.Errorf("%s: wrote %x, want %x", c.name, got, want)
		}
		all = append(all, want...)
	}
	rd := NewReader(bytes.NewReader(all), MaxControl)
	for _, c := range frames {
		b, err := rd.Next()
		if err != nil {
			t.Fatal(err)
		}
		got, err := ParseFrame(b)
		clear(b) // nothing of it may be kept
		if err != nil || !reflect.DeepEqual(got, c.f) {
			t.Errorf("%s: read %#v, %v", c.name, got, err)
		}
	}
	if _, err := rd.Next(); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
}

func TestBadControlFrames(t *testing.T) {
	many := Tracks{Generation: 1}
	for range MaxTracks + 1 {
		many.Tracks = append(many.Tracks, media.Track{Kind: media.Audio, Codec: media.Codec{Name: "opus", ClockRate: 1}})
	}
	for name, b := range map[string][]byte{
		"hello without a version":    {typeHello},
		"hello with half a name":     {typeHello, 1, 5, 'a'},
		"a number without end":       append([]byte{typeHello}, bytes.Repeat([]byte{0xff}, 20)...),
		"a name that is too long":    Hello{Version: 1, Node: strings.Repeat("a", maxName+1)}.append(nil),
		"subscribe to nothing":       {typeSubscribe, 0},
		"subscribe with a bad name":  {typeSubscribe, 4, 'a', '/', '.', '.'},
		"a backup of nothing":        append([]byte{typeSubscribe, 10}, "a/~backup"...),
		"a backup of a backup":       append([]byte{typeSubscribe, 17}, "a/s~backup~backup"...),
		"renditions of nothing":      append([]byte{typeSubscribe, 16}, "a/~made~480x8000"...),
		"renditions of which nobody": append([]byte{typeSubscribe, 11}, "a/s~made~.."...),
		"too many tracks":            many.append(nil),
		"half a track":               {typeTracks, 1, 1, byte(media.Video), 1, 'a', 0},
		"a track of no kind":         Tracks{1, []media.Track{{Kind: 9, Codec: video.Codec}}}.append(nil),
		"a track without a clock":    Tracks{1, []media.Track{{Kind: media.Video, Codec: media.Codec{Name: "VP8"}}}}.append(nil),
		"a track without a codec":    Tracks{1, []media.Track{{Kind: media.Video, Codec: media.Codec{ClockRate: 1}}}}.append(nil),
		"a message that is too long": Message{Data: make([]byte, MaxMessage+1)}.append(nil),
		"a key frame of no track":    {typeKeyFrame, MaxTracks},
		"a key frame of what":        {typeKeyFrame},
		"an end without a reason":    {typeEnd},
		"half a redirect":            {typeRedirect, 1, 'a', 1, 'k'},
		"a path that is too long":    {typePath, MaxPath + 1},
		"half a path":                {typePath, 2, 1, 'o'},
		"half of what is below":      {typeBelow, 1},
		"too much to avoid":          append(Subscribe{Key: media.Key{App: "live", ID: "s"}}.append(nil)[:10], MaxAvoid+1),
		"nothing":                    {},
	} {
		if f, err := ParseFrame(b); !errors.Is(err, ErrMalformed) || f != nil {
			t.Errorf("%s: %#v, %v", name, f, err)
		}
	}
	if f, err := ParseFrame([]byte{99, 1, 2, 3}); f != nil || err != nil {
		t.Errorf("a type of a later version: %#v, %v", f, err)
	}
	if f, err := ParseFrame([]byte{typeEnd, 1, 77, 77}); f != (End{Code: Offline}) || err != nil {
		t.Errorf("a field of a later version: %#v, %v", f, err)
	}
	if f, err := ParseFrame([]byte{typeSubscribe, 3, 'a', '/', 's'}); !reflect.DeepEqual(f, Subscribe{Key: media.Key{App: "a", ID: "s"}}) || err != nil {
		t.Errorf("a subscription of version 1: %#v, %v", f, err)
	}
	if CheckTracks(many.Tracks) == nil || CheckTracks([]media.Track{video}) != nil {
		t.Error("CheckTracks")
	}
}

var video = media.Track{Kind: media.Video, Codec: media.Codec{Name: media.VP8, ClockRate: 90000}}

func TestReader(t *testing.T) {
	long := bytes.Repeat([]byte{7}, 300<<10)
	framedLong := framed(nil, func(b []byte) []byte { return append(b, long...) })
	for _, c := range []struct {
		name string
		in   []byte
		max  int
		want error // of the first frame; nil: it is there
	}{
		{"nothing", nil, 10, io.EOF},
		{"half a length", []byte{0, 0}, 10, io.ErrUnexpectedEOF},
		{"an empty frame", []byte{0, 0, 0, 0}, 10, ErrMalformed},
		{"too long", []byte{0, 0, 0, 11}, 10, ErrMalformed},
		{"enormous", []byte{255, 255, 255, 255}, MaxBurst, ErrMalformed},
		{"half a frame", []byte{0, 0, 0, 5, 1, 2}, 10, io.ErrUnexpectedEOF},
		{"a length and no more", []byte{0, 0, 0, 5}, 10, io.ErrUnexpectedEOF},
		{"the longest", framedLong, len(long), nil},
	} {
		for _, r := range []io.Reader{bytes.NewReader(c.in), oneByte{bytes.NewReader(c.in)}} {
			rd := NewReader(r, c.max)
			b, err := rd.Next()
			if !errors.Is(err, c.want) {
				t.Errorf("%s: %v", c.name, err)
			}
			if c.want == nil && !bytes.Equal(b, long) {
				t.Errorf("%s: %d bytes differ", c.name, len(b))
			}
		}
	}
	// Memory is had for bytes that came, not for those that were announced.
	rd := NewReader(bytes.NewReader(append([]byte{0, 8, 0, 0}, make([]byte, 100)...)), 1<<20)
	if _, err := rd.Next(); err == nil || cap(rd.buf) > step {
		t.Errorf("%d bytes of memory for 100: %v", cap(rd.buf), err)
	}
}

type oneByte struct{ r io.Reader }

func (o oneByte) Read(b []byte) (int, error) { return o.r.Read(b[:1]) }

// bursts are media frames with their bytes.
var bursts = []struct {
	name string
	hex  string
	make func() *media.Burst
	age  time.Duration
}{
	{"key frame of two packets", "0000001a" + "01" + "00015f90" + "0000000000000005" + "e807" + "02" + "ffff" + "04" + "6588" + "0000" + "05" + "0102",
		func() *media.Burst {
			b := media.NewBurst(0, 90000)
			b.Key, b.Captured = true, 5
			b.Append(65535, false, []byte{0x65, 0x88})
			b.Append(0, true, []byte{1, 2})
			return b
		}, time.Millisecond},
	{"one packet of nothing", "00000012" + "00" + "00000001" + "ffffffffffffffff" + "00" + "01" + "0001" + "00",
		func() *media.Burst {
			b := media.NewBurst(0, 1)
			b.Captured = -1
			b.Append(1, false, nil)
			return b
		}, 0},
	{"the largest", "", func() *media.Burst {
		b := media.NewBurst(0, 1)
		for i := range media.MaxPackets {
			b.Append(uint16(i), true, bytes.Repeat([]byte{byte(i)}, media.MaxPayload))
		}
		return b
	}, maxAge},
}

func sameBurst(a, b *media.Burst) bool {
	return a.Track == b.Track && a.Timestamp == b.Timestamp && a.Captured == b.Captured && a.Key == b.Key &&
		len(a.Packets) == len(b.Packets) && reflect.DeepEqual(a.Packets, b.Packets)
}

func TestBursts(t *testing.T) {
	for _, c := range bursts {
		in := c.make()
		b := AppendBurst([]byte{1, 2}, in, c.age, Version)[2:]
		if want := unhex(t, c.hex); c.hex != "" && !bytes.Equal(b, want) {
			t.Errorf("%s: wrote\n%x, want\n%x", c.name, b, want)
		}
		frame, err := NewReader(bytes.NewReader(b), MaxBurst).Next()
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		before := bytes.Clone(frame)
		got, age, err := ParseBurst(0, frame)
		if err != nil || age != c.age {
			t.Errorf("%s: age %v, %v", c.name, age, err)
			continue
		}
		if !bytes.Equal(frame, before) {
			t.Errorf("%s: the input was modified", c.name)
		}
		clear(frame)
		for i := range got.Packets { // nil and empty are the same
			if len(got.Packets[i].Payload) == 0 {
				got.Packets[i].Payload = in.Packets[i].Payload
			}
		}
		if !sameBurst(got, in) {
			t.Errorf("%s: read another burst", c.name)
		}
		got.Release()
		in.Release()
	}
	if _, age, err := ParseBurst(0, AppendBurst(nil, bursts[0].make(), -time.Second, Version)[prefix:]); age != 0 || err != nil {
		t.Errorf("a burst from the future is %v old: %v", age, err)
	}
}

func TestBadBursts(t *testing.T) {
	good := unhex(t, bursts[0].hex)[prefix:]
	for n := range good {
		if b, _, err := ParseBurst(0, good[:n:n]); b != nil || !errors.Is(err, ErrMalformed) {
			t.Errorf("%d bytes of %d: %v", n, len(good), err)
		}
	}
	for name, b := range map[string][]byte{
		"more than announced":       append(bytes.Clone(good), 0),
		"no packets":                unhex(t, "00"+"00000001"+"0000000000000000"+"00"+"00"),
		"too many packets":          unhex(t, "00"+"00000001"+"0000000000000000"+"00"+"8104"),
		"a payload that is too big": append(unhex(t, "00"+"00000001"+"0000000000000000"+"00"+"01"+"0001"+"c216"), make([]byte, media.MaxPayload+1)...),
		"older than an hour":        unhex(t, "00"+"00000001"+"0000000000000000"+"ffffffffff01"+"01"+"0001"+"00"),
	} {
		if b, _, err := ParseBurst(0, b); b != nil || !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestHeaders(t *testing.T) {
	for _, h := range []Header{{}, {Subscription: 4, Generation: 1, Track: 31, GOP: 1 << 40, Gap: true}} {
		b := AppendHeader(nil, h)
		got, err := ParseHeader(b[prefix:])
		if err != nil || got != h {
			t.Errorf("%+v came back as %+v, %v", h, got, err)
		}
		for n := range len(b) - prefix {
			if _, err := ParseHeader(b[prefix : prefix+n]); !errors.Is(err, ErrMalformed) {
				t.Errorf("%d bytes of a header: %v", n, err)
			}
		}
	}
	if _, err := ParseHeader(AppendHeader(nil, Header{Track: MaxTracks})[prefix:]); !errors.Is(err, ErrMalformed) {
		t.Errorf("track %d: %v", MaxTracks, err)
	}
}

func FuzzParse(f *testing.F) {
	for _, c := range frames {
		f.Add(unhex(f, c.hex)[prefix:])
	}
	for _, c := range bursts {
		if c.hex != "" {
			f.Add(unhex(f, c.hex)[prefix:])
		}
	}
	f.Add(AppendHeader(nil, Header{Subscription: 4, Generation: 1, Track: 1, GOP: 300, Gap: true})[prefix:])
	f.Fuzz(func(t *testing.T, in []byte) {
		before := bytes.Clone(in)
		if fr, err := ParseFrame(in); err == nil && fr != nil {
			again, err := ParseFrame(AppendFrame(nil, fr)[prefix:])
			if err != nil || !reflect.DeepEqual(fr, again) {
				t.Errorf("%#v came back as %#v, %v", fr, again, err)
			}
		}
		if h, err := ParseHeader(in); err == nil {
			if again, err := ParseHeader(AppendHeader(nil, h)[prefix:]); err != nil || again != h {
				t.Errorf("%+v came back as %+v, %v", h, again, err)
			}
		}
		if b, age, err := ParseBurst(3, in); err == nil {
			out := AppendBurst(nil, b, age, Version)
			if len(out) > MaxBurst+prefix {
				t.Errorf("a burst of %d bytes was read", len(out))
			}
			again, age2, err := ParseBurst(3, out[prefix:])
			if err != nil || age2 != age || !sameBurst(again, b) {
				t.Errorf("a burst changed: %v", err)
			}
		}
		rd := NewReader(bytes.NewReader(in), 1000)
		for {
			b, err := rd.Next()
			if err != nil {
				break
			}
			if len(b) == 0 || len(b) > 1000 {
				t.Errorf("a frame of %d bytes", len(b))
			}
		}
		if !bytes.Equal(in, before) {
			t.Error("the input was modified")
		}
	})
}

func TestOutboxIsBounded(t *testing.T) {
	o := NewOutbox()
	small, large := Message{Data: []byte{1}}, Message{Data: make([]byte, MaxMessage)}
	n := 0
	for o.Put(small) {
		n++
	}
	if n != outboxFrames || o.Put(KeyFrameRequest{}) || o.Put(Ping{}) {
		t.Errorf("%d small messages", n)
	}
	if !o.Put(End{Code: Stopped}) {
		t.Error("the end was refused")
	}
	o = NewOutbox()
	for n = 0; o.Put(large); n++ {
	}
	if n*MaxMessage != outboxBytes {
		t.Errorf("%d large messages", n)
	}
	if NewOutbox().Put(Message{Data: make([]byte, MaxMessage+1)}) {
		t.Error("a message that no peer takes")
	}
	o.Close()
	if o.Put(End{}) {
		t.Error("put after close")
	}
	var w bytes.Buffer
	if err := o.Run(t.Context(), &w); err != nil || w.Len() != n*(MaxMessage+prefix+1) {
		t.Errorf("wrote %d bytes: %v", w.Len(), err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := NewOutbox().Run(ctx, &w); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// TestKeysInTheHandshake needs no QUIC: who is let in is decided in TLS.
func TestKeysInTheHandshake(t *testing.T) {
	server, client, stranger := mustIdentity(t), mustIdentity(t), mustIdentity(t)
	if server.Key() == client.Key() || len(server.Key()) != 44 {
		t.Errorf("keys %q, %q", server.Key(), client.Key())
	}
	known := func(_ context.Context, k string) bool { return k == client.Key() }
	without := client.ClientTLS(server.Key())
	without.Certificates = nil
	foreign := client.ClientTLS(server.Key())
	foreign.NextProtos = []string{"h3"}
	old := client.ClientTLS(server.Key())
	old.MaxVersion, old.MinVersion = tls.VersionTLS12, tls.VersionTLS12
	for _, c := range []struct {
		name string
		cfg  *tls.Config
		ok   bool
	}{
		{"both known", client.ClientTLS(server.Key()), true},
		{"another server than expected", client.ClientTLS(stranger.Key()), false},
		{"no server expected", client.ClientTLS(""), false},
		{"an unknown client", stranger.ClientTLS(server.Key()), false},
		{"a client without a key", without, false},
		{"another protocol", foreign, false},
		{"TLS 1.2", old, false},
	} {
		a, b := pair(t)
		up := tls.Server(a, server.ServerTLS(known))
		served := make(chan error, 1)
		go func() {
			err := up.Handshake()
			if err != nil {
				_ = a.Close()
			}
			served <- err
		}()
		down := tls.Client(b, c.cfg)
		err := down.Handshake()
		if err != nil {
			_ = b.Close()
		}
		err = errors.Join(err, <-served)
		if c.ok != (err == nil) {
			t.Errorf("%s: %v", c.name, err)
		}
		if c.ok && (PeerKey(up.ConnectionState()) != client.Key() || PeerKey(down.ConnectionState()) != server.Key()) {
			t.Errorf("%s: the peers' keys are not those proved", c.name)
		}
		_ = a.Close()
		_ = b.Close()
	}
}

// pair returns both ends of a TCP connection.
func pair(t *testing.T) (a, b net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	if b, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if a, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []net.Conn{a, b} {
		_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	}
	return a, b
}

func mustIdentity(t *testing.T) *Identity {
	t.Helper()
	id, err := NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func BenchmarkBurst(b *testing.B) {
	burst := media.NewBurst(0, 1)
	for i := range 9 {
		burst.Append(uint16(i), i == 8, make([]byte, 1200))
	}
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		buf = AppendBurst(buf[:0], burst, 0, Version)
		got, _, err := ParseBurst(0, buf[prefix:])
		if err != nil {
			b.Fatal(err)
		}
		got.Release()
	}
}
