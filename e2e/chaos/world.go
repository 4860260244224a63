package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"sluice/load/crowd"
)

// setup is what a scenario wants of its cluster. Zero is the default in brackets.
type setup struct {
	streams, viewers int // of each stream [6, 5]
	bitrate          int // [600 kbit/s]
	nodeArgs         []string
}

// world is a cluster of real processes with its publishers and viewers, fresh for each scenario.
type world struct {
	binary string
	dir    string // logs, registry, certificate
	net    *network
	store  store
	quick  bool
	loss   float64 // of the clients' cable
	setup  setup

	url       string // of the store
	processes map[string]*process
	roots     *x509.CertPool
	web       *http.Client
	live      *crowd.Live
}

const (
	startWithin = 20 * time.Second
	// settle is for heartbeats and views to tell of each other: nodes are known, loads are.
	settle = 2 * time.Second
)

// open starts everything and returns when all viewers have a picture. The caller closes the world also when that failed.
func (w *world) open(ctx context.Context) (err error) {
	s := &w.setup
	for v, d := range map[*int]int{&s.streams: 6, &s.viewers: 5, &s.bitrate: 600_000} {
		if *v == 0 {
			*v = d
		}
	}
	if w.url, err = w.store.start(ctx, w.dir); err != nil {
		return err
	}
	var doors []string
	for _, h := range w.net.hosts {
		if h.net == gateways {
			doors = append(doors, h.address())
		}
	}
	if w.roots, err = certify(w.dir, doors...); err != nil {
		return err
	}
	w.web = &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: w.roots}, DisableKeepAlives: true}}
	w.processes = map[string]*process{}
	for name, h := range w.net.hosts {
		switch h.net {
		case origins:
			w.processes[name] = serve(w.binary, h, "origin", w.url, w.dir, s.nodeArgs...)
		case edges:
			w.processes[name] = serve(w.binary, h, "edge", w.url, w.dir, s.nodeArgs...)
		case gateways:
			w.processes[name] = frontDoor(w.binary, h, w.url, w.dir)
		default:
			continue
		}
		if err := w.processes[name].start(); err != nil {
			return err
		}
	}
	for name := range w.processes {
		if err := w.ready(ctx, name); err != nil {
			return err
		}
	}
	if !pause(ctx, settle) {
		return context.Cause(ctx)
	}
	return w.populate(ctx)
}

// populate lets publishers and viewers come.
func (w *world) populate(ctx context.Context) (err error) {
	publish, play := w.doors("gateway-1")
	if w.live, err = w.crowd(ctx, publish, play); err != nil {
		return err
	}
	if !pause(ctx, settle) {
		return context.Cause(ctx)
	}
	if w.setup.viewers < 0 { // the scenario lets them come
		return nil
	}
	if err := w.live.Join(w.setup.viewers); err != nil {
		return err
	}
	return w.watched(ctx, startWithin)
}

// keyEvery is the time between key frames.
const keyEvery = 2 * time.Second

func (w *world) crowd(ctx context.Context, publish, play string) (*crowd.Live, error) {
	return crowd.Open(ctx, crowd.Config{Publish: publish, Play: play, Streams: w.setup.streams, Viewers: max(1, w.setup.viewers), Rate: 100, Connections: 64,
		Bitrate: w.setup.bitrate, FPS: 30, GOP: keyEvery, Audio: true, Roots: w.roots, Own: true, Follow: true, Return: returning(), Log: slog.New(slog.DiscardHandler)})
}

// returning is how those who use the cluster find out that they must come back: publishers as in the issue, viewers as our player.
func returning() *crowd.Return {
	return &crowd.Return{Notice: time.Second, Stall: time.Second, Soon: 200 * time.Millisecond, Pause: 500 * time.Millisecond}
}

// doors are the addresses at a gateway.
func (w *world) doors(gateway string) (publish, play string) {
	at := w.net.hosts[gateway].address()
	return "https://" + at + "/live/whip/s%d", "https://" + at + ":5443/live/whep/s%d"
}

// ready waits until a process answers as one that takes work.
func (w *world) ready(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	for {
		err := w.asks(ctx, name, "/readyz")
		if err == nil {
			return nil
		}
		if !pause(ctx, 50*time.Millisecond) {
			return fmt.Errorf("%s does not get ready: %w; its log ends with %s", name, err, tail(w.processes[name].log))
		}
	}
}

// asks asks a node or a gateway whether it is well.
func (w *world) asks(ctx context.Context, name, path string) error {
	h := w.net.hosts[name]
	if h.net != gateways {
		return get(ctx, h, path)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+h.address()+"/gateway/healthz", nil)
	if err != nil {
		return err
	}
	resp, err := w.web.Do(req)
	if err != nil {
		return err
	}
	_ = resp.Body.Close() // only the status counts
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	return nil
}

func tail(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(lines[max(0, len(lines)-3):], " | ")
}

// watched waits until every viewer has new pictures.
func (w *world) watched(ctx context.Context, within time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	before := w.live.Watched()
	for {
		if !pause(ctx, 200*time.Millisecond) {
			return fmt.Errorf("after %s not all viewers have a picture: %s", within, dark(before, w.live.Watched()))
		}
		if now := w.live.Watched(); len(now) > 0 && dark(before, now) == "" {
			return nil
		}
	}
}

// dark names the viewers that have got less than a second of pictures since before.
func dark(before, now []crowd.Watched) string {
	var names []string
	for i, v := range now {
		if !v.Up || i < len(before) && v.Frames < before[i].Frames+15 || v.Frames < 15 {
			names = append(names, fmt.Sprintf("viewer %d of stream %d at %q", i, v.Stream, v.Node))
		}
	}
	return strings.Join(names, ", ")
}

// close ends everything.
func (w *world) close() (err error) {
	if w.live != nil {
		err = w.live.Close()
	}
	for name, p := range w.processes {
		if p.cmd != nil {
			_ = p.signal(syscall.SIGCONT) // one that is stopped would not be gone
			err = errors.Join(err, ignoreEnded(p.kill()))
		}
		if w.net.hosts[name].net != gateways {
			err = errors.Join(err, w.net.shape(context.Background(), name, 0))
		}
	}
	return errors.Join(err, w.net.shape(context.Background(), "clients", 0), w.store.stop())
}

func ignoreEnded(err error) error {
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}

// cut sets which packets a host loses.
func (w *world) cut(ctx context.Context, name string, cuts ...cut) error {
	share := 0.0
	if name == "clients" {
		share = w.loss
	}
	return w.net.shape(ctx, name, share, cuts...)
}

// caughtUp waits until the registry shows every node as ready and every stream as broadcast, and says how long that took.
func (w *world) caughtUp(ctx context.Context) (time.Duration, error) {
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	for {
		nodes, err := command(ctx, "", w.binary, "nodes", "--json", "--store="+w.url)
		streams, err2 := command(ctx, "", w.binary, "streams", "--json", "--store="+w.url)
		why := errors.Join(err, err2)
		if why == nil {
			var n []struct{ State string }
			var s []struct{ State string }
			why = errors.Join(json.Unmarshal([]byte(nodes), &n), json.Unmarshal([]byte(streams), &s))
			ready := 0
			for _, x := range n {
				if x.State == "ready" {
					ready++
				}
			}
			live := 0
			for _, x := range s {
				if x.State == "broadcasting" {
					live++
				}
			}
			if ready == originCount+edgeCount && live == w.setup.streams {
				return time.Since(began), nil
			}
			why = errors.Join(why, fmt.Errorf("%d nodes are ready, %d streams live", ready, live))
		}
		if !pause(ctx, 200*time.Millisecond) {
			return 0, fmt.Errorf("the registry has not caught up: %w", why)
		}
	}
}

// restart starts a process again and waits until others know it.
func (w *world) restart(ctx context.Context, name string) error {
	if err := w.processes[name].start(); err != nil {
		return err
	}
	if err := w.ready(ctx, name); err != nil {
		return err
	}
	if !pause(ctx, settle) {
		return context.Cause(ctx)
	}
	return nil
}

// names of a subnet's hosts, in order.
func (w *world) names(net subnet) (all []string) {
	for name, h := range w.net.hosts {
		if h.net == net {
			all = append(all, name)
		}
	}
	slices.Sort(all)
	return all
}

// owners says which node each publisher is on.
func (w *world) owners() []string {
	var all []string
	for _, lives := range w.live.Published() {
		all = append(all, lives[len(lives)-1].Node)
	}
	return all
}

// busiest is the name that is there most often, and where.
func busiest(all []string) (name string, at []int) {
	count := map[string][]int{}
	for i, n := range all {
		count[n] = append(count[n], i)
	}
	for n, list := range count {
		if len(list) > len(at) || len(list) == len(at) && n < name {
			name, at = n, list
		}
	}
	return name, at
}

// serving says which edge each viewer is on.
func (w *world) serving() []string {
	var all []string
	for _, v := range w.live.Watched() {
		all = append(all, v.Node)
	}
	return all
}

// deaths are processes that ended and should not have.
func (w *world) deaths() (n int) {
	for _, p := range w.processes {
		n += p.deaths()
	}
	return n
}

// lost counts viewers without a picture, and sessions that were made again.
func (w *world) lost(all []crowd.Watched) (dark, again int) {
	for _, v := range all {
		if !v.Up {
			dark++
		}
		again += v.Again
	}
	return dark, again
}

// logs copies the processes' logs to a folder, for those who ask why.
func (w *world) logs(to string) error {
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	for name, p := range w.processes {
		text, err := os.ReadFile(p.log)
		if err != nil {
			continue // it never began
		}
		if err := os.WriteFile(filepath.Join(to, name+".log"), text, 0o644); err != nil {
			return err
		}
	}
	return nil
}
