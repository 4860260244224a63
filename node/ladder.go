package node

import (
	"sluice/internal/config"
	"sluice/ladder"
	"sluice/media"
)

// newLadder makes the ladder, which makes nothing where no stream is published.
func (n *Node) newLadder(cfg config.Ladder) (*ladder.Ladder, error) {
	c := ladder.Config{Hub: n.hub, Apps: cfg.Apps, OnDemand: cfg.OnDemand, Preset: cfg.Preset, Log: n.log}
	if cfg.Encoder != "" {
		c.Encoders = map[string]string{media.H264: cfg.Encoder}
	}
	for _, s := range cfg.Rungs {
		r, err := config.ParseRung(s)
		if err != nil {
			return nil, err
		}
		c.Rungs = append(c.Rungs, ladder.Rung(r))
	}
	return ladder.New(c), nil
}
