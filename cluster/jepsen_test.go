package cluster_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sluice/cluster"
	"sluice/cluster/clustertest"
	"sluice/cluster/memory"
	"sluice/cluster/sqlite"
	"sluice/media"
)

// In the manner of Jepsen (jepsen.io): nodes that publish and watch, and an adversary who kills, stops and cuts them off at random. What
// they saw is checked afterwards. go test ./cluster -run Jepsen -seed N -steps N plays the same faults again, at the same times.

const (
	members = 5
	streams = 4
	// stopsWithin is how long a holder may go on that has lost its stream and reaches the registry: a heartbeat and a few round trips.
	stopsWithin = cluster.HeartbeatEvery + 400*time.Millisecond
	quietEvery  = 500              // steps
	quiet       = 12 * time.Second // after so long without faults, all must agree: a read that began during them, two of a node's, and the pause before rows are believed again
)

// settings of a run, from the command line.
type settings struct {
	seed  uint64
	steps int
}

func fromFlags(steps int) settings {
	s := settings{seed: uint64(time.Now().UnixNano()), steps: steps}
	if f := flag.Lookup("seed"); f != nil {
		if n := f.Value.(flag.Getter).Get().(uint64); n != 0 {
			s.seed = n
		}
		if n := flag.Lookup("steps").Value.(flag.Getter).Get().(int); n != 0 {
			s.steps = n
		}
	}
	return s
}

var (
	_ = flag.Uint64("seed", 0, "of the random faults; 0: another one each time")
	_ = flag.Int("steps", 0, "of random faults; 0: as usual")
)

func TestJepsenMemory(t *testing.T) {
	s := fromFlags(10_000)
	synctest.Test(t, func(t *testing.T) {
		store := memory.NewStore(time.Now)
		jepsen(t, s, store.Open(), func() *clustertest.Line {
			line := clustertest.NewLine(nil)
			line.Registry = store.OpenVia(line.Trip) // so that a node can be stopped within a claim
			return line
		})
	})
}

func TestJepsenSQLite(t *testing.T) {
	s := fromFlags(1000)
	path := filepath.Join(t.TempDir(), "sluice.db")
	synctest.Test(t, func(t *testing.T) {
		open := func() *sqlite.Registry {
			r, err := sqlite.Open(context.Background(), path)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = r.Close() })
			return r
		}
		jepsen(t, s, open(), func() *clustertest.Line { return clustertest.NewLine(open()) })
	})
}

// process is a node, from its start to its end.
type process struct {
	id     string
	line   *clustertest.Line
	member *cluster.Member
	dir    *cluster.Directory
	stop   func()

	// These belong to world.mu.
	owners    map[media.Key]*owner
	acquiring map[media.Key]bool
	gone      bool
	cut       time.Time // until then
	paused    time.Time
	reachable time.Time // since then; zero: it is not
}

// owner is a publisher who believes that the stream is his.
type owner struct {
	held        *cluster.Held
	interrupted bool
	wrong       time.Time // since then the registry does not know of him
}

// world is the run.
type world struct {
	t       *testing.T
	rnd     *rand.Rand
	seed    uint64
	step    int
	truth   cluster.Registry
	newLine func() *clustertest.Line
	history history
	wg      sync.WaitGroup

	mu     sync.Mutex
	nodes  []*process // the last for each id is the one that lives
	losses int
	told   int
	kills  int
	pauses int
	cuts   int
	ended  int // by ErrReplaced
}

func (w *world) fail(format string, args ...any) {
	w.t.Helper()
	w.t.Fatalf("seed %d, step %d: %s", w.seed, w.step, fmt.Sprintf(format, args...))
}

func jepsen(t *testing.T, s settings, truth cluster.Registry, newLine func() *clustertest.Line) {
	t.Logf("seed %d, %d steps", s.seed, s.steps)
	w := &world{t: t, rnd: rand.New(rand.NewPCG(s.seed, 0)), seed: s.seed, truth: truth, newLine: newLine}
	begin := time.Now()
	for i := range members {
		w.start(nodeID(i))
	}
	defer w.wg.Wait()
	defer w.end()
	for w.step = 1; w.step <= s.steps; w.step++ {
		w.act()
		<-time.After(time.Duration(w.rnd.IntN(300)) * time.Millisecond)
		w.heal(time.Now())
		w.owners()
		if w.step%quietEvery == 0 || w.step == s.steps {
			w.quiet()
		}
	}
	v := w.history.check()
	for _, wrong := range v.wrong {
		t.Errorf("seed %d: %s", s.seed, wrong)
	}
	t.Logf("%v: %d claims, %d takeovers, %d of them from a node that was heard of within the minute, %d resumed, %d fenced, %d publishers lost their stream, watchers were told %d times",
		time.Since(begin).Round(time.Second), v.claims, v.takeovers, v.fresh, v.resumes, v.fences, w.losses, w.told)
	t.Logf("%d kills, %d pauses, %d cuts, %d processes replaced by another of their id", w.kills, w.pauses, w.cuts, w.ended)
	rare := s.steps < 5000 || v.resumes > 0 && w.ended > 0
	if v.takeovers < s.steps/100 || v.fences < s.steps/200 || w.losses < s.steps/200 || !rare {
		t.Errorf("seed %d: too little happened for this to be a test", s.seed)
	}
}

func nodeID(i int) string       { return fmt.Sprintf("n%d", i) }
func nodeKey(i int) media.Key   { return key2(i) }
func (p *process) usable() bool { return !p.gone && p.paused.IsZero() }

// start runs a process; one of the same id that still runs is replaced.
func (w *world) start(id string) {
	line := w.newLine()
	line.Skew(time.Duration(w.rnd.IntN(1000)-500) * time.Millisecond)
	reg := recorder{line, &w.history}
	silent := slog.New(slog.DiscardHandler)
	ctx, stop := context.WithCancel(context.Background())
	p := &process{id: id, line: line, stop: stop, reachable: time.Now(), owners: map[media.Key]*owner{}, acquiring: map[media.Key]bool{},
		member: cluster.NewMember(reg, id, func() cluster.Node { return cluster.Node{State: cluster.Ready} }, silent),
		dir:    cluster.NewDirectory(reg, []string{"", id}[w.rnd.IntN(2)], silent)}
	delays := rand.New(rand.NewPCG(w.seed, uint64(len(w.nodes))))
	line.Delay(func() time.Duration {
		w.mu.Lock()
		defer w.mu.Unlock()
		if delays.IntN(500) > 0 {
			return time.Duration(1+delays.IntN(8)) * time.Millisecond
		}
		d := time.Duration(delays.IntN(1500)) * time.Millisecond // a moment in which the registry is hardly reached
		if !p.reachable.IsZero() {
			p.reachable = time.Now().Add(d)
		}
		return d
	})
	w.mu.Lock()
	w.nodes = append(w.nodes, p)
	w.mu.Unlock()
	for i := range streams {
		last := int64(0)
		p.dir.Watch(nodeKey(i), func(s cluster.Stream) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.told++
			if s.Epoch <= last || s.State != cluster.Broadcasting {
				w.t.Errorf("seed %d, step %d: a watcher at %s who knew epoch %d was told of %+v", w.seed, w.step, id, last, s)
			}
			last = s.Epoch
		})
	}
	w.wg.Go(func() { _ = p.dir.Run(ctx) })
	w.wg.Go(func() { w.runMember(ctx, p) })
}

func (w *world) runMember(ctx context.Context, p *process) {
	err := p.member.Run(ctx)
	w.mu.Lock()
	defer w.mu.Unlock()
	if errors.Is(err, cluster.ErrReplaced) {
		w.ended++
		if len(p.owners) > 0 {
			w.t.Errorf("seed %d, step %d: %s was replaced, and its publishers go on: %v", w.seed, w.step, p.id, p.owners)
		}
	} else if err != nil {
		w.t.Errorf("%s ended with %v", p.id, err)
	}
	p.gone = true
	p.stop()
}

// pick returns a process that can do something.
func (w *world) pick() *process {
	w.mu.Lock()
	defer w.mu.Unlock()
	var can []*process
	for _, p := range w.nodes {
		if p.usable() {
			can = append(can, p)
		}
	}
	if len(can) == 0 {
		return nil
	}
	return can[w.rnd.IntN(len(can))]
}

// act does one random thing.
func (w *world) act() {
	p, key := w.pick(), nodeKey(w.rnd.IntN(streams))
	if p == nil {
		return
	}
	now := time.Now()
	switch what := w.rnd.IntN(1000); {
	case what < 300:
		w.publish(p, key)
	case what < 380:
		w.unpublish(p, key)
	case what < 500:
		w.report(p, key, []cluster.StreamState{cluster.Broadcasting, cluster.Interrupted, cluster.Leaving}[w.rnd.IntN(3)])
	case what < 530:
		w.pauses++
		w.mu.Lock()
		p.paused, p.reachable = now.Add(w.long()), time.Time{}
		w.mu.Unlock()
		p.line.Pause(true)
	case what < 560:
		w.cutOff(p, now.Add(w.long()))
	case what < 570:
		w.kill(p)
	case what < 573: // another process with the same id
		w.start(p.id)
	case what < 575: // the registry is away
		until := now.Add(w.long())
		for _, p := range w.nodes {
			w.cutOff(p, until)
		}
	}
}

// long is for how long something is wrong: mostly around SessionTTL, at times up to a minute.
func (w *world) long() time.Duration {
	if w.rnd.IntN(10) == 0 {
		return time.Duration(w.rnd.IntN(60_000)) * time.Millisecond
	}
	return time.Duration(500+w.rnd.IntN(5000)) * time.Millisecond
}

func (w *world) cutOff(p *process, until time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !p.gone {
		w.cuts++
		p.cut, p.reachable = until, time.Time{}
		p.line.Cut(true)
	}
}

// kill ends a process without a word to the registry; it is started again by heal.
func (w *world) kill(p *process) {
	w.kills++
	p.line.Cut(true)
	w.mu.Lock()
	p.gone = true
	clear(p.owners)
	w.mu.Unlock()
	p.line.Pause(false)
	p.stop()
}

// heal ends what has lasted long enough, and starts processes again.
func (w *world) heal(now time.Time) {
	w.mu.Lock()
	lives := map[string]bool{}
	for _, p := range w.nodes {
		if p.gone {
			continue
		}
		lives[p.id] = true
		if !p.paused.IsZero() && now.After(p.paused) {
			p.paused = time.Time{}
			p.line.Pause(false)
		}
		if !p.cut.IsZero() && now.After(p.cut) {
			p.cut = time.Time{}
			p.line.Cut(false)
		}
		if p.reachable.IsZero() && p.cut.IsZero() && p.paused.IsZero() {
			p.reachable = now
		}
	}
	w.mu.Unlock()
	for i := range members {
		if !lives[nodeID(i)] && w.rnd.IntN(10) == 0 {
			w.start(nodeID(i))
		}
	}
}

// publish has a publisher come to a node.
func (w *world) publish(p *process, key media.Key) {
	w.mu.Lock()
	busy := p.owners[key] != nil || p.acquiring[key]
	p.acquiring[key] = p.acquiring[key] || !busy
	w.mu.Unlock()
	if busy {
		return
	}
	w.wg.Go(func() {
		o := &owner{}
		lost := false
		held, err := p.member.Acquire(context.Background(), key, false, func(error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			lost = true
			w.losses++
			if p.owners[key] == o {
				delete(p.owners, key)
			}
		})
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(p.acquiring, key)
		if err == nil && !lost && !p.gone {
			o.held = held
			p.owners[key] = o
		}
	})
}

func (w *world) unpublish(p *process, key media.Key) {
	w.mu.Lock()
	o := p.owners[key]
	delete(p.owners, key)
	w.mu.Unlock()
	if o != nil {
		w.wg.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			o.held.Release(ctx)
		})
	}
}

func (w *world) report(p *process, key media.Key, state cluster.StreamState) {
	w.mu.Lock()
	o := p.owners[key]
	if o != nil {
		o.interrupted = state == cluster.Interrupted
	}
	w.mu.Unlock()
	if o != nil {
		o.held.Report(cluster.StreamInfo{State: state})
	}
}

// rows is what the registry says in truth.
func (w *world) rows() map[media.Key]cluster.Stream {
	var keys []media.Key
	for i := range streams {
		keys = append(keys, nodeKey(i))
	}
	list, err := w.truth.Lookup(context.Background(), keys...)
	if err != nil {
		w.fail("read the registry: %v", err)
	}
	rows := map[media.Key]cluster.Stream{}
	for _, s := range list {
		rows[s.Key] = s
	}
	return rows
}

// owners checks that who has lost a stream ends in time.
func (w *world) owners() {
	rows, now := w.rows(), time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range w.nodes {
		for key, o := range p.owners {
			s, l := rows[key], o.held.Lease()
			if s.Epoch == l.Epoch && s.Session == l.Session && s.State != cluster.Finished {
				o.wrong = time.Time{}
				continue
			}
			if o.wrong.IsZero() {
				o.wrong = now
			}
			since := o.wrong
			if p.reachable.After(since) {
				since = p.reachable
			}
			if !p.gone && !p.reachable.IsZero() && now.Sub(since) > stopsWithin {
				w.fail("%s has reached the registry for %v, and its publisher holds %+v although the stream is %+v\n%s", p.id, now.Sub(since), l, s, w.history.tail(key, p.id))
			}
		}
	}
}

// quiet ends all faults, and checks that all agree soon after.
func (w *world) quiet() {
	w.heal(time.Now().Add(time.Hour))
	<-time.After(quiet)
	rows := w.rows()
	nodes, err := w.truth.Nodes(context.Background())
	if err != nil {
		w.fail("read the registry: %v", err)
	}
	view := cluster.View{Nodes: nodes, At: w.truth.Now()}
	w.mu.Lock()
	defer w.mu.Unlock()
	holders := map[media.Key]int{}
	for _, p := range w.nodes {
		if p.gone {
			continue
		}
		for key, o := range p.owners {
			holders[key]++
			s, l := rows[key], o.held.Lease()
			state := map[bool]cluster.StreamState{true: cluster.Interrupted, false: cluster.Broadcasting}[o.interrupted]
			if view.State(s) != state || s.Origin != l.Node || s.Session != l.Session || s.Epoch != l.Epoch {
				w.fail("all is well, and %s holds %+v, %s, but the stream is %+v, %s", p.id, l, state, s, view.State(s))
			}
		}
		for key, s := range rows {
			if got, _ := p.dir.Stream(key); got.Epoch != s.Epoch || got.State != view.State(s) {
				w.fail("all is well, and %s sees %+v, but the stream is %+v, %s", p.id, got, s, view.State(s))
			}
		}
	}
	for key, s := range rows {
		want := 1
		if view.State(s) == cluster.Finished {
			want = 0
		}
		if holders[key] != want {
			w.fail("all is well, and the stream %+v is %s with %d holders", s, view.State(s), holders[key])
		}
	}
}

// end stops all processes in an orderly way.
func (w *world) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range w.nodes {
		p.line.Pause(false)
		p.stop()
	}
}
