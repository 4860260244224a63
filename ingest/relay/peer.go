package relay

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/quic-go/quic-go"

	wire "sluice/relay"
	"sluice/stream"
)

// peerID names a node as it can be reached: after a restart it is another one.
type peerID struct{ addr, key string }

// peer is the connection to one node, shared by all streams that come from there, and closed when there are none.
type peer struct {
	relay *Relay
	id    peerID
	ready chan struct{} // closed when conn or err is there
	conn  *quic.Conn
	err   error
	stop  context.CancelFunc

	users int // under Relay.mu

	mu  sync.Mutex
	ups map[uint64]*upstream // by subscription
}

// peer returns the connection to a node, dialling it unless there is one. The caller releases it.
func (r *Relay) peer(ctx context.Context, src Source) (*peer, error) {
	id := peerID{src.Addr, src.Key}
	r.mu.Lock()
	p := r.peers[id]
	if p == nil && !r.closed {
		p = &peer{relay: r, id: id, ready: make(chan struct{}), ups: map[uint64]*upstream{}}
		var dial context.Context
		dial, p.stop = context.WithCancel(r.ctx)
		r.peers[id] = p
		r.wg.Go(func() { p.run(dial) })
	}
	if p != nil {
		p.users++
	}
	r.mu.Unlock()
	if p == nil {
		return nil, stream.ErrClosing
	}
	err := error(nil)
	select {
	case <-p.ready:
		err = p.err
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	if err != nil {
		p.release()
		return nil, fmt.Errorf("connect to node %q at %s: %w", src.Node, src.Addr, err)
	}
	return p, nil
}

// release is called once for each use; with the last one the connection ends.
func (p *peer) release() {
	r := p.relay
	r.mu.Lock()
	defer r.mu.Unlock()
	if p.users--; p.users == 0 {
		p.forgetLocked()
		p.stop()
	}
}

func (p *peer) forgetLocked() {
	if p.relay.peers[p.id] == p {
		delete(p.relay.peers, p.id)
	}
}

// run dials, then takes media streams until the connection ends.
func (p *peer) run(ctx context.Context) {
	defer p.stop()
	p.conn, p.err = p.dial(ctx)
	close(p.ready)
	for p.err == nil {
		st, err := p.conn.AcceptUniStream(ctx)
		if err != nil {
			break
		}
		p.relay.wg.Go(func() { p.take(st) })
	}
	r := p.relay
	r.mu.Lock()
	p.forgetLocked() // who comes now dials anew
	r.mu.Unlock()
	if p.err == nil {
		_ = p.conn.CloseWithError(wire.ConnUnused, "")
	}
}

func (p *peer) dial(ctx context.Context) (*quic.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, pullWithin)
	defer cancel()
	tr, err := p.relay.transport()
	if err != nil {
		return nil, err
	}
	addr, err := netip.ParseAddrPort(p.id.addr) // a name would have this node ask DNS what another one likes
	if err != nil {
		return nil, fmt.Errorf("not an address: %w", err)
	}
	return tr.Dial(ctx, net.UDPAddrFromAddrPort(addr), p.relay.cfg.Identity.ClientTLS(p.id.key), wire.ClientQUIC())
}

// headerWithin is how long a media stream may take to say what it is.
const headerWithin = 2 * time.Second

// take reads a media stream's header and gives it to its subscription.
func (p *peer) take(st *quic.ReceiveStream) {
	_ = st.SetReadDeadline(time.Now().Add(headerWithin))
	rd := wire.NewReader(st, wire.MaxBurst)
	b, err := rd.Next()
	if err == nil {
		var h wire.Header
		if h, err = wire.ParseHeader(b); err == nil {
			_ = st.SetReadDeadline(time.Time{})
			p.mu.Lock()
			up := p.ups[h.Subscription]
			p.mu.Unlock()
			if up == nil {
				st.CancelRead(wire.StreamUnsubscribed)
				return
			}
			up.offer(&gop{header: h, st: st, rd: rd, began: time.Now()})
			return
		}
	}
	st.CancelRead(wire.StreamMalformed)
	p.check(err)
}

// check ends the connection to a node that does not keep to the protocol.
func (p *peer) check(err error) {
	if errors.Is(err, wire.ErrMalformed) {
		p.relay.cfg.Log.Error("relay peer breaks the protocol", "addr", p.id.addr, "err", err)
		_ = p.conn.CloseWithError(wire.ConnMalformed, err.Error())
	}
}
