package crowd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"
)

// carrier is the way that a publisher's packets take: a session, or plain RTP.
type carrier interface {
	seal(plain []byte, h *rtp.Header) ([]byte, error)
	send(t *outTrack, sealed [][]byte)
	report(t *outTrack, r *rtcp.SenderReport)
	ended() <-chan struct{} // by the server
	leave(ctx context.Context)
}

// sealed is a session as a carrier.
type sealed struct{ *session }

func (s sealed) seal(plain []byte, h *rtp.Header) ([]byte, error) {
	return s.keys.out.EncryptRTP(nil, plain, h)
}
func (s sealed) send(_ *outTrack, packets [][]byte)       { s.socket.sendAll(packets) }
func (s sealed) report(_ *outTrack, r *rtcp.SenderReport) { s.sendRTCP(r) }
func (s sealed) ended() <-chan struct{}                   { return s.over }
func (s sealed) leave(ctx context.Context)                { s.close(ctx) }

// plain is RTP over UDP in the clear, to rtp://HOST:PORT, without a word before or after: video to this port, its RTCP to the next one, sound and its
// RTCP to the two after those (RFC 3550 §11). What comes back is RTCP.
type plain struct {
	video, audio road
	readers      chan struct{} // one for each that has ended
}

// road is a track's two sockets.
type road struct{ rtp, rtcp *net.UDPConn }

const plainScheme = "rtp"

// plainPort is the first of the four ports of an address.
func plainPort(u *url.URL) (uint16, error) {
	port, err := strconv.ParseUint(u.Port(), 10, 16)
	if err != nil || port == 0 || port > 65535-3 {
		return 0, fmt.Errorf("address %q: give a host and the first of four ports: rtp://127.0.0.1:5000", u)
	}
	return uint16(port), nil
}

// dialPlain makes the sockets. What comes back goes to take.
func dialPlain(ctx context.Context, address string, take func([]rtcp.Packet)) (*plain, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, err
	}
	first, err := plainPort(u)
	if err != nil {
		return nil, err
	}
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", u.Hostname())
	if err != nil {
		return nil, fmt.Errorf("publish to %s: %w", address, err)
	}
	p := &plain{readers: make(chan struct{}, 2)}
	for i, c := range []**net.UDPConn{&p.video.rtp, &p.video.rtcp, &p.audio.rtp, &p.audio.rtcp} {
		to := netip.AddrPortFrom(ips[0].Unmap(), first+uint16(i))
		if *c, err = net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to)); err != nil {
			p.close()
			return nil, fmt.Errorf("publish to %s: %w", address, err)
		}
	}
	for _, r := range []road{p.video, p.audio} {
		go func() {
			r.listen(take)
			p.readers <- struct{}{}
		}()
	}
	return p, nil
}

// listen takes RTCP until the socket is closed.
func (r road) listen(take func([]rtcp.Packet)) {
	b := make([]byte, 1500)
	for {
		n, err := r.rtcp.Read(b)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if packets, err := rtcp.Unmarshal(b[:n]); err == nil {
			take(packets)
		}
	}
}

func (p *plain) of(t *outTrack) road {
	if t.rate == videoRate {
		return p.video
	}
	return p.audio
}

func (p *plain) seal(b []byte, _ *rtp.Header) ([]byte, error) { return b, nil }

// send implements carrier. What can't be sent is lost, as on any path.
func (p *plain) send(t *outTrack, packets [][]byte) {
	for _, b := range packets {
		_, _ = p.of(t).rtp.Write(b)
	}
}

func (p *plain) report(t *outTrack, r *rtcp.SenderReport) {
	if b, err := r.Marshal(); err == nil {
		_, _ = p.of(t).rtcp.Write(b)
	}
}

func (p *plain) ended() <-chan struct{} { return nil }

func (p *plain) close() {
	for _, c := range []*net.UDPConn{p.video.rtp, p.video.rtcp, p.audio.rtp, p.audio.rtcp} {
		if c != nil {
			_ = c.Close()
		}
	}
}

func (p *plain) leave(context.Context) {
	p.close()
	<-p.readers
	<-p.readers
}
