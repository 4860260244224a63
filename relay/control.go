package relay

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"strings"

	"sluice/media"
)

// Frame is one frame of a control stream: a Hello, Subscribe, Tracks, Message, KeyFrameRequest, End, Redirect, Path,
// Below, Move or Ping.
type Frame interface {
	append(dst []byte) []byte
}

// Types of control frames.
const (
	typeHello = iota + 1
	typeSubscribe
	typeTracks
	typeText
	typeBinary
	typeKeyFrame
	typeEnd
	typeRedirect // this and the rest since version 2
	typePath
	typeBelow
	typeMove
	typePing
	typeWant
)

// Hello is the first frame each way. The taker names the highest version it speaks, the
// server the one that is used.
type Hello struct {
	Version uint64
	Node    string // id of the sender, for logs
}

// Subscribe asks for a stream. The subscription is named by the QUIC stream number of its control stream.
type Subscribe struct {
	Key media.Key
	// Since version 2:
	Region string   // of the asker
	Addr   string   // host:port at which the asker serves streams itself; "": it does not
	Hops   uint64   // nodes that were asked before
	Avoid  []string // ids of nodes that the asker does not want to be sent to
	// For logs and traces; both may be "". Who does not know them skips them.
	Request string // id of the request for which the stream is asked for
	Trace   string // W3C traceparent
}

// Tracks says what the stream consists of. Each set of tracks has a generation, beginning with 1; media streams name
// theirs, because they may overtake this frame. Since version 3 the same generation may come again with more renditions at the end.
type Tracks struct {
	Generation uint64
	Tracks     []media.Track
}

// Message is a message of the stream's data channel.
type Message media.Message

// KeyFrameRequest asks for a key frame of a track.
type KeyFrameRequest struct{ Track int }

// End is the last frame from the server: why the subscription is over, or was refused.
type End struct{ Code Code }

// Redirect is the answer of a node that does not take the asker, but knows who may: one of those that it serves.
type Redirect struct{ Addr, Key, Node string }

// Path says by which nodes the stream has come, the one that it is published to first, the server last. It comes before
// the first Tracks, and again when it changes. Who finds itself in it must leave.
type Path struct{ Nodes []string }

// Below says what a taker does with the stream, so that the server can send others on to it.
type Below struct {
	Nodes   uint64   // that take the stream through the taker; MaxBelow stands for more
	Regions []string // where those are
	Busy    bool     // the taker takes no children
}

// Move asks the taker to get the stream elsewhere. It is served until it has.
type Move struct{}

// Want says whether the taker takes a track. At first it takes all but the renditions. Since version 3.
type Want struct {
	Track int
	On    bool // from the next key frame on
	Now   bool // with what is cached of it
}

// Ping is not answered but by QUIC's acknowledgement, which shows that the server lives.
type Ping struct{}

func (f Hello) append(dst []byte) []byte {
	return appendText(binary.AppendUvarint(append(dst, typeHello), f.Version), f.Node)
}

func (f Subscribe) append(dst []byte) []byte {
	dst = appendText(append(dst, typeSubscribe), f.Key.String())
	dst = appendText(appendText(dst, f.Region), f.Addr)
	dst = appendTexts(binary.AppendUvarint(dst, f.Hops), f.Avoid, MaxAvoid)
	if f.Request == "" && f.Trace == "" {
		return dst
	}
	return appendText(appendText(dst, f.Request), f.Trace)
}

func (f Tracks) append(dst []byte) []byte {
	dst = binary.AppendUvarint(append(dst, typeTracks), f.Generation)
	dst = binary.AppendUvarint(dst, uint64(len(f.Tracks)))
	for _, t := range f.Tracks {
		dst = append(dst, byte(t.Kind))
		dst = appendText(dst, t.Codec.Name)
		dst = binary.BigEndian.AppendUint32(dst, t.Codec.ClockRate)
		dst = binary.BigEndian.AppendUint16(dst, t.Codec.Channels)
		dst = appendText(dst, t.Codec.Fmtp)
	}
	if len(media.Main(f.Tracks)) == len(f.Tracks) {
		return dst
	}
	for _, t := range f.Tracks {
		dst = appendText(dst, t.Rendition)
		dst = binary.AppendUvarint(dst, uint64(max(t.Bitrate, 0)))
		dst = binary.AppendUvarint(dst, uint64(max(t.Height, 0)))
	}
	return dst
}

func (f Message) append(dst []byte) []byte {
	t := byte(typeText)
	if f.Binary {
		t = typeBinary
	}
	return append(append(dst, t), f.Data...)
}

func (f KeyFrameRequest) append(dst []byte) []byte {
	return binary.AppendUvarint(append(dst, typeKeyFrame), uint64(f.Track))
}

func (f End) append(dst []byte) []byte { return append(dst, typeEnd, byte(f.Code)) }

func (f Redirect) append(dst []byte) []byte {
	return appendText(appendText(appendText(append(dst, typeRedirect), f.Addr), f.Key), f.Node)
}

func (f Path) append(dst []byte) []byte { return appendTexts(append(dst, typePath), f.Nodes, MaxPath) }

func (f Below) append(dst []byte) []byte {
	busy := byte(0)
	if f.Busy {
		busy = 1
	}
	dst = append(binary.AppendUvarint(append(dst, typeBelow), min(f.Nodes, MaxBelow)), busy)
	return appendTexts(dst, f.Regions, MaxRegions)
}

func (Move) append(dst []byte) []byte { return append(dst, typeMove) }
func (Ping) append(dst []byte) []byte { return append(dst, typePing) }

func (f Want) append(dst []byte) []byte {
	on := byte(0)
	switch {
	case f.On && f.Now:
		on = 2
	case f.On:
		on = 1
	}
	return append(binary.AppendUvarint(append(dst, typeWant), uint64(f.Track)), on)
}

// AppendFrame appends a control frame with its length. A stream with more tracks, or a message with more bytes than the limits
// above would be refused by the peer: callers check.
func AppendFrame(dst []byte, f Frame) []byte { return framed(dst, f.append) }

// ParseFrame reads what Reader.Next returned; the frame shares no memory with it. A frame of a type that is not
// known is nil without an error, and so is what follows the known fields: both are for later versions.
func ParseFrame(b []byte) (Frame, error) {
	c := cursor{b: b}
	var f Frame
	switch t := c.u8(); t {
	case typeHello:
		f = Hello{Version: c.uvarint(math.MaxUint64), Node: c.text(maxName)}
	case typeSubscribe:
		key, err := parseKey(c.text(2 * maxName))
		if err != nil {
			return nil, fmt.Errorf("%w: subscribe: %w", ErrMalformed, err)
		}
		f = c.subscribe(key)
	case typeTracks:
		f = c.tracks()
	case typeText, typeBinary:
		if len(c.b) > MaxMessage {
			c.bad = true
		}
		f = Message{Binary: t == typeBinary, Data: bytes.Clone(c.b)}
	case typeKeyFrame:
		f = KeyFrameRequest{Track: int(c.uvarint(MaxTracks - 1))}
	case typeEnd:
		f = End{Code: Code(c.u8())}
	case typeRedirect:
		f = Redirect{Addr: c.text(maxName), Key: c.text(maxName), Node: c.text(maxName)}
	case typePath:
		f = Path{Nodes: c.texts(MaxPath)}
	case typeBelow:
		f = Below{Nodes: min(c.uvarint(math.MaxUint64), MaxBelow), Busy: c.u8() != 0, Regions: c.texts(MaxRegions)}
	case typeMove:
		f = Move{}
	case typePing:
		f = Ping{}
	case typeWant:
		w := Want{Track: int(c.uvarint(MaxTracks - 1))}
		on := c.u8()
		w.On, w.Now = on > 0, on == 2
		f = w
	}
	if c.bad {
		return nil, fmt.Errorf("%w: control frame of %d bytes", ErrMalformed, len(b))
	}
	return f, nil
}

// parseKey reads the name of a stream, or of its backup, or of renditions of one of them.
func parseKey(s string) (media.Key, error) {
	app, id, _ := strings.Cut(s, "/")
	source, what := media.Key{App: app, ID: id}.Source()
	main, backup := source.Main()
	key, err := media.NewKey(main.App, main.ID)
	if err == nil && backup {
		key = key.Backup()
	}
	if err == nil && what != "" {
		_, err = media.NewKey(main.App, what)
		key = key.Made(what)
	}
	return key, err
}

func (c *cursor) subscribe(key media.Key) Subscribe {
	f := Subscribe{Key: key}
	if len(c.b) > 0 { // else version 1
		f.Region, f.Addr = c.text(maxName), c.text(maxName)
		f.Hops, f.Avoid = c.uvarint(math.MaxInt32), c.texts(MaxAvoid)
	}
	if len(c.b) > 0 {
		f.Request, f.Trace = c.text(maxName), c.text(maxName)
	}
	return f
}

func (c *cursor) tracks() Tracks {
	f := Tracks{Generation: c.uvarint(math.MaxUint64)}
	for range c.uvarint(MaxTracks) {
		t := media.Track{Kind: media.Kind(c.u8())}
		t.Codec.Name = c.text(maxName)
		t.Codec.ClockRate = c.u32()
		t.Codec.Channels = c.u16()
		t.Codec.Fmtp = c.text(maxFmtp)
		if t.Kind != media.Audio && t.Kind != media.Video || t.Codec.ClockRate == 0 || t.Codec.Name == "" {
			c.bad = true
		}
		f.Tracks = append(f.Tracks, t)
	}
	if len(c.b) > 0 { // since version 3
		for i := range f.Tracks {
			t := &f.Tracks[i]
			t.Rendition, t.Bitrate, t.Height = c.text(maxName), int(c.uvarint(math.MaxInt32)), int(c.uvarint(math.MaxUint16))
			if i > 0 && t.Rendition == "" && f.Tracks[i-1].Rendition != "" || t.Rendition != "" && t.Kind != media.Video {
				c.bad = true
			}
		}
	}
	return f
}

// CheckTracks refuses tracks that could not be sent.
func CheckTracks(tracks []media.Track) error {
	b := Tracks{Generation: 1, Tracks: tracks}.append(nil)
	_, err := ParseFrame(b)
	return err
}
