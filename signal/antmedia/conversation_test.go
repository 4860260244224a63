package antmedia

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"sluice/egress/webrtc"
	"sluice/internal/access"
	"sluice/media"
	"sluice/rtc"
	"sluice/signal"
	"sluice/stream"
)

// world is a small node: streams are live or not, sessions do what the test says, and everything that
// they are told is written down.
type world struct {
	mu       sync.Mutex
	live     map[string]bool
	hold     map[string]chan struct{} // offers and publishes of these wait until it closes
	refusals map[string]error
	legs     map[string]*leg
	watchers map[string]map[int]func()
	next     int
	log      []string
	changed  chan struct{} // closed and replaced at each change
}

func newWorld() *world {
	return &world{live: map[string]bool{}, hold: map[string]chan struct{}{}, refusals: map[string]error{}, legs: map[string]*leg{},
		watchers: map[string]map[int]func(){}, changed: make(chan struct{})}
}

type leg struct {
	w  *world
	rq Request
}

func (w *world) note(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.log = append(w.log, fmt.Sprintf(format, args...))
	close(w.changed)
	w.changed = make(chan struct{})
}

func (w *world) enter(ctx context.Context, r Request, what string) (*leg, error) {
	w.mu.Lock()
	err, hold := w.refusals[r.Key.ID], w.hold[r.Key.ID]
	w.mu.Unlock()
	w.note("%s %s", what, r.Key)
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
			w.note("%s %s cut short", what, r.Key)
			return nil, ctx.Err()
		}
	}
	if err != nil {
		return nil, fmt.Errorf("fake: %w", err)
	}
	l := &leg{w, r}
	w.mu.Lock()
	w.legs[r.Key.ID] = l
	w.mu.Unlock()
	return l, nil
}

func (w *world) Publish(ctx context.Context, r Request, offer string) (Session, string, error) {
	l, err := w.enter(ctx, r, "publish "+offer)
	return l, "ANSWER", err
}

const fakeOffer = "v=0\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:0\r\na=msid:s ARDAMSvs\r\nm=audio 9 UDP/TLS/RTP/SAVPF 97\r\na=msid:s ARDAMSas\r\na=mid:1\r\nm=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=mid:2\r\n"

func (w *world) Offer(ctx context.Context, r Request) (PlaySession, string, error) {
	w.mu.Lock()
	live := w.live[r.Key.ID]
	w.mu.Unlock()
	if !live {
		return nil, "", fmt.Errorf("fake: %w", stream.ErrOffline)
	}
	l, err := w.enter(ctx, r, "play")
	if err != nil {
		return nil, "", err
	}
	return l, fakeOffer, nil
}

func (w *world) Stream(_ context.Context, key media.Key) (Stream, bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if key.ID == "broken" {
		return Stream{}, false, errors.New("registry is away")
	}
	live, known := w.live[key.ID]
	s := Stream{Live: live, Codecs: []string{"H264", "opus"}, Origin: "origin-1", Viewers: 3}
	if live {
		s.Tracks = []stream.TrackInfo{
			{Track: media.Track{Kind: media.Video, Codec: media.Codec{Name: "H264"}}, Flowing: true, Bitrate: 2_500_000, Width: 1280, Height: 720},
			{Track: media.Track{Kind: media.Audio}, Flowing: true, Bitrate: 64_000},
		}
	}
	return s, known, nil
}

func (w *world) Look(ctx context.Context, key media.Key) (Stream, bool, error) {
	s, known, err := w.Stream(ctx, key)
	if key.ID == "ladder" {
		smaller := stream.TrackInfo{Track: media.Track{Kind: media.Video, Codec: s.Tracks[0].Codec, Rendition: "360p", Bitrate: 600_000, Height: 360}}
		s.Tracks = append(s.Tracks, smaller)
	}
	return s, known, err
}

func (w *world) Watch(key media.Key, f func()) func() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.next++
	n := w.next
	if w.watchers[key.ID] == nil {
		w.watchers[key.ID] = map[int]func(){}
	}
	w.watchers[key.ID][n] = f
	w.log = append(w.log, "watch "+key.ID)
	close(w.changed)
	w.changed = make(chan struct{})
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.watchers[key.ID], n)
	}
}

// start makes a stream live and tells its watchers.
func (w *world) start(id string) {
	w.mu.Lock()
	w.live[id] = true
	var calls []func()
	for _, f := range w.watchers[id] {
		calls = append(calls, f)
	}
	w.mu.Unlock()
	for _, f := range calls {
		f()
	}
}

func (l *leg) AddCandidate(c rtc.Candidate) error {
	if c.Candidate == "rubbish" {
		return fmt.Errorf("%w: rubbish", rtc.ErrBadCandidate)
	}
	l.w.note("candidate %s %q mid=%q line=%d", l.rq.Key.ID, c.Candidate, c.MID, c.MLine)
	return nil
}

func (l *leg) SetAnswer(sdp string) error {
	if sdp == "bad" {
		return fmt.Errorf("%w: bad", rtc.ErrBadSDP)
	}
	l.w.note("answer %s %s", l.rq.Key.ID, sdp)
	return nil
}

func (l *leg) Qualities() []webrtc.Quality {
	return []webrtc.Quality{{Track: 0, Height: 720}, {Track: 2, Height: 360}}
}

func (l *leg) Rates() (r webrtc.Rates) {
	if l.rq.Key.ID == "measured" {
		r = webrtc.Rates{Path: 3_000_000, Video: 2_500_000, Audio: 64_000}
	}
	return r
}

func (l *leg) Pin(track int) bool { l.w.note("pin %s %d", l.rq.Key.ID, track); return true }

func (l *leg) Adapt(width, height int) { l.w.note("adapt %s %dx%d", l.rq.Key.ID, width, height) }

func (l *leg) Show(kind media.Kind, on bool) { l.w.note("show %s %s %t", l.rq.Key.ID, kind, on) }

func (l *leg) Close(reason error) { l.w.note("closed %s: %v", l.rq.Key.ID, reason) }

// until waits for a line in the log, and says what is there instead.
func (w *world) until(t *testing.T, want string) {
	t.Helper()
	deadline := time.After(5 * time.Second)
	for {
		w.mu.Lock()
		changed, got := w.changed, strings.Join(w.log, "\n")
		w.mu.Unlock()
		if strings.Contains("\n"+got+"\n", "\n"+want+"\n") {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("waited for %q; happened so far:\n%s", want, got)
		}
	}
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// serve starts a handler over a real WebSocket server.
func serve(t testing.TB, w *world, change func(*Config)) (*Handler, string) {
	before := runtime.NumGoroutine()
	cfg := Config{Publisher: w, Player: w, Directory: w, Apps: func() []string { return []string{"live"} }, Log: quiet(),
		Authorize: access.AllowAll, ClientAddr: func(*http.Request) netip.Addr { return netip.Addr{} },
		ICEServers: []signal.ICEServer{{URL: "stun:stun.example:3478"}},
		Relays: func() []signal.ICEServer {
			return []signal.ICEServer{{URL: "turn:turn.example:3478", Username: "u", Credential: "c"}}
		}}
	if change != nil {
		change(&cfg)
	}
	h := New(cfg)
	mux := http.NewServeMux()
	h.Register(mux)
	server := httptest.NewServer(mux)
	t.Cleanup(func() {
		h.Close()
		server.Close()
		deadline := time.Now().Add(5 * time.Second)
		for runtime.NumGoroutine() > before {
			if time.Now().After(deadline) {
				buf := make([]byte, 1<<20)
				t.Fatalf("goroutines were %d, are %d:\n%s", before, runtime.NumGoroutine(), buf[:runtime.Stack(buf, true)])
			}
			runtime.Gosched()
		}
	})
	return h, "ws" + strings.TrimPrefix(server.URL, "http") + "/live/websocket"
}

type client struct {
	t  testing.TB
	ws *websocket.Conn
}

func dial(t testing.TB, url string) *client {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	ws, _, err := websocket.Dial(ctx, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	ws.SetReadLimit(1 << 20)
	t.Cleanup(func() { _ = ws.CloseNow() })
	return &client{t, ws}
}

func (c *client) send(s string) {
	c.t.Helper()
	if err := c.ws.Write(c.t.Context(), websocket.MessageText, []byte(s)); err != nil {
		c.t.Fatal(err)
	}
}

func (c *client) read() (string, error) {
	ctx, cancel := context.WithTimeout(c.t.Context(), 5*time.Second)
	defer cancel()
	_, b, err := c.ws.Read(ctx)
	return string(b), err
}

func (c *client) want(want string) {
	c.t.Helper()
	got, err := c.read()
	if err != nil {
		c.t.Fatalf("want %s, got %v", want, err)
	}
	if got != want {
		c.t.Fatalf("want %s\n got %s", want, got)
	}
}

// TestConversations plays the files in testdata/conversations. In them, a line
//
//	> MESSAGE     is sent
//	< MESSAGE     must be what is received next
//	! VERB ARGS   happens in the node: live ID · gone ID · started ID · restored ID · rendition ID HEIGHT · ended ID · refuse ID WHY · hold ID · go ID · drain
//	= EVENT       must happen, or have happened, in the node
func TestConversations(t *testing.T) {
	files, err := filepath.Glob("testdata/conversations/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no conversations", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			w := newWorld()
			h, url := serve(t, w, func(c *Config) {
				c.Limits.Sessions, c.Limits.Waiting, c.Limits.Measure = 3, 2, time.Millisecond
				c.Authorize = func(_ context.Context, a access.Request) (*access.Grant, error) {
					if a.Token == "wrong" {
						return nil, fmt.Errorf("%w: it is wrong", access.ErrUnauthorized)
					}
					return nil, nil
				}
			})
			c := dial(t, url)
			for i, line := range strings.Split(string(b), "\n") {
				verb, rest, _ := strings.Cut(line, " ")
				ok := t.Run(fmt.Sprintf("line %d", i+1), func(t *testing.T) {
					c := &client{t, c.ws}
					switch verb {
					case ">":
						c.send(rest)
					case "<":
						c.want(rest)
					case "=":
						w.until(t, rest)
					case "!":
						w.happen(t, h, strings.Fields(rest))
					case "", "#":
					default:
						t.Fatalf("what is %q?", line)
					}
				})
				if !ok {
					t.FailNow()
				}
			}
		})
	}
}

func (w *world) happen(t *testing.T, h *Handler, args []string) {
	reasons := map[string]error{"inuse": stream.ErrInUse, "nocodec": rtc.ErrNoCodec, "badsdp": rtc.ErrBadSDP, "closing": stream.ErrClosing,
		"full": webrtc.ErrFull, "broken": errors.New("disk on fire")}
	if args[0] == "drain" {
		h.Drain()
		h.Move(100)
		return
	}
	id := args[1]
	w.mu.Lock()
	l, hold := w.legs[id], w.hold[id]
	switch args[0] {
	case "gone":
		w.live[id] = false
	case "refuse":
		w.refusals[id] = reasons[args[2]]
	case "hold":
		w.hold[id] = make(chan struct{})
	case "go":
		close(hold)
	}
	w.mu.Unlock()
	switch args[0] {
	case "live":
		w.start(id)
	case "started":
		l.rq.OnStarted()
	case "rendition":
		height, _ := strconv.Atoi(args[2])
		l.rq.OnRendition(webrtc.Quality{Height: height})
	case "restored":
		l.rq.OnRestored()
	case "ended":
		l.rq.OnEnded(rtc.ErrDisconnected)
	}
}

// The SDK can't say in a message that it is a backup, but opens the socket by a URL that it is given.
func TestBackupByTheURL(t *testing.T) {
	key := media.Key{App: "live", ID: "s"}
	for _, c := range []struct {
		query string
		want  media.Key
	}{{"", key}, {"?backup=0", key}, {"?backup=1", key.Backup()}} {
		t.Run("query "+c.query, func(t *testing.T) {
			w := newWorld()
			_, url := serve(t, w, nil)
			ws := dial(t, url+c.query)
			ws.send(`{"command":"publish","streamId":"s"}`)
			if _, err := ws.read(); err != nil {
				t.Fatal(err)
			}
			ws.send(`{"command":"takeConfiguration","streamId":"s","type":"offer","sdp":"OFFER"}`)
			if _, err := ws.read(); err != nil {
				t.Fatal(err)
			}
			w.mu.Lock()
			defer w.mu.Unlock()
			if l := w.legs[c.want.ID]; l == nil || l.rq.Key != c.want {
				t.Errorf("published: %v", w.log)
			}
		})
	}
	w := newWorld()
	w.refusals["s~backup"] = stream.ErrNoBackup
	_, url := serve(t, w, nil)
	ws := dial(t, url+"?backup=1")
	ws.send(`{"command":"publish","streamId":"s"}`)
	_, _ = ws.read()
	ws.send(`{"command":"takeConfiguration","streamId":"s","type":"offer","sdp":"OFFER"}`)
	if got, err := ws.read(); err != nil || !strings.Contains(got, `"definition":"no_backup"`) {
		t.Errorf("refused with %s, %v", got, err)
	}
}
