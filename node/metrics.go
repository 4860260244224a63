package node

import (
	"net/http"
	"strconv"
	"time"

	"sluice/internal/auth"
	"sluice/internal/clientip"
	"sluice/internal/metrics"
	"sluice/internal/problem"
	"sluice/internal/trace"
)

// measure registers the figures of the node, and of the parts that may not know of metrics. The other parts register their own.
func (n *Node) measure() {
	for _, read := range []func(*metrics.Sample){n.measureNode, n.measureMedia, n.measureHub, n.measureTURN, n.measureLadder} {
		n.metrics.Register(read)
	}
	n.metrics.Register(func(s *metrics.Sample) {
		s.Build(n.deps.Version)
		s.Cluster(n.directory)
		t := n.deps.Tracer.Stats()
		s.Spans(t.Ended, t.Sent, t.Failed)
	})
}

func (n *Node) measureNode(s *metrics.Sample) {
	l := n.load.state()
	s.Gauge("sluice_node_cpu_ratio", "Share in use of the processors that the node may use, 0 to 1.", l.cpu)
	s.Gauge("sluice_node_memory_ratio", "Share in use of the memory that the node may use, 0 to 1.", l.memory)
	s.Gauge("sluice_node_egress_bytes_per_second", "What is sent to viewers and nodes, over the last 3 seconds.", l.egress/8)
	s.Gauge("sluice_node_load_ratio", "The largest share in use of processors, egress and viewers, 0 to 1.", l.load)
	s.Gauge("sluice_node_full", "1 while the node takes nobody new because it is at a limit.", metrics.Flag(l.full != ""))
	s.Gauge("sluice_node_draining", "1 while the node takes nobody new because it is about to go.", metrics.Flag(n.draining.Load()))
	s.Gauge("sluice_node_held_streams", "Leases on streams that this node holds.", float64(n.member.Holds()))
	s.Gauge("sluice_node_websockets", "WebSockets of the Ant Media protocol that are open.", float64(n.sockets.Sockets()))
	for _, r := range n.resources {
		s.Gauge("sluice_node_http_sessions", "Sessions that were opened by WHIP or WHEP and are open.", float64(r.Sessions()), "protocol", r.Protocol())
	}
}

func (n *Node) measureMedia(s *metrics.Sample) {
	st := n.rtc.Stats()
	s.Gauge("sluice_rtc_sessions", "WebRTC sessions, of publishers and of viewers, those included that connect.", float64(st.Sessions))
	for i := range st.Viewers {
		s.Gauge("sluice_rtc_shard_viewers", "Viewers that are connected, by the send loop that serves them.", float64(st.Viewers[i]), "shard", strconv.Itoa(i))
		s.Gauge("sluice_rtc_shard_queued_packets", "Packets that wait for a send loop at this moment.", float64(st.Waiting[i]), "shard", strconv.Itoa(i))
	}
	s.Counter("sluice_rtc_sent_bytes_total", "Bytes of media sent, without headers of UDP and TCP.", float64(st.Sent))
	s.Counter("sluice_rtc_send_failures_total", "Messages that the kernel did not take.", float64(st.Failed))
	s.Counter("sluice_rtc_retransmitted_packets_total", "Packets that viewers asked for again and got.", float64(st.Again))
	const lost = "Sessions that ended by themselves: they did not connect in time (never_connected), or the peer fell silent (silent)."
	s.Counter("sluice_rtc_lost_sessions_total", lost, float64(st.NeverConnected), "reason", "never_connected")
	s.Counter("sluice_rtc_lost_sessions_total", lost, float64(st.Disconnected), "reason", "silent")
	const cuts = "Times that video was left out up to a key frame: for all viewers of a stream on a send loop, because the machine is too slow (machine), or for one whose path takes less than comes (path)."
	s.Counter("sluice_rtc_video_cuts_total", cuts, float64(st.LoopLate), "reason", "machine")
	s.Counter("sluice_rtc_video_cuts_total", cuts, float64(st.PathLate), "reason", "path")
	s.Gauge("sluice_rtc_gso", "1 while the kernel cuts messages into packets (GSO); without, sending takes more processor time.", metrics.Flag(st.Segments))
}

func (n *Node) measureHub(s *metrics.Sample) {
	var published, relayed, flowing, bitrate int
	for _, i := range n.hub.List() {
		if i.Relayed {
			relayed++
		} else {
			published++
		}
		if i.Flowing {
			flowing++
		}
		for _, t := range i.Tracks {
			bitrate += t.Bitrate
		}
	}
	const streams = "Streams on this node: published here, or taken from another node (relayed)."
	s.Gauge("sluice_streams", streams, float64(published), "source", "published")
	s.Gauge("sluice_streams", streams, float64(relayed), "source", "relayed")
	s.Gauge("sluice_streams_flowing", "Streams of which media came within the last second.", float64(flowing))
	s.Gauge("sluice_streams_bytes_per_second", "What comes in of all streams, payload, renditions included.", float64(bitrate)/8)
	s.Counter("sluice_streams_received_bytes_total", "Payload that has come in of all streams.", float64(n.hub.Received()))
}

func (n *Node) measureTURN(s *metrics.Sample) {
	if n.turn == nil {
		return
	}
	st := n.turn.Stats()
	s.Gauge("sluice_turn_allocations", "Allocations of the TURN server.", float64(st.Allocations))
	s.Gauge("sluice_turn_users", "Users of the TURN server: clients with credentials of their own.", float64(st.Users))
	const made = "Allocations that were asked for: ok, or refused because there were too many."
	s.Counter("sluice_turn_requests_total", made, float64(st.Made), "result", "ok")
	s.Counter("sluice_turn_requests_total", made, float64(st.Refused), "result", "refused")
}

// gaps counts for how long streams had no media when they went on.
func (n *Node) gaps() func(gap time.Duration, relayed bool) {
	const relay, publisher = "relay", "publisher"
	took := n.metrics.Waits("sluice_stream_gap_seconds",
		"Failover: time without media when a stream went on from another source: from another node (relay), or from a publisher who came back (publisher).", "source")
	took.Begin(relay)
	took.Begin(publisher)
	return func(gap time.Duration, relayed bool) {
		source := publisher
		if relayed {
			source = relay
		}
		took.Observe(gap.Seconds(), source)
	}
}

// door is how requests come in.
func (n *Node) door(clients *clientip.Resolver, next http.Handler) http.Handler {
	return trace.Door{
		Tracer: n.deps.Tracer,
		Route: func(r *http.Request) string {
			if r.Pattern == "" {
				return "none"
			}
			return r.Pattern
		},
		Trusted: clients.Trusted, // such as the gateway
		Quiet: func(r *http.Request) bool {
			switch r.URL.Path {
			case "/healthz", "/readyz", "/metrics", "/load", "/ladder":
				return true
			}
			return false
		},
		Done: n.metrics.HTTP().Done("http"),
		Log:  n.log,
	}.Wrap(next)
}

// profiles are for whoever is on this machine, and for administrators.
func (n *Node) profiles() http.Handler {
	return metrics.ProfilesHandler(func(r *http.Request) bool {
		return metrics.Local(r) || n.api != nil && n.api.Allows(r, auth.Debug)
	}, func(w http.ResponseWriter, _ *http.Request) {
		problem.New(problem.Forbidden, "profiles are for administrators, and for people on this machine, who ask 127.0.0.1 itself").Write(w)
	})
}
