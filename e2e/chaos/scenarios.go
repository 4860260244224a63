package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	"sluice/load/crowd"
)

// scenario is one thing that goes wrong.
type scenario struct {
	name, title string
	setup       setup
	lacks       func(ctx context.Context, binary string) string // why it can't be shown; nil: it can
	run         func(ctx context.Context, w *world, r *result) error
}

func scenarios() []scenario {
	return []scenario{
		{name: "origin", title: "an origin is killed", run: originKilled},
		{name: "backup", title: "an origin is killed, and there is a backup publisher", run: originKilledWithBackup},
		{name: "edge", title: "an edge is killed", run: edgeKilled},
		{name: "gateway", title: "a gateway is killed", run: gatewayKilled},
		{name: "registry", title: "the registry is gone", run: registryGone},
		{name: "publisher", title: "a publisher's network drops for 5 s", run: publisherCut},
		{name: "pause", title: "an origin stands still, and goes on", run: originPaused},
		{name: "split", title: "an origin is cut off from gateways and registry", run: originSplit},
		{name: "drain", title: "an edge with 200 viewers is drained", setup: setup{streams: 1, viewers: -1, bitrate: 150_000}, run: edgeDrained},
		{name: "upgrade", title: "all nodes are replaced, one after the other", run: upgraded},
		{name: "tree", title: "the middle of a relay tree is killed", setup: setup{streams: 1, viewers: -1, nodeArgs: []string{"--relay-fanout=1"}}, run: middleKilled},
	}
}

func scenarioNames() string {
	var names []string
	for _, s := range scenarios() {
		names = append(names, s.name)
	}
	return strings.Join(names, ",")
}

// rounds is how often the short ones are repeated, each on a node that has come back meanwhile.
func (w *world) rounds() int {
	if w.quick {
		return 2
	}
	return 6
}

// phases are the parts of a gap, each since the failure.
type phases map[string][]time.Duration

func (p phases) add(name string, from, to time.Time) {
	if !to.Before(from) {
		p[name] = append(p[name], to.Sub(from))
	}
}

func (p phases) String() string {
	var parts []string
	for _, name := range sortedKeys(p.texts()) {
		parts = append(parts, p.texts()[name])
	}
	return strings.Join(parts, ", ")
}

// texts are in the order of time.
func (p phases) texts() map[string]string {
	all := map[string]string{}
	for name, list := range p {
		half := quantile(list, 50)
		all[fmt.Sprintf("%09d", half.Microseconds())+name] = fmt.Sprintf("%s %.2f s (p95 %.2f)", name, half.Seconds(), p95(list).Seconds())
	}
	return all
}

// comeback is what is seen of a stream that goes on at another origin.
type comeback struct {
	gaps, splices []time.Duration
	splice        time.Duration // which they may be at most; 0: it is only told
	phases        phases
	dark, again   int
	jumps, stale  int
	others        time.Duration // the longest gap of streams that were not touched
}

func newComeback() *comeback {
	return &comeback{phases: phases{}, splice: 300 * time.Millisecond}
}

// follow takes what viewers saw since the failure; touched are the streams whose origin it was.
func (b *comeback) follow(w *world, failed time.Time, touched []int) {
	published := w.live.Published()
	all := w.live.Watched()
	dark, again := w.lost(all)
	b.dark, b.again = b.dark+dark, b.again+again
	for _, s := range touched {
		life := published[s][len(published[s])-1]
		b.phases.add("publisher notices", failed, life.Lost)
		b.phases.add("session on another origin", failed, life.Back)
		b.phases.add("its key frame", failed, life.Key)
	}
	for _, v := range all {
		b.jumps, b.stale = b.jumps+v.Jumps, b.stale+v.Stale
		if !slices.Contains(touched, v.Stream) {
			b.others = max(b.others, v.Gap)
			continue
		}
		life := published[v.Stream][len(published[v.Stream])-1]
		b.gaps = append(b.gaps, v.Gap)
		b.splices = append(b.splices, max(0, v.To.Sub(life.Key)))
		b.phases.add("viewers' picture", failed, v.To)
	}
	for _, name := range w.names(edges) {
		for _, l := range w.processes[name].said(failed, "upstream lost", "stream pulled") {
			b.phases.add("edge says "+strings.SplitN(l.Msg, ",", 2)[0], failed, l.Time)
		}
	}
}

// tell makes the rows.
func (b *comeback) tell(r *result, whole time.Duration) {
	r.times("from the publisher's first key frame elsewhere to the viewers' next picture", b.splice, b.splices)
	r.times("the whole gap", whole, b.gaps)
	r.most("viewers without a picture afterwards", 0, float64(b.dark), "")
	r.most("sessions of viewers that were made again", 0, float64(b.again), "")
	r.most("numbers or timestamps that did not go on", 0, float64(b.jumps), "")
	r.most("pictures that went back in time", 0, float64(b.stale), "")
	r.told("longest gap of streams on the other origin", millis(b.others), "ms")
	r.note("%s", b.phases)
}

// gapMost is the figure for a publisher that notices within a second and tries again every half.
const gapMost = 3 * time.Second

func originKilled(ctx context.Context, w *world, r *result) error {
	b := newComeback()
	for range w.rounds() {
		victim, touched := busiest(w.owners())
		w.live.Mark()
		failed := time.Now()
		if err := w.processes[victim].kill(); err != nil {
			return err
		}
		if err := w.moved(ctx, victim, touched); err != nil {
			return err
		}
		b.follow(w, failed, touched)
		if err := w.restart(ctx, victim); err != nil {
			return err
		}
	}
	b.tell(r, gapMost)
	return nil
}

// originKilledWithBackup: the gap is at most a GOP. Backup publishers come anew for each round: of two origins one has both when the other has died.
func originKilledWithBackup(ctx context.Context, w *world, r *result) error {
	b := newComeback()
	for range w.rounds() {
		if err := w.loseOrigin(ctx, b); err != nil {
			return err
		}
	}
	r.times("the whole gap: at most the time between key frames", keyEvery, b.gaps)
	r.most("viewers without a picture afterwards", 0, float64(b.dark), "")
	r.most("sessions of viewers that were made again", 0, float64(b.again), "")
	r.most("numbers or timestamps that did not go on", 0, float64(b.jumps), "")
	r.told("longest gap of streams on the other origin", millis(b.others), "ms")
	r.note("%s", b.phases)
	return nil
}

// loseOrigin is one round.
func (w *world) loseOrigin(ctx context.Context, b *comeback) error {
	publish, _ := w.doors("gateway-1")
	backup, err := w.crowd(ctx, publish+"?backup=1", "")
	if err != nil {
		return fmt.Errorf("backup publishers: %w", err)
	}
	if !pause(ctx, 2*settle) { // edges take both
		return errors.Join(context.Cause(ctx), backup.Close())
	}
	victim, touched := busiest(w.owners())
	w.live.Mark()
	failed := time.Now()
	err = w.processes[victim].kill()
	if err == nil {
		err = w.moved(ctx, victim, touched)
	}
	if err == nil {
		b.follow(w, failed, touched)
	}
	if err := errors.Join(err, backup.Close()); err != nil {
		return err
	}
	return w.restart(ctx, victim)
}

// moved waits until the streams have a publisher on another node, and all viewers a picture.
func (w *world) moved(ctx context.Context, from string, streams []int) error {
	ctx, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	for {
		waiting := ""
		published := w.live.Published()
		for _, s := range streams {
			if life := published[s][len(published[s])-1]; life.Key.IsZero() || life.Node == from {
				waiting = fmt.Sprintf("the publisher of stream %d is on %q after %d attempts", s, life.Node, life.Tries)
			}
		}
		if waiting == "" {
			break
		}
		if !pause(ctx, 50*time.Millisecond) {
			return fmt.Errorf("after %s: %s", startWithin, waiting)
		}
	}
	return w.watched(ctx, startWithin)
}

func edgeKilled(ctx context.Context, w *world, r *result) error {
	var gaps []time.Duration
	var others time.Duration
	dark, strangers := 0, 0
	for range w.rounds() {
		victim, touched := busiest(w.serving())
		w.live.Mark()
		if err := w.processes[victim].kill(); err != nil {
			return err
		}
		if err := w.watched(ctx, startWithin); err != nil {
			return err
		}
		all := w.live.Watched()
		lost, again := w.lost(all)
		dark += lost
		strangers += again - len(touched)
		for i, v := range all {
			if slices.Contains(touched, i) {
				gaps = append(gaps, v.Gap)
			} else {
				others = max(others, v.Gap)
			}
		}
		if err := w.restart(ctx, victim); err != nil {
			return err
		}
	}
	r.times("gap at its viewers, who notice and come back as our player", 2500*time.Millisecond, gaps)
	r.most("viewers without a picture afterwards", 0, float64(dark), "")
	r.most("sessions made again beside theirs", 0, float64(strangers), "")
	r.told("longest gap at viewers of other edges", millis(others), "ms")
	return nil
}

func gatewayKilled(ctx context.Context, w *world, r *result) error {
	longest := func() (d time.Duration) {
		for _, v := range w.live.Watched() {
			d = max(d, v.Gap)
		}
		return d
	}
	w.live.Mark()
	if !pause(ctx, 5*time.Second) {
		return context.Cause(ctx)
	}
	normal := longest()
	w.live.Mark()
	if err := w.processes["gateway-1"].kill(); err != nil {
		return err
	}
	if !pause(ctx, 5*time.Second) {
		return context.Cause(ctx)
	}
	most := longest()
	r.most("longest gap, above the longest of the 5 s before", 100, millis(most-normal), "ms")
	w.live.Doors(w.doors("gateway-2"))
	before := len(w.live.Watched())
	if err := w.live.Join(w.setup.viewers + 1); err != nil {
		return fmt.Errorf("new viewers by the other gateway: %w", err)
	}
	if err := w.watched(ctx, startWithin); err != nil {
		return err
	}
	all := w.live.Watched()
	var pictures []time.Duration
	for _, v := range all[before:] {
		pictures = append(pictures, v.Picture)
	}
	r.times("first picture of new viewers, by the other gateway", time.Second, pictures)
	r.lost(w, all)
	return nil
}

// lost tells of viewers and processes that did not stay.
func (r *result) lost(w *world, all []crowd.Watched) {
	dark, again := w.lost(all)
	jumps := 0
	for _, v := range all {
		jumps += v.Jumps
	}
	r.most("viewers without a picture afterwards", 0, float64(dark), "")
	r.most("sessions of viewers that were made again", 0, float64(again), "")
	r.most("numbers or timestamps that did not go on", 0, float64(jumps), "")
	r.most("processes that died of it", 0, float64(w.deaths()), "")
}

func registryGone(ctx context.Context, w *world, r *result) error {
	length := 10 * time.Minute
	if w.quick {
		length = 30 * time.Second
	}
	w.live.Mark()
	if err := w.store.leave(ctx); err != nil {
		return err
	}
	began, late := time.Now(), false
	asked, sick := 0, 0
	for time.Since(began) < length {
		for name := range w.processes {
			asked++
			if err := w.asks(ctx, name, "/healthz"); err != nil {
				sick++
				r.note("%s %.0f s after: %v", name, time.Since(began).Seconds(), err)
			}
		}
		if !late && time.Since(began) > length/2 {
			late = true
			if err := w.live.Join(w.setup.viewers + 1); err != nil {
				return fmt.Errorf("new viewers at warm edges: %w", err)
			}
		}
		if !pause(ctx, time.Second) {
			return context.Cause(ctx)
		}
	}
	if err := w.watched(ctx, startWithin); err != nil {
		return err
	}
	longest := func(all []crowd.Watched) (d time.Duration) {
		for _, v := range all {
			d = max(d, v.Gap)
		}
		return d
	}
	all := w.live.Watched()
	r.most(fmt.Sprintf("of %d times /healthz, bad ones", asked), 0, float64(sick), "")
	r.told(fmt.Sprintf("longest gap in %s", length), millis(longest(all)), "ms")
	if err := w.store.comeBack(ctx); err != nil {
		return err
	}
	back := time.Now()
	took, err := w.caughtUp(ctx)
	if err != nil {
		return err
	}
	r.most("nodes and streams are in the registry again after", 10_000, millis(took), "ms")
	if !pause(ctx, time.Until(back.Add(10*time.Second))) {
		return context.Cause(ctx)
	}
	if err := w.watched(ctx, startWithin); err != nil {
		return err
	}
	r.lost(w, w.live.Watched())
	return nil
}

func publisherCut(ctx context.Context, w *world, r *result) error {
	b := newComeback()
	var after []time.Duration
	for range w.rounds() {
		w.live.Mark()
		failed := time.Now()
		if err := w.cut(ctx, "clients", cut{with: []string{origins.String()}}, cut{with: []string{gateways.String()}, port: 443}); err != nil {
			return err
		}
		if !pause(ctx, 5*time.Second) {
			return context.Cause(ctx)
		}
		if err := w.cut(ctx, "clients"); err != nil {
			return err
		}
		back := time.Now()
		if err := w.watched(ctx, startWithin); err != nil {
			return err
		}
		all := w.live.Watched()
		for _, v := range all {
			after = append(after, v.To.Sub(back))
		}
		touched := make([]int, w.setup.streams)
		for i := range touched {
			touched[i] = i
		}
		b.follow(w, failed, touched)
	}
	r.times("picture after the network is back", 3*time.Second, after)
	r.most("viewers without a picture afterwards", 0, float64(b.dark), "")
	r.most("sessions of viewers that were made again", 0, float64(b.again), "")
	r.most("numbers or timestamps that did not go on", 0, float64(b.jumps), "")
	r.note("since the cut: %s", b.phases)
	return nil
}

func originPaused(ctx context.Context, w *world, r *result) error {
	length := time.Minute
	if w.quick {
		length = 10 * time.Second
	}
	victim, touched := busiest(w.owners())
	b := newComeback()
	w.live.Mark()
	failed := time.Now()
	if err := w.processes[victim].signal(syscall.SIGSTOP); err != nil {
		return err
	}
	if err := w.moved(ctx, victim, touched); err != nil {
		return err
	}
	b.follow(w, failed, touched)
	if !pause(ctx, time.Until(failed.Add(length))) {
		return context.Cause(ctx)
	}
	w.live.Mark()
	going := time.Now()
	if err := w.processes[victim].signal(syscall.SIGCONT); err != nil {
		return err
	}
	if !pause(ctx, 8*time.Second) {
		return context.Cause(ctx)
	}
	if err := w.watched(ctx, startWithin); err != nil {
		return err
	}
	all := w.live.Watched()
	gap := time.Duration(0)
	for _, v := range all {
		b.jumps, b.stale = b.jumps+v.Jumps, b.stale+v.Stale
		gap = max(gap, v.Gap)
	}
	dark, again := w.lost(all)
	b.dark, b.again = b.dark+dark, b.again+again
	b.tell(r, 0)
	said := w.processes[victim].said(going, movedMessage)
	r.most("streams of the fenced owner of which it does not say that they have moved", 0, float64(len(touched)-len(said)), "")
	r.most("longest gap when it goes on", 500, millis(gap), "ms")
	r.most("processes that died of it", 0, float64(w.deaths()), "")
	return nil
}

// movedMessage is what a node says of a stream that another one has taken.
const movedMessage = "stream moved to another node"

func originSplit(ctx context.Context, w *world, r *result) error {
	victim, touched := busiest(w.owners())
	w.live.Mark()
	split := []cut{{with: []string{gateways.String()}}}
	if w.store.networked() {
		split[0].with = append(split[0].with, registries.String())
	} else {
		r.note("the registry is a file here, which no host can be cut off from: only the gateways are")
	}
	if err := w.cut(ctx, victim, split...); err != nil {
		return err
	}
	if !pause(ctx, 15*time.Second) {
		return context.Cause(ctx)
	}
	gap := time.Duration(0)
	all := w.live.Watched()
	for _, v := range all {
		gap = max(gap, v.Gap)
	}
	dark, again := w.lost(all)
	r.most("longest gap while its publishers and edges reach it", 500, millis(gap), "ms")
	r.most("viewers lost meanwhile", 0, float64(dark+again), "")
	// Now its publishers lose it, too: they are taken by the other, and what it had must not come back.
	b := newComeback()
	w.live.Mark()
	failed := time.Now()
	if err := w.cut(ctx, victim, append(split, cut{with: []string{clients.String()}})...); err != nil {
		return err
	}
	if err := w.moved(ctx, victim, touched); err != nil {
		return err
	}
	b.follow(w, failed, touched)
	if err := w.cut(ctx, victim); err != nil {
		return err
	}
	if !pause(ctx, 8*time.Second) {
		return context.Cause(ctx)
	}
	if err := w.watched(ctx, startWithin); err != nil {
		return err
	}
	for _, v := range w.live.Watched() {
		b.jumps, b.stale = b.jumps+v.Jumps, b.stale+v.Stale
	}
	b.splice = 0 // edges that still reach the origin ask after 2 s
	b.tell(r, 0)
	return nil
}

func edgeDrained(ctx context.Context, w *world, r *result) error {
	if err := w.joinOn(ctx, "edge-1", 200); err != nil {
		return err
	}
	victim, touched := busiest(w.serving())
	w.live.Mark()
	began := time.Now()
	if _, err := command(ctx, "", w.binary, "drain", victim, "--store="+w.url); err != nil {
		r.note("sluice drain: %v; SIGTERM instead", err)
		if err := w.processes[victim].signal(syscall.SIGTERM); err != nil {
			return err
		}
	}
	for waiting := true; waiting; {
		waiting = slices.Contains(w.serving(), victim)
		if waiting && time.Since(began) > time.Minute {
			return fmt.Errorf("after a minute viewers are still on %s", victim)
		}
		if !pause(ctx, 100*time.Millisecond) {
			return context.Cause(ctx)
		}
	}
	r.told("all viewers are elsewhere after", millis(time.Since(began)), "ms")
	if err := w.watched(ctx, startWithin); err != nil {
		return err
	}
	var gaps, others []time.Duration
	all := w.live.Watched()
	for i, v := range all {
		if slices.Contains(touched, i) {
			gaps = append(gaps, v.Gap)
		} else {
			others = append(others, v.Gap)
		}
	}
	dark, _ := w.lost(all)
	r.times(fmt.Sprintf("gap at its %d viewers", len(gaps)), 500*time.Millisecond, gaps)
	r.most("viewers lost", 0, float64(dark), "")
	r.told("longest gap at its viewers", millis(quantile(gaps, 100)), "ms")
	r.told("longest gap at viewers of other edges", millis(quantile(others, 100)), "ms")
	return nil
}

func upgraded(ctx context.Context, w *world, r *result) error {
	w.live.Mark()
	worst := map[string]time.Duration{}
	for _, name := range slices.Concat(w.names(gateways), w.names(edges), w.names(origins)) {
		before := w.live.Watched()
		if w.net.hosts[name].net == gateways { // a balancer before them sends people to the other one
			for _, other := range w.names(gateways) {
				if other != name {
					w.live.Doors(w.doors(other))
				}
			}
		}
		if err := w.processes[name].stop(time.Minute); err != nil {
			return err
		}
		if err := w.restart(ctx, name); err != nil {
			return err
		}
		if err := w.watched(ctx, startWithin); err != nil {
			return fmt.Errorf("after %s was replaced: %w", name, err)
		}
		for i, v := range w.live.Watched() {
			if i < len(before) && v.Gap > before[i].Gap {
				worst[name] = max(worst[name], v.Gap)
			}
		}
	}
	var gaps []time.Duration
	all := w.live.Watched()
	for _, v := range all {
		gaps = append(gaps, v.Gap)
	}
	dark, again := w.lost(all)
	r.most("longest time without a picture, of all viewers", 1000, millis(quantile(gaps, 100)), "ms")
	r.most("viewers without a picture afterwards", 0, float64(dark), "")
	r.told("sessions of viewers that were made again", float64(again), "")
	for _, name := range sortedKeys(texts(worst)) {
		r.note("longest gap by then, after %s: %.0f ms", name, millis(worst[name]))
	}
	return nil
}

func texts[V any](m map[string]V) map[string]string {
	all := map[string]string{}
	for k, v := range m {
		all[k] = fmt.Sprint(v)
	}
	return all
}

// joinOn lets viewers come by a gateway that reaches one edge only, until there are n of each stream.
func (w *world) joinOn(ctx context.Context, edge string, n int) error {
	away := cut{with: []string{gateways.String()}}
	for _, name := range w.names(edges) {
		if name != edge {
			if err := w.cut(ctx, name, away); err != nil {
				return err
			}
		}
	}
	if !pause(ctx, 2*settle) { // the gateway has noticed
		return context.Cause(ctx)
	}
	if err := w.live.Join(n); err != nil {
		return fmt.Errorf("viewers of %s: %w", edge, err)
	}
	for _, name := range w.names(edges) {
		if err := w.cut(ctx, name); err != nil {
			return err
		}
	}
	if !pause(ctx, 2*settle) {
		return context.Cause(ctx)
	}
	return w.watched(ctx, startWithin)
}

// middleKilled gives each edge viewers of the stream, and kills one that others take it from.
func middleKilled(ctx context.Context, w *world, r *result) error {
	for i, name := range w.names(edges) {
		if err := w.joinOn(ctx, name, 5*(i+1)); err != nil {
			return err
		}
	}
	if err := w.watched(ctx, startWithin); err != nil {
		return err
	}
	parents := map[string]bool{}
	for _, name := range w.names(edges) {
		if pulled := w.processes[name].said(time.Time{}, "stream pulled"); len(pulled) > 0 {
			parents[pulled[len(pulled)-1].From] = true
		}
	}
	middle := ""
	for _, name := range w.names(edges) {
		if parents[name] {
			middle = name
			break
		}
	}
	if middle == "" {
		return skipped("edges take streams from origins only: there is no tree yet")
	}
	serving := w.serving()
	w.live.Mark()
	if err := w.processes[middle].kill(); err != nil {
		return err
	}
	if err := w.watched(ctx, startWithin); err != nil {
		return err
	}
	var own, below []time.Duration
	strangers := 0
	all := w.live.Watched()
	for i, v := range all {
		if serving[i] == middle {
			own = append(own, v.Gap)
			continue
		}
		below = append(below, v.Gap)
		strangers += v.Again
	}
	dark, _ := w.lost(all)
	r.times("gap at viewers of its children and of others", 2500*time.Millisecond, below)
	r.times("gap at its own viewers", 2500*time.Millisecond, own)
	r.most("viewers without a picture afterwards", 0, float64(dark), "")
	r.most("sessions of others' viewers that were made again", 0, float64(strangers), "")
	return nil
}
