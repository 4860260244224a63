package node

import (
	"context"
	"net/netip"

	"sluice/internal/config"
	"sluice/internal/turn"
	"sluice/signal"
)

// newTURN makes the TURN server, if there shall be one.
func (n *Node) newTURN(cfg config.TURN) (*turn.Server, error) {
	if cfg.Listen == "" {
		return nil, nil
	}
	public, _ := netip.ParseAddr(cfg.Public) // it was checked; the zero one is that of media
	first, last, err := config.Ports(cfg.Ports)
	if err != nil {
		return nil, err
	}
	media := func() (all []turn.Route) {
		for _, r := range n.rtc.Routes() {
			all = append(all, turn.Route(r))
		}
		return all
	}
	return turn.New(turn.Config{Listen: cfg.Listen, Secret: string(cfg.Secret), Public: public, Ports: turn.Ports{First: first, Last: last}, Media: media}), nil
}

// relays are the TURN server's URLs with credentials for one client.
func (n *Node) relays() (all []signal.ICEServer) {
	if n.turn == nil {
		return nil
	}
	for _, l := range n.turn.Logins() {
		all = append(all, signal.ICEServer{URL: l.URL, Username: l.Username, Credential: l.Password})
	}
	return all
}

func (n *Node) runTURN(ctx context.Context) error {
	if n.turn == nil {
		<-ctx.Done()
		return nil
	}
	n.log.Info("TURN server is up", "url", n.turn.Addr())
	return n.turn.Run(ctx)
}
