package load

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"github.com/pion/interceptor"
	"github.com/pion/interceptor/pkg/report"
	"github.com/pion/rtcp"
	"github.com/pion/webrtc/v4"

	"sluice/internal/problem"
)

// sfu is the smallest server that publisher and viewer can be tried with: one stream, WHIP in, WHEP
// out, packets and sender reports passed on as they come.
type sfu struct {
	*httptest.Server
	token string

	mu        sync.Mutex
	wg        sync.WaitGroup
	api       *webrtc.API
	udp       net.PacketConn // all media
	sessions  map[string]*webrtc.PeerConnection
	publisher *webrtc.PeerConnection
	published chan struct{} // one value for each publisher
	tracks    map[webrtc.RTPCodecType]*webrtc.TrackLocalStaticRTP
	viewers   map[*webrtc.PeerConnection][]*webrtc.RTPSender
	deleted   int
	tells     bool // whether it still has a session
}

func newSFU(t *testing.T) *sfu {
	t.Helper()
	s := &sfu{
		sessions:  map[string]*webrtc.PeerConnection{},
		tracks:    map[webrtc.RTPCodecType]*webrtc.TrackLocalStaticRTP{},
		viewers:   map[*webrtc.PeerConnection][]*webrtc.RTPSender{},
		published: make(chan struct{}, 100),
	}
	s.openMedia(t)
	mux := http.NewServeMux()
	mux.HandleFunc("POST /live/whip/s", s.guard(s.whip))
	mux.HandleFunc("POST /live/whep/s", s.guard(s.whep))
	mux.HandleFunc("DELETE /session/{id}", s.delete)
	mux.HandleFunc("GET /session/{id}", s.present)
	s.Server = httptest.NewUnstartedServer(mux)
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // clients that refuse its certificate
	s.StartTLS()
	t.Cleanup(func() {
		s.Server.Close()
		s.mu.Lock()
		all := s.sessions
		s.sessions = nil
		s.mu.Unlock()
		for _, pc := range all {
			_ = pc.GracefulClose()
		}
		s.wg.Wait()
		_ = s.udp.Close()
	})
	return s
}

func (s *sfu) openMedia(t *testing.T) {
	t.Helper()
	m := &webrtc.MediaEngine{}
	if err := m.RegisterDefaultCodecs(); err != nil {
		t.Fatal(err)
	}
	reg := &interceptor.Registry{}
	if err := webrtc.ConfigureNack(m, reg); err != nil {
		t.Fatal(err)
	}
	rr, err := report.NewReceiverInterceptor()
	if err != nil {
		t.Fatal(err)
	}
	reg.Add(rr)
	se := webrtc.SettingEngine{LoggerFactory: pionLoggers{orDiscard(nil)}}
	se.SetIncludeLoopbackCandidate(true)
	udp, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	se.SetICEUDPMux(webrtc.NewICEUDPMux(se.LoggerFactory.NewLogger("ice"), udp))
	s.mu.Lock()
	s.udp = udp
	s.api = webrtc.NewAPI(webrtc.WithMediaEngine(m), webrtc.WithInterceptorRegistry(reg), webrtc.WithSettingEngine(se))
	s.mu.Unlock()
}

// blackout is what a client sees of a server that is killed and comes back: silence. Sessions from before it does not know.
func (s *sfu) blackout(t *testing.T) {
	_ = s.udp.Close()
	s.openMedia(t)
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, pc := range s.sessions {
		s.sessions["before "+id] = pc // closed in the end
		delete(s.sessions, id)
	}
}

// present answers as our servers do, or as RFC 9725 has it.
func (s *sfu) present(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case !s.tells:
		w.WriteHeader(http.StatusMethodNotAllowed)
	case s.sessions[r.PathValue("id")] == nil:
		problem.New(problem.NoSession, "it is over already").Write(w)
	default:
		w.WriteHeader(http.StatusNoContent)
	}
}

func (s *sfu) guard(h func(*webrtc.PeerConnection, string) (string, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if s.token != "" && r.Header.Get("Authorization") != "Bearer "+s.token {
			problem.New(problem.Unauthorized, "this stream needs a token").Write(w)
			return
		}
		offer, _ := io.ReadAll(r.Body)
		s.mu.Lock()
		api := s.api
		s.mu.Unlock()
		pc, err := api.NewPeerConnection(webrtc.Configuration{})
		if err == nil {
			var answer string
			if answer, err = h(pc, string(offer)); err == nil {
				id := rand.Text()
				s.mu.Lock()
				s.sessions[id] = pc
				s.mu.Unlock()
				w.Header().Set("Content-Type", "application/sdp")
				w.Header().Set("Location", "/session/"+id)
				w.Header().Set("ETag", `"1"`)
				w.WriteHeader(http.StatusCreated)
				_, _ = io.WriteString(w, answer)
				return
			}
			_ = pc.Close()
		}
		var p *problem.Problem
		if !errors.As(err, &p) {
			p = problem.New(problem.BadSDP, err.Error())
		}
		p.Write(w)
	}
}

func answer(pc *webrtc.PeerConnection, offer string) (string, error) {
	if err := pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeOffer, SDP: offer}); err != nil {
		return "", err
	}
	a, err := pc.CreateAnswer(nil)
	if err != nil {
		return "", err
	}
	done := webrtc.GatheringCompletePromise(pc)
	if err := pc.SetLocalDescription(a); err != nil {
		return "", err
	}
	<-done
	return pc.LocalDescription().SDP, nil
}

func (s *sfu) whip(pc *webrtc.PeerConnection, offer string) (string, error) {
	pc.OnTrack(func(t *webrtc.TrackRemote, r *webrtc.RTPReceiver) {
		s.mu.Lock()
		out := s.tracks[t.Kind()]
		if out == nil {
			out, _ = webrtc.NewTrackLocalStaticRTP(t.Codec().RTPCodecCapability, t.Kind().String(), "s")
			s.tracks[t.Kind()] = out
		}
		if len(s.tracks) == 2 {
			s.published <- struct{}{}
		}
		s.wg.Go(func() { s.forwardReports(t.Kind(), r) })
		s.wg.Add(1)
		s.mu.Unlock()
		defer s.wg.Done()
		for {
			p, _, err := t.ReadRTP()
			if err != nil {
				return
			}
			_ = out.WriteRTP(p)
		}
	})
	s.mu.Lock()
	s.publisher = pc
	s.mu.Unlock()
	return answer(pc, offer)
}

// forwardReports keeps the publisher's clock; only the SSRC is the viewer's.
func (s *sfu) forwardReports(kind webrtc.RTPCodecType, r *webrtc.RTPReceiver) {
	for {
		pkts, _, err := r.ReadRTCP()
		if err != nil {
			return
		}
		for _, p := range pkts {
			sr, ok := p.(*rtcp.SenderReport)
			if !ok {
				continue
			}
			s.mu.Lock()
			for pc, senders := range s.viewers {
				for _, snd := range senders {
					if snd.Track() != nil && snd.Track().Kind() == kind {
						c := *sr
						c.SSRC = uint32(snd.GetParameters().Encodings[0].SSRC)
						_ = pc.WriteRTCP([]rtcp.Packet{&c})
					}
				}
			}
			s.mu.Unlock()
		}
	}
}

func (s *sfu) whep(pc *webrtc.PeerConnection, offer string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.tracks) == 0 {
		return "", problem.New(problem.StreamOffline, "nobody publishes live/s")
	}
	for _, t := range s.tracks {
		snd, err := pc.AddTrack(t)
		if err != nil {
			return "", err
		}
		s.viewers[pc] = append(s.viewers[pc], snd)
		s.wg.Go(func() {
			for {
				if _, _, err := snd.ReadRTCP(); err != nil {
					return
				}
			}
		})
	}
	return answer(pc, offer)
}

func (s *sfu) delete(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	pc := s.sessions[r.PathValue("id")]
	delete(s.sessions, r.PathValue("id"))
	delete(s.viewers, pc)
	s.deleted++
	s.mu.Unlock()
	if pc == nil {
		problem.New(problem.NoSession, "it is over already").Write(w)
		return
	}
	_ = pc.GracefulClose()
}

// dropPublisher ends the publisher's session as a server does that stops.
func (s *sfu) dropPublisher() {
	s.mu.Lock()
	pc := s.publisher
	s.mu.Unlock()
	_ = pc.Close()
}

// dropViewers ends all viewers' sessions as an edge does that stops.
func (s *sfu) dropViewers() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for pc := range s.viewers {
		_ = pc.Close()
	}
}

func (s *sfu) url(way string) string { return s.URL + "/live/" + way + "/s" }

// waitPublished waits for a publisher's media.
func (s *sfu) waitPublished(ctx context.Context, t *testing.T, over <-chan error) {
	t.Helper()
	select {
	case <-s.published:
	case err := <-over:
		t.Fatalf("the publisher ended before its media came: %v", err)
	case <-ctx.Done():
		t.Fatal("the publisher's media did not come in time")
	}
}
