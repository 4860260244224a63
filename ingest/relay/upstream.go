package relay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"

	"sluice/media"
	wire "sluice/relay"
	"sluice/stream"
)

// upstream is one subscription to one node, and what it publishes to the hub. It keeps what comes until it does.
type upstream struct {
	session *session
	src     Source // the node
	root    bool   // the stream is published there
	peer    *peer
	ctl     *quic.Stream
	rd      *wire.Reader
	out     *wire.Outbox
	first   wire.Tracks // the node's answer
	began   time.Time
	after   int64         // Arrived of the last video burst from the upstream before; 0: there was none
	done    chan struct{} // closed when the node ended the subscription, or is gone
	err     error         // why; valid after done
	asked   chan struct{} // the node wants to be left
	wg      sync.WaitGroup
	cancel  context.CancelFunc

	came      atomic.Bool   // media or a message
	last      atomic.Int64  // when that was, Unix nanoseconds
	left      atomic.Bool   // somebody else has taken over
	published atomic.Uint64 // how often it was put on the hub

	// These belong to the session's goroutine: signs of life while no media comes.
	packets uint64    // that came on the connection
	alive   time.Time // when there were more of them

	turn   sync.Mutex // one change of tracks or of who publishes at a time
	active bool       // turn's: it publishes

	mu     sync.Mutex
	wanted uint32                     // tracks that the node sends, as it was told
	hub    uint32                     // those that the hub takes
	since  [media.MaxTracks]time.Time // when the node was told to send them
	path   []string                   // by which nodes the stream comes, src last
	tracks wire.Tracks
	pub    *stream.Publisher
	lanes  []*lane
	early  []*gop // of tracks that are not announced yet
	closed bool
}

// maxEarly bounds early; what comes when it is full is cancelled.
const maxEarly = 2 * wire.MaxTracks

// subscribe asks the node for the stream and waits for its answer. A redirect is an error.
func (p *peer) subscribe(ctx context.Context, s *session, src Source, ask wire.Subscribe) (*upstream, error) {
	ctl, err := p.conn.OpenStream()
	if err != nil {
		return nil, fmt.Errorf("open control stream: %w", err)
	}
	ctl.SetPriority(0, true)
	up := &upstream{session: s, src: src, path: []string{src.Node}, peer: p, asked: make(chan struct{}, 1), ctl: ctl, rd: wire.NewReader(ctl, wire.MaxControl), out: wire.NewOutbox(),
		began: time.Now(), after: s.seen.Load(), done: make(chan struct{})}
	p.mu.Lock()
	p.ups[uint64(ctl.StreamID())] = up
	p.mu.Unlock()
	inTime := context.AfterFunc(ctx, func() { _ = ctl.SetDeadline(time.Now()) })
	up.first, err = up.ask(ask)
	if !inTime() {
		err = context.Cause(ctx)
	}
	if err != nil {
		p.check(err)
		up.hangUp()
		return nil, fmt.Errorf("subscribe: %w", err)
	}
	up.last.Store(time.Now().UnixNano())
	up.lay(up.first, nil)
	ctx, up.cancel = context.WithCancel(s.ctx)
	up.wg.Go(func() { _ = up.out.Run(ctx, ctl) })
	up.wg.Go(func() {
		up.err = up.listen(ctx)
		close(up.done)
	})
	return up, nil
}

// ask sends the request and reads the answer.
func (up *upstream) ask(ask wire.Subscribe) (tracks wire.Tracks, err error) {
	b := wire.AppendFrame(nil, wire.Hello{Version: wire.Version, Node: up.session.relay.cfg.Node})
	b = wire.AppendFrame(b, ask)
	if _, err := up.ctl.Write(b); err != nil {
		return tracks, err
	}
	for tracks.Generation == 0 {
		f, err := up.next()
		if err != nil {
			return tracks, err
		}
		switch f := f.(type) {
		case wire.Hello:
			if f.Version < 1 || f.Version > wire.Version {
				return tracks, fmt.Errorf("the node speaks version %d of the relay protocol, this one %d: update the older one", f.Version, wire.Version)
			}
		case wire.Redirect:
			return tracks, redirect(f)
		case wire.Path:
			if err := up.comes(f.Nodes); err != nil {
				return tracks, err
			}
		case wire.End:
			return tracks, reason(f.Code)
		case wire.Tracks:
			if f.Generation == 0 {
				return tracks, fmt.Errorf("%w: tracks of generation 0", wire.ErrMalformed)
			}
			tracks = f
		}
	}
	return tracks, nil
}

func (up *upstream) next() (wire.Frame, error) {
	b, err := up.rd.Next()
	if err != nil {
		return nil, err
	}
	return wire.ParseFrame(b)
}

// hangUp ends the control stream and takes no more media.
func (up *upstream) hangUp() {
	up.peer.mu.Lock()
	delete(up.peer.ups, uint64(up.ctl.StreamID()))
	up.peer.mu.Unlock()
	up.ctl.CancelRead(wire.StreamUnsubscribed)
	up.ctl.CancelWrite(wire.StreamUnsubscribed)
}

// comes notes by which nodes the stream comes. An error says that this one is among them.
func (up *upstream) comes(path []string) error {
	switch {
	case len(path) == 0:
		return fmt.Errorf("%w: a path by no node", wire.ErrMalformed)
	case slices.Contains(path, up.session.relay.cfg.Node):
		return errLoop
	}
	up.mu.Lock()
	defer up.mu.Unlock()
	up.path = path
	return nil
}

// way is by which nodes the stream comes.
func (up *upstream) way() []string {
	up.mu.Lock()
	defer up.mu.Unlock()
	return up.path
}

// publish puts the stream on the hub, in the place of another upstream if there is one.
func (up *upstream) publish(ctx context.Context) error {
	up.turn.Lock()
	defer up.turn.Unlock()
	up.mu.Lock()
	tracks := up.tracks
	up.mu.Unlock()
	pub, err := up.offerTo(ctx, tracks)
	if err != nil {
		return err
	}
	up.active = true
	up.tellAll()
	up.mu.Lock()
	up.pub = pub
	lanes := up.lanes
	up.mu.Unlock()
	for _, l := range lanes {
		l.open(pub)
	}
	return nil
}

// adopt takes other tracks than before.
func (up *upstream) adopt(ctx context.Context, t wire.Tracks) error {
	up.turn.Lock()
	defer up.turn.Unlock()
	var pub *stream.Publisher
	if up.active {
		var err error
		if pub, err = up.offerTo(ctx, t); err != nil {
			return err
		}
	}
	up.lay(t, pub)
	if pub != nil {
		up.tellAll()
	}
	return nil
}

// extend takes more renditions, and other rates of those that it has.
func (up *upstream) extend(t wire.Tracks) {
	up.turn.Lock()
	defer up.turn.Unlock()
	up.mu.Lock()
	have := len(up.tracks.Tracks)
	up.tracks = t
	pub := up.pub
	for i := have; i < len(t.Tracks); i++ {
		l := &lane{up: up, pub: pub, track: i, video: true, wake: make(chan struct{}, 1)}
		up.lanes = append(up.lanes[:len(up.lanes):len(up.lanes)], l)
		if !up.closed {
			up.wg.Go(l.run)
		}
	}
	up.mu.Unlock()
	if pub == nil {
		return
	}
	pub.Add(t.Tracks[have:])
	for i, track := range t.Tracks {
		pub.Offer(i, track.Bitrate, track.Height)
	}
}

// unasked are the tracks that a node sends without being told which: all but the renditions.
func unasked(tracks []media.Track) uint32 { return 1<<len(media.Main(tracks)) - 1 }

// want notes which tracks the hub takes, and tells the node if that is news to it.
func (up *upstream) want(generation uint64, w wire.Want) {
	up.mu.Lock()
	defer up.mu.Unlock()
	if generation < up.tracks.Generation {
		return
	}
	up.hub &^= 1 << w.Track
	if w.On {
		up.hub |= 1 << w.Track
	}
	if generation == up.tracks.Generation { // else these tracks are about to be laid
		up.tellLocked(w)
	}
}

// tellAll tells the node what the hub takes, where the hub has not said so because it is as usual.
func (up *upstream) tellAll() {
	up.mu.Lock()
	defer up.mu.Unlock()
	for i := range up.tracks.Tracks {
		up.tellLocked(wire.Want{Track: i, On: up.hub>>i&1 == 1, Now: true})
	}
}

func (up *upstream) tellLocked(w wire.Want) {
	if on := up.wanted>>w.Track&1 == 1; on != w.On {
		up.wanted ^= 1 << w.Track
		up.since[w.Track] = time.Now()
		up.out.Put(w)
	}
}

// mirror asks for the tracks that another upstream sends, so that this one can take over.
func (up *upstream) mirror(other *upstream) {
	other.mu.Lock()
	wanted, tracks := other.wanted, other.tracks.Tracks
	other.mu.Unlock()
	up.mu.Lock()
	defer up.mu.Unlock()
	for i, t := range up.tracks.Tracks {
		if i < len(tracks) && t.Kind == tracks[i].Kind && t.Rendition == tracks[i].Rendition {
			up.tellLocked(wire.Want{Track: i, On: wanted>>i&1 == 1, Now: true})
		}
	}
}

// offerTo publishes tracks to the hub.
func (up *upstream) offerTo(ctx context.Context, t wire.Tracks) (*stream.Publisher, error) {
	s := up.session
	up.left.Store(false)
	published := up.published.Add(1)
	up.mu.Lock()
	up.hub = unasked(t.Tracks) // what the hub says differs from that
	up.mu.Unlock()
	return s.relay.cfg.Hub.Publish(ctx, s.key, stream.PublishOptions{
		Tracks:            t.Tracks,
		Relayed:           true,
		Request:           s.asked,
		OnKeyFrameRequest: func(track int) { up.wantKey(t.Generation, track) },
		OnWanted: func(track int, wanted, now bool) {
			up.want(t.Generation, wire.Want{Track: track, On: wanted, Now: now})
		},
		OnMessage: func(m media.Message) { up.out.Put(wire.Message(m)) }, // dropped when the node takes no more
		OnEnd: func(why error) {
			if !up.left.Load() && up.published.Load() == published { // else this session has replaced it itself
				select {
				case s.ended <- why:
				default:
				}
			}
		},
	})
}

// retire makes a spare of an upstream that somebody else has taken over from.
func (up *upstream) retire() {
	up.turn.Lock()
	defer up.turn.Unlock()
	up.active = false
	up.mu.Lock()
	up.pub = nil
	lanes := up.lanes
	up.mu.Unlock()
	for _, l := range lanes {
		l.retire()
	}
}

// lay opens a lane for each track. Without a publisher, they keep what comes.
func (up *upstream) lay(t wire.Tracks, pub *stream.Publisher) {
	up.mu.Lock()
	for _, l := range up.lanes {
		l.stop()
	}
	up.tracks, up.pub, up.lanes = t, pub, nil
	up.wanted = unasked(t.Tracks)
	if up.closed {
		up.mu.Unlock()
		return
	}
	for i, track := range t.Tracks {
		l := &lane{up: up, pub: pub, track: i, video: track.Kind == media.Video, wake: make(chan struct{}, 1)}
		up.lanes = append(up.lanes, l)
		up.wg.Go(l.run)
	}
	early := up.early
	up.early = nil
	up.mu.Unlock()
	for _, g := range early {
		up.offer(g)
	}
}

// listen reads control frames until the subscription ends, and returns why it did.
func (up *upstream) listen(ctx context.Context) error {
	for {
		f, err := up.next()
		if err != nil {
			up.peer.check(err)
			if errors.Is(err, io.EOF) {
				err = errors.New("the node ended the relay without a reason")
			}
			return err
		}
		switch f := f.(type) {
		case wire.Tracks:
			if f.Generation == up.tracks.Generation && slices.Equal(media.Main(f.Tracks), media.Main(up.tracks.Tracks)) && len(f.Tracks) >= len(up.tracks.Tracks) {
				up.extend(f)
				continue
			}
			if f.Generation <= up.tracks.Generation { // only this goroutine writes it
				return fmt.Errorf("%w: tracks of generation %d again", wire.ErrMalformed, f.Generation)
			}
			if err := up.adopt(ctx, f); err != nil {
				return err
			}
		case wire.Message:
			up.heard(time.Now())
			up.mu.Lock()
			pub := up.pub
			up.mu.Unlock()
			if pub != nil {
				pub.Message(media.Message(f))
			}
		case wire.Path:
			if err := up.comes(f.Nodes); err != nil {
				return err
			}
			up.turn.Lock()
			active := up.active
			up.turn.Unlock()
			if active { // else the session tells when it is
				up.session.reroute(up)
			}
		case wire.Move:
			select {
			case up.asked <- struct{}{}:
			default:
			}
		case wire.End:
			return reason(f.Code)
		}
	}
}

// heard notes that something came.
func (up *upstream) heard(now time.Time) {
	up.last.Store(now.UnixNano())
	if !up.came.Load() {
		up.came.Store(true)
	}
}

// joinWithin is how long the first GOP may take. Until it is there, viewers' wishes for a key frame are
// no news to the node, which sends the GOP from its cache, or has asked its publisher itself.
const joinWithin = time.Second

// wantKey is called by the hub.
func (up *upstream) wantKey(generation uint64, track int) {
	up.mu.Lock()
	coming := up.tracks.Generation != generation || track >= len(up.lanes) || !up.lanes[track].begun.Load()
	up.mu.Unlock()
	if !coming || time.Since(up.began) > joinWithin {
		up.out.Put(wire.KeyFrameRequest{Track: track})
	}
}

// offer takes a media stream.
func (up *upstream) offer(g *gop) {
	up.mu.Lock()
	defer up.mu.Unlock()
	h := g.header
	switch {
	case up.closed || h.Generation < up.tracks.Generation || h.Generation == up.tracks.Generation && h.Track >= len(up.lanes):
		g.st.CancelRead(wire.StreamUnsubscribed)
	case h.Generation > up.tracks.Generation:
		if len(up.early) >= maxEarly {
			up.early[0].st.CancelRead(wire.StreamCut)
			up.early = slices.Delete(up.early, 0, 1)
		}
		up.early = append(up.early, g)
	default:
		up.lanes[h.Track].offer(g)
	}
}

// close ends the subscription and its publisher, for a reason that is the hub's business too.
func (up *upstream) close(why error) {
	up.hangUp()
	up.mu.Lock()
	up.closed = true
	for _, l := range up.lanes {
		l.stop()
	}
	for _, g := range up.early {
		g.st.CancelRead(wire.StreamUnsubscribed)
	}
	up.early = nil
	up.mu.Unlock()
	up.cancel()
	up.wg.Wait()
	for _, l := range up.lanes {
		l.release()
	}
	if up.pub != nil {
		up.pub.Close(why)
	}
	up.peer.release()
}
