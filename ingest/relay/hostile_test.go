package relay_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	in "sluice/ingest/relay"
	"sluice/media"
	wire "sluice/relay"
	"sluice/stream"
)

// liar is a node with a key that the registry knows, which does as it likes with those who subscribe.
func liar(t *testing.T, reg *registry, behave func(conn *quic.Conn, ctl *quic.Stream)) {
	t.Helper()
	id, err := wire.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	udp, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	tr := &quic.Transport{Conn: udp}
	l, err := tr.Listen(id.ServerTLS(reg.known), wire.ServerQUIC())
	if err != nil {
		t.Fatal(err)
	}
	reg.set(in.Source{Addr: udp.LocalAddr().String(), Key: id.Key(), Node: "liar", Epoch: 1})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept(context.Background())
			if err != nil {
				return
			}
			wg.Go(func() {
				for {
					ctl, err := conn.AcceptStream(context.Background())
					if err != nil {
						return
					}
					wg.Go(func() { behave(conn, ctl) })
				}
			})
		}
	})
	t.Cleanup(func() {
		_ = tr.Close()
		_ = udp.Close()
		wg.Wait()
	})
}

// accept answers a subscription as an honest node would.
func accept(ctl *quic.Stream, tracks ...media.Track) {
	b := wire.AppendFrame(nil, wire.Hello{Version: wire.Version, Node: "liar"})
	_, _ = ctl.Write(wire.AppendFrame(b, wire.Tracks{Generation: 1, Tracks: tracks}))
}

func length(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }

// send opens a media stream and writes to it; the stream stays open.
func send(conn *quic.Conn, b []byte) *quic.SendStream {
	st, err := conn.OpenUniStream()
	if err == nil {
		_, _ = st.Write(b)
	}
	return st
}

func picture(seq uint16, isKey bool) []byte {
	b := media.NewBurst(0, uint32(seq)*3000)
	defer b.Release()
	p := []byte{0x41, 1}
	if isKey {
		p[0] = 0x65
	}
	b.Append(seq, true, p)
	return wire.AppendBurst(nil, b, 0, wire.Version)
}

// TestLiars: whatever a node answers, a pull ends within its time, and nothing is left of it.
func TestLiars(t *testing.T) {
	noLeaks(t)
	for _, c := range []struct {
		name   string
		behave func(conn *quic.Conn, ctl *quic.Stream)
		pulled bool // the pull may succeed, when the tracks come before the lie
	}{
		{"silence", func(*quic.Conn, *quic.Stream) {}, false},
		{"garbage", func(_ *quic.Conn, ctl *quic.Stream) { _, _ = ctl.Write(bytes.Repeat([]byte{0xa5}, 1000)) }, false},
		{"a frame without end", func(_ *quic.Conn, ctl *quic.Stream) {
			_, _ = ctl.Write(append(length(wire.MaxControl), make([]byte, 100)...))
		}, false},
		{"a frame that is too long", func(_ *quic.Conn, ctl *quic.Stream) { _, _ = ctl.Write(length(wire.MaxControl + 1)) }, false},
		{"another version", func(_ *quic.Conn, ctl *quic.Stream) {
			_, _ = ctl.Write(wire.AppendFrame(nil, wire.Hello{Version: 9}))
		}, false},
		{"hanging up", func(conn *quic.Conn, _ *quic.Stream) { _ = conn.CloseWithError(0, "") }, false},
		{"media of garbage", func(conn *quic.Conn, ctl *quic.Stream) {
			accept(ctl, video)
			send(conn, bytes.Repeat([]byte{0xa5}, 1000))
		}, true},
		{"media without a header", func(conn *quic.Conn, ctl *quic.Stream) {
			accept(ctl, video)
			for range 100 {
				send(conn, []byte{0})
			}
		}, true},
		{"a burst that is too long", func(conn *quic.Conn, ctl *quic.Stream) {
			accept(ctl, video)
			h := wire.AppendHeader(nil, wire.Header{Subscription: uint64(ctl.StreamID()), Generation: 1})
			send(conn, append(h, length(wire.MaxBurst+1)...))
		}, true},
		{"media of others, of tracks to come and of no track", func(conn *quic.Conn, ctl *quic.Stream) {
			accept(ctl, video)
			for i := range uint64(300) {
				send(conn, append(wire.AppendHeader(nil, wire.Header{Subscription: 4444 + i, Generation: 1}), picture(1, true)...))
				send(conn, append(wire.AppendHeader(nil, wire.Header{Subscription: uint64(ctl.StreamID()), Generation: 2 + i}), picture(1, true)...))
				send(conn, append(wire.AppendHeader(nil, wire.Header{Subscription: uint64(ctl.StreamID()), Generation: 1, Track: 5}), picture(1, true)...))
			}
		}, true},
		{"a path by nobody", func(_ *quic.Conn, ctl *quic.Stream) {
			b := wire.AppendFrame(nil, wire.Hello{Version: wire.Version, Node: "liar"})
			_, _ = ctl.Write(wire.AppendFrame(wire.AppendFrame(b, wire.Path{}), wire.Tracks{Generation: 1, Tracks: []media.Track{video}}))
		}, false},
		{"the same tracks again", func(_ *quic.Conn, ctl *quic.Stream) {
			accept(ctl, video)
			accept(ctl, video)
		}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			reg := &registry{}
			edge := start(t, reg, "e", options{hub: stream.Config{Grace: 300 * time.Millisecond, Idle: 300 * time.Millisecond}, grace: 100 * time.Millisecond})
			liar(t, reg, c.behave)
			begin := time.Now()
			v := &viewer{}
			sub, err := edge.hub.Subscribe(t.Context(), key, stream.SubscribeOptions{Subscriber: v})
			if err == nil && !c.pulled {
				t.Error("the pull succeeded")
			}
			if took := time.Since(begin); took > 5*time.Second {
				t.Errorf("took %v", took)
			}
			if err != nil {
				if !errors.Is(err, in.ErrUnreachable) || errors.Is(err, stream.ErrOffline) {
					t.Errorf("%v does not wrap ErrUnreachable", err)
				}
				return
			}
			sub.Start()
			sub.Close()
			until(t, 8*time.Second, func() string {
				if info, ok := edge.hub.Info(key); ok {
					return fmt.Sprintf("the hub still has it: %+v", info)
				}
				return ""
			})
			if n := v.frames(0); n != 0 {
				t.Errorf("%d bursts reached a viewer", n)
			}
		})
	}
}

// TestGOPsOutOfOrder plays a node whose packets a long path has mixed up.
func TestGOPsOutOfOrder(t *testing.T) {
	noLeaks(t)
	for _, c := range []struct {
		name string
		play func(conn *quic.Conn, open func(gop uint64, b ...[]byte) *quic.SendStream)
		want []uint16 // numbers in the order of what the viewer gets, as sent
	}{
		{"the next GOP overtakes", func(_ *quic.Conn, open func(uint64, ...[]byte) *quic.SendStream) {
			_ = open(1, picture(3, true)).Close()
			_ = open(0, picture(1, true), picture(2, false)).Close()
			open(2, picture(4, true))
		}, []uint16{3000, 6000, 9000, 12000}},
		{"a GOP never ends", func(_ *quic.Conn, open func(uint64, ...[]byte) *quic.SendStream) {
			open(0, picture(1, true), picture(2, false))
			open(1, picture(30, true), picture(31, false))
		}, nil},
		{"a GOP never comes", func(_ *quic.Conn, open func(uint64, ...[]byte) *quic.SendStream) {
			_ = open(0, picture(1, true), picture(2, false)).Close()
			open(2, picture(30, true), picture(31, false))
		}, nil},
		{"a GOP is cut", func(_ *quic.Conn, open func(uint64, ...[]byte) *quic.SendStream) {
			_ = open(0, picture(1, true), picture(2, false)).Close()
			open(1, picture(3, true)[:9]).CancelWrite(wire.StreamCut)
			open(2, picture(30, true), picture(31, false))
		}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			reg := &registry{}
			edge := start(t, reg, "e", options{})
			started := make(chan struct{})
			liar(t, reg, func(conn *quic.Conn, ctl *quic.Stream) {
				accept(ctl, video)
				<-started
				c.play(conn, func(gop uint64, bursts ...[]byte) *quic.SendStream {
					b := wire.AppendHeader(nil, wire.Header{Subscription: uint64(ctl.StreamID()), Generation: 1, GOP: gop})
					return send(conn, append(b, bytes.Join(bursts, nil)...))
				})
			})
			v := watch(t, edge)
			close(started)
			v.reaches(t, 0, 4, 3*time.Second)
			v.intact(t) // also where the numbers as sent were not continuous
			v.mu.Lock()
			defer v.mu.Unlock()
			if len(v.seqs[0]) != 4 {
				t.Errorf("packets %v", v.seqs[0])
			}
			for i, ts := range c.want {
				if v.stamps[0][i] != uint32(ts) {
					t.Errorf("timestamps %v, want %v", v.stamps[0], c.want)
					break
				}
			}
		})
	}
}

// TestSessionsLeaveNothing: memory and goroutines return to where they were.
func TestSessionsLeaveNothing(t *testing.T) {
	noLeaks(t)
	reg := &registry{}
	origin := start(t, reg, "o", options{})
	edge := start(t, reg, "e", options{hub: stream.Config{Idle: time.Millisecond}})
	reg.set(origin.source("", 1))
	cam := publish(t, origin, 1, video, audio)
	for range 50 {
		cam.frame(0, true, 10, 1200)
		cam.frame(1, false, 1, 100)
	}
	round := func() {
		v := watch(t, edge)
		v.reaches(t, 0, 1, 3*time.Second)
		v.sub.Close()
		until(t, 3*time.Second, func() string {
			if _, ok := edge.hub.Info(key); ok {
				return "the edge still has the stream"
			}
			return ""
		})
	}
	round()
	before := runtime.NumGoroutine()
	for range 25 {
		round()
	}
	until(t, 3*time.Second, func() string {
		if now := runtime.NumGoroutine(); now > before+3 {
			return fmt.Sprintf("%d goroutines, %d before", now, before)
		}
		return ""
	})
	if n := reg.lookups.Load(); n != 26 {
		t.Errorf("%d look-ups for 26 pulls", n)
	}
}
