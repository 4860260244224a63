package node

import (
	"encoding/json"
	"net/http"
	"strings"

	"sluice/internal/config"
	"sluice/internal/metrics"
	"sluice/ladder"
)

// newLadder makes the ladder, which makes nothing where no stream is published.
func (n *Node) newLadder(cfg config.Ladder) (*ladder.Ladder, error) {
	c := ladder.Config{Hub: n.hub, OnDemand: cfg.OnDemand, Encoders: cfg.Encoders, Preset: cfg.Preset, Log: n.log,
		MaxLoad: n.cfg.Limits.CPU, Elsewhere: cfg.By == "transcoders"}
	if c.MaxLoad > 0 {
		c.Load = func() float64 { return n.load.state().cpu }
	}
	rules := cfg.Rules
	if len(cfg.Rungs) > 0 {
		rules = append([]string{"*=" + strings.Join(cfg.Rungs, "+")}, rules...)
	}
	for _, s := range rules {
		streams, rungs, err := config.ParseRule(s)
		if err != nil {
			return nil, err
		}
		r := ladder.Rule{Streams: streams}
		for _, rung := range rungs {
			r.Rungs = append(r.Rungs, ladder.Rung(rung))
		}
		c.Rules = append(c.Rules, r)
	}
	return ladder.New(c)
}

// showLadder answers GET /ladder.
func (n *Node) showLadder(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_ = json.NewEncoder(w).Encode(n.ladder.Status()) // a client that went away is its own report
}

// measureLadder shows what is made, and what is not.
func (n *Node) measureLadder(s *metrics.Sample) {
	states := map[ladder.State]int{ladder.Made: 0, ladder.Unasked: 0, ladder.Given: 0, ladder.Broken: 0}
	restarts, lost := n.ladder.Counts()
	for _, st := range n.ladder.Status() {
		for _, r := range st.Renditions {
			states[r.State]++
		}
	}
	for state, number := range states {
		s.Gauge("sluice_ladder_renditions", "Renditions of the streams that are published here, by what is done about them.", float64(number), "state", string(state))
	}
	s.Counter("sluice_ladder_restarts_total", "Encoders that ended and were started again.", float64(restarts))
	s.Counter("sluice_ladder_lost_frames_total", "Frames that were left out because encoders were too slow.", float64(lost))
}
