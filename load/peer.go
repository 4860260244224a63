package load

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/pion/ice/v4"
	"github.com/pion/interceptor"
	"github.com/pion/interceptor/pkg/nack"
	"github.com/pion/interceptor/pkg/report"
	"github.com/pion/logging"
	"github.com/pion/webrtc/v4"
)

// ICE asks the server for a sign of life four times a second; media and reports count as one, too. When none has come
// for iceDisconnected the server is asked over HTTP whether it still has the session. It is lost when the server says no, or
// after iceFailed more.
const (
	iceKeepalive    = 250 * time.Millisecond
	iceDisconnected = 750 * time.Millisecond
	iceFailed       = 4250 * time.Millisecond
)

const (
	vigilPace = 50 * time.Millisecond  // between two looks at the path
	askAgain  = 500 * time.Millisecond // after an answer that was not no
	askWithin = 3 * time.Second        // a gateway knows within this time that a node is gone
)

// How often a viewer asks for what is missing. Browsers do within a round trip.
const nackInterval = 30 * time.Millisecond

// newAPI makes Pion as we need it at both ends. The publisher writes its own sender reports.
func newAPI(log *slog.Logger, media *webrtc.MediaEngine) (*webrtc.API, error) {
	reg := &interceptor.Registry{}
	loggers := pionLoggers{log}
	// Loss is repaired by retransmission in both directions (RFC 4585 §6.2.1).
	err := webrtc.ConfigureNackWithOptions(media, reg,
		[]nack.GeneratorOption{nack.GeneratorInterval(nackInterval), nack.WithGeneratorLoggerFactory(loggers)},
		nack.WithResponderLoggerFactory(loggers))
	if err != nil {
		return nil, fmt.Errorf("set up retransmission: %w", err)
	}
	rr, err := report.NewReceiverInterceptor(report.WithReceiverLoggerFactory(loggers))
	if err != nil {
		return nil, fmt.Errorf("set up receiver reports: %w", err)
	}
	reg.Add(rr)
	if err := webrtc.ConfigureTWCCSender(media, reg); err != nil {
		return nil, fmt.Errorf("set up transport feedback: %w", err)
	}
	se := webrtc.SettingEngine{LoggerFactory: loggers}
	se.SetIncludeLoopbackCandidate(true) // `sluice up` answers on this machine
	se.SetICEMulticastDNSMode(ice.MulticastDNSModeDisabled)
	se.SetNetworkTypes([]webrtc.NetworkType{
		webrtc.NetworkTypeUDP4, webrtc.NetworkTypeUDP6, webrtc.NetworkTypeTCP4, webrtc.NetworkTypeTCP6,
	})
	se.SetICETimeouts(iceDisconnected, iceFailed, iceKeepalive)
	return webrtc.NewAPI(webrtc.WithMediaEngine(media), webrtc.WithInterceptorRegistry(reg), webrtc.WithSettingEngine(se)), nil
}

// viewerMedia offers what a browser offers, and H.265.
func viewerMedia() (*webrtc.MediaEngine, error) {
	m := &webrtc.MediaEngine{}
	return m, m.RegisterDefaultCodecs()
}

// peer is one session: a PeerConnection and its resource.
type peer struct {
	pc  *webrtc.PeerConnection
	res *Resource

	connected chan struct{} // closed once media can flow
	lost      chan struct{} // closed when the server ended it or is gone
	once      [2]sync.Once

	mu     sync.Mutex
	closed bool
	gone   bool               // the server has said that it has no such session
	rest   context.CancelFunc // ends the vigil; nil before there is one
	wg     sync.WaitGroup     // goroutines that end with the PeerConnection
}

func newPeer(api *webrtc.API) (*peer, error) {
	pc, err := api.NewPeerConnection(webrtc.Configuration{BundlePolicy: webrtc.BundlePolicyMaxBundle})
	if err != nil {
		return nil, fmt.Errorf("make a session: %w", err)
	}
	p := &peer{pc: pc, connected: make(chan struct{}), lost: make(chan struct{})}
	pc.OnConnectionStateChange(func(s webrtc.PeerConnectionState) {
		switch s {
		case webrtc.PeerConnectionStateConnected:
			p.once[0].Do(func() { close(p.connected) })
		case webrtc.PeerConnectionStateFailed, webrtc.PeerConnectionStateClosed:
			p.once[1].Do(func() { close(p.lost) })
		}
	})
	return p, nil
}

// open offers the session at the endpoint and waits until media can flow. All candidates
// are in the offer: there are only this machine's own, that are found at once.
// The caller closes the peer also when open failed.
func (p *peer) open(ctx context.Context, c *Client, endpoint string) error {
	offer, err := p.pc.CreateOffer(nil)
	if err != nil {
		return fmt.Errorf("make an offer: %w", err)
	}
	gathered := webrtc.GatheringCompletePromise(p.pc)
	if err := p.pc.SetLocalDescription(offer); err != nil {
		return fmt.Errorf("make an offer: %w", err)
	}
	select {
	case <-gathered:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if p.res, err = c.Offer(ctx, endpoint, p.pc.LocalDescription().SDP); err != nil {
		return err
	}
	answer, held := holdBack(p.res.Answer)
	if err := p.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: answer}); err != nil {
		return fmt.Errorf("use the server's answer: %w", err)
	}
	if p.settle(ctx, held) {
		watch, rest := context.WithCancel(context.WithoutCancel(ctx))
		p.rest = rest
		p.wg.Go(func() { p.vigil(watch) })
		return nil
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return fmt.Errorf("%w: the server's media port can't be reached from here; check its firewall for UDP and TCP 50000, and its public address", ErrNoMedia)
}

// settle waits until media can flow; meanwhile it tells Pion of the candidates that were held back.
func (p *peer) settle(ctx context.Context, held []string) bool {
	timeout := time.NewTimer(connectTimeout)
	defer timeout.Stop()
	pace := time.NewTicker(heldPace)
	defer pace.Stop()
	for {
		select {
		case <-p.connected:
			return true
		case <-pace.C:
			if len(held) > 0 {
				// Not a reason to fail: the others are there.
				_ = p.pc.AddICECandidate(webrtc.ICECandidateInit{Candidate: held[0], SDPMLineIndex: new(uint16)})
				held = held[1:]
			}
		case <-p.lost:
			return false
		case <-timeout.C:
			return false
		case <-ctx.Done():
			return false
		}
	}
}

// vigil asks whether the server still has the session while nothing comes from it. Servers that don't answer such a question, or don't
// know it, are believed to have it: then ICE finds out.
func (p *peer) vigil(ctx context.Context) {
	for wait := time.Duration(vigilPace); ; {
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-p.lost:
			timer.Stop()
			return
		case <-ctx.Done():
			timer.Stop()
			return
		}
		if wait = vigilPace; p.pc.ConnectionState() != webrtc.PeerConnectionStateDisconnected {
			continue
		}
		ask, cancel := context.WithTimeout(ctx, askWithin)
		err := p.res.Present(ask)
		cancel()
		if r := (*Refused)(nil); errors.As(err, &r) && r.Code == noSession {
			p.mu.Lock()
			p.gone = true
			p.mu.Unlock()
			p.once[1].Do(func() { close(p.lost) })
			return
		}
		wait = askAgain
	}
}

const heldPace = 20 * time.Millisecond

// holdBack takes the last half of the candidates out of an answer. Pion
// looks at what its checks have found whenever it learns of a candidate, otherwise every 200 ms; and an ICE-lite
// server, that makes no checks of its own, gives it no other reason. Without this, connecting would
// take 200 ms longer than in a browser.
func holdBack(answer string) (rest string, held []string) {
	const prefix = "a=candidate:"
	keep := (strings.Count(answer, prefix) + 1) / 2
	var out strings.Builder
	for line := range strings.Lines(answer) {
		if strings.HasPrefix(line, prefix) {
			if keep == 0 {
				held = append(held, strings.TrimSpace(strings.TrimPrefix(line, "a=")))
				continue
			}
			keep--
		}
		out.WriteString(line)
	}
	return out.String(), held
}

// enter counts a goroutine that Pion started; it reports false when the session is being closed. Its end is wg.Done.
func (p *peer) enter() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		p.wg.Add(1)
	}
	return !p.closed
}

// close ends the session on both sides and waits for its goroutines. The server
// is told even when ctx has ended, unless it has said that it has no such session. A resource that is gone already is no error.
func (p *peer) close(ctx context.Context, log *slog.Logger) {
	p.mu.Lock()
	p.closed = true
	gone := p.gone
	p.mu.Unlock()
	if p.rest != nil {
		p.rest()
	}
	if p.res != nil && !gone {
		bye, cancel := context.WithTimeout(context.WithoutCancel(ctx), goodbyeTimeout)
		var r *Refused
		if err := p.res.Delete(bye); err != nil && !errors.As(err, &r) {
			log.Debug("could not say goodbye", "resource", p.res.URL, "error", err)
		}
		cancel()
	}
	if err := p.pc.GracefulClose(); err != nil {
		log.Debug("could not close the session", "error", err)
	}
	p.wg.Wait()
}

// pionLoggers brings Pion's log to ours: its warnings are for developers.
type pionLoggers struct{ log *slog.Logger }

// NewLogger implements logging.LoggerFactory.
func (l pionLoggers) NewLogger(scope string) logging.LeveledLogger {
	return pionLogger{l.log.With("pion", scope)}
}

type pionLogger struct{ log *slog.Logger }

func (pionLogger) Trace(string)                    {}
func (pionLogger) Tracef(string, ...any)           {}
func (pionLogger) Debug(string)                    {}
func (pionLogger) Debugf(string, ...any)           {}
func (pionLogger) Info(string)                     {}
func (pionLogger) Infof(string, ...any)            {}
func (l pionLogger) Warn(msg string)               { l.log.Debug(msg) }
func (l pionLogger) Warnf(format string, a ...any) { l.log.Debug(fmt.Sprintf(format, a...)) }
func (l pionLogger) Error(msg string)              { l.log.Debug(msg) }
func (l pionLogger) Errorf(format string, a ...any) {
	l.log.Debug(fmt.Sprintf(format, a...))
}
