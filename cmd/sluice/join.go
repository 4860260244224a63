package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"sluice/cluster"
	"sluice/internal/config"
	"sluice/internal/publicip"
)

const (
	// joinFile is where the units of the package read their settings.
	joinFile = "/etc/sluice/sluice.yaml"
	// gatewayRole is no role of a node: the machine gets the front door.
	gatewayRole = "gateway"
	// againAfter is the pause between two tries to reach a registry.
	againAfter = 2 * time.Second
	// joinedWithin bounds the start of a node.
	joinedWithin = 30 * time.Second
)

type joinCmd struct {
	Registry  string `arg:"" name:"registry" optional:"" help:"Registry: mongodb://…, mongodb+srv://… or ADDRESS; default: --store-file, or $$SLUICE_STORE. Others can read a password on a command line."`
	StoreFile string `help:"File with the registry's URL." placeholder:"FILE" type:"path"`

	Role           string   `help:"What this machine does: origin, edge, standalone or gateway." enum:"origin,edge,standalone,gateway" default:"origin"`
	PublicAddress  string   `help:"Address at which clients reach this machine: IP, auto (Azure, AWS or Google Cloud says it) or stun:HOST:PORT." placeholder:"ADDRESS"`
	Address        string   `help:"Address at which gateways and nodes reach it; default: the private one that goes with --public-address." placeholder:"IP"`
	ID             string   `name:"id" help:"Name of the node in the cluster; default: the machine's."`
	Region         string   `help:"Where the machine is, for placement."`
	TrustedProxies []string `help:"Who may say a client's address in X-Forwarded-For: gateways and load balancers." placeholder:"PREFIX,…"`
	CloudNotice    string   `help:"Whose warnings of the machine's end begin a drain: azure or off." placeholder:"CLOUD"`
	Set            []string `help:"Any other setting, such as node.limits.egress=2000; may be given many times." placeholder:"KEY=VALUE" sep:"none"`

	Wait  time.Duration `help:"Try so long to reach a registry that is not there yet." default:"0s"`
	Start bool          `help:"Start the service, where systemd is." default:"true" negatable:""`

	finder  publicip.Finder // for tests
	manager serviceManager  // for tests
}

// Run makes this machine a part of a cluster. It asks nothing, and may be repeated.
func (c *joinCmd) Run(p *process, top *cli) error {
	path := cmp.Or(top.Config, joinFile)
	store, err := c.store(p.env)
	if err != nil {
		return err
	}
	cfg, before, err := existing(path)
	if err != nil {
		return err
	}
	if err := c.apply(cfg, store); err != nil {
		return usageError{err}
	}
	if len(cfg.Node.Announce) > 0 && c.Role != gatewayRole {
		node := cfg.Node
		if err := findAddress(p.ctx, &node, c.finder, newLog(p.err, config.Log{Level: "error", Format: "text"})); err != nil {
			return err
		}
		fmt.Fprintf(p.out, "address   %s for clients, %s for nodes\n", strings.Join(node.Announce, ", "), cmp.Or(node.Address, node.Announce[0]))
	}
	reg, err := c.reach(p, store)
	if err != nil {
		return err
	}
	defer func() { _ = reg.Close() }() // everything was read
	nodes, err := reg.Nodes(p.ctx)
	if err != nil {
		return fmt.Errorf("read nodes: %w", err)
	}
	fmt.Fprintf(p.out, "registry  answers; it knows %d nodes\n", len(nodes))
	changed, err := write(path, cfg, before)
	if err != nil {
		return err
	}
	switch {
	case !changed:
		fmt.Fprintf(p.out, "settings  %s says so already\n", path)
	case before == nil:
		fmt.Fprintf(p.out, "settings  written to %s\n", path)
	default:
		fmt.Fprintf(p.out, "settings  written to %s; what it was is in %s\n", path, oldName(path))
	}
	return c.start(p, path, changed, cfg.Node.ID, reg)
}

// store is the registry's URL, from wherever it was given.
func (c *joinCmd) store(env map[string]string) (string, error) {
	store, from := c.Registry, "the command line"
	switch {
	case store != "" && c.StoreFile != "":
		return "", usageError{errors.New("the registry was given twice: on the command line and by --store-file")}
	case c.StoreFile != "":
		text, err := config.Secret("file:" + c.StoreFile).Value()
		if err != nil {
			return "", fmt.Errorf("read --store-file: %w", err)
		}
		store, from = strings.TrimSpace(text), c.StoreFile
	case store == "":
		store, from = env["SLUICE_STORE"], "SLUICE_STORE"
	}
	if store == "" {
		return "", usageError{errors.New("which registry? sluice join mongodb://…, or --store-file FILE, or SLUICE_STORE")}
	}
	if _, _, err := cluster.ParseStore(store); err != nil {
		return "", usageError{fmt.Errorf("registry of %s: %w", from, err)}
	}
	return store, nil
}

// existing reads the settings that are there; without a file, before is nil. A file with mistakes is left alone.
func existing(path string) (cfg *config.Config, before []byte, err error) {
	before, err = os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return config.Default(), nil, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("read settings: %w", err)
	}
	cfg, mistakes := config.Parse(before)
	if len(mistakes) > 0 {
		return nil, nil, fmt.Errorf("%s:%s; mend or remove the file (sluice check %s lists every mistake)", path, mistakes[0], path)
	}
	return cfg, before, nil
}

// apply puts what was asked for into the settings, by the rules of the file.
func (c *joinCmd) apply(cfg *config.Config, store string) error {
	type setting struct{ path, text string }
	list := []setting{{"store", store}}
	if c.Role != gatewayRole {
		list = append(list, setting{"node.role", c.Role}, setting{"node.announce", c.PublicAddress}, setting{"node.address", c.Address},
			setting{"node.id", cmp.Or(c.ID, cfg.Node.ID, hostID())}, setting{"node.region", c.Region}, setting{"node.cloud-notice", c.CloudNotice},
			setting{"node.trusted-proxies", strings.Join(c.TrustedProxies, ",")})
	} else {
		if node := c.PublicAddress + c.Address + c.ID + c.CloudNotice; node != "" {
			return errors.New("--public-address, --address, --id and --cloud-notice are for nodes, not for a gateway")
		}
		list = append(list, setting{"gateway.region", c.Region}, setting{"gateway.trusted-proxies", strings.Join(c.TrustedProxies, ",")})
	}
	for _, s := range list {
		if s.text == "" {
			continue // what the file says stays
		}
		if err := cfg.Set(s.path, s.text); err != nil {
			return err
		}
	}
	for _, kv := range c.Set {
		path, text, ok := strings.Cut(kv, "=")
		if !ok {
			return fmt.Errorf("--set %s: write KEY=VALUE, such as node.limits.egress=2000", path)
		}
		if err := cfg.Set(path, text); err != nil {
			return fmt.Errorf("--set %w", err)
		}
	}
	return nil
}

// hostID is the machine's name as a node's id, "" if it is none.
func hostID() string {
	host, err := os.Hostname()
	host, _, _ = strings.Cut(host, ".")
	if err != nil || cluster.CheckNodeID(host) != nil {
		return ""
	}
	return host
}

// reach opens the registry, which may take a while to be there.
func (c *joinCmd) reach(p *process, store string) (cluster.Registry, error) {
	until := time.Now().Add(c.Wait)
	for try := 0; ; try++ {
		reg, err := openStore(p.ctx, store, newLog(p.err, config.Log{Level: "error", Format: "text"}))
		if err == nil {
			return reg, nil
		}
		var usage usageError
		if errors.As(err, &usage) || errors.Is(err, cluster.ErrBadStore) || p.ctx.Err() != nil || time.Now().Add(againAfter).After(until) {
			return nil, fmt.Errorf("join: nothing was changed: %w", err)
		}
		if try == 0 {
			fmt.Fprintf(p.err, "sluice: %v; trying again for %s\n", err, c.Wait)
		}
		select {
		case <-p.ctx.Done():
		case <-time.After(againAfter):
		}
	}
}

func oldName(path string) string { return path + ".old" }

// write replaces the file in one step, if there is something to change. Root and the group sluice may read it: it may hold a password.
func write(path string, cfg *config.Config, before []byte) (changed bool, err error) {
	if before != nil {
		if was, _ := config.Parse(before); bytes.Equal(was.YAML(), cfg.YAML()) {
			return false, nil // with its comments
		}
	}
	text := append([]byte("# Written by sluice join. Every setting with its default: /usr/share/doc/sluice/sluice.yaml\n"), cfg.YAML()...)
	if _, mistakes := config.Parse(text); len(mistakes) > 0 {
		return false, fmt.Errorf("settings would be wrong: %s", mistakes[0]) // Set has looked at each of them
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return false, fmt.Errorf("write settings: %w (another place: --config FILE)", err)
	}
	if before != nil {
		if err := writeFile(oldName(path), before); err != nil {
			return false, err
		}
	}
	return true, writeFile(path, text)
}

func writeFile(path string, text []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return fmt.Errorf("write settings: %w (another place: --config FILE)", err)
	}
	defer func() { _ = os.Remove(f.Name()) }() // gone, if all went well
	_, err = f.Write(text)
	if gid, ok := groupID(); ok && os.Geteuid() == 0 && err == nil {
		err = errors.Join(f.Chown(0, gid), f.Chmod(0o640))
	}
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write settings: %w", err)
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return fmt.Errorf("write settings: %w", err)
	}
	return nil
}

// start starts the unit where there is a service manager, and waits for the node to be in the registry.
func (c *joinCmd) start(p *process, path string, changed bool, id string, reg cluster.Registry) error {
	unit, command := "sluice-node", "serve"
	if c.Role == gatewayRole {
		unit, command = "sluice-gateway", "gateway"
	}
	m := c.manager
	if m == nil {
		m = systemd()
	}
	if !c.Start || m == nil || path != joinFile && c.manager == nil {
		fmt.Fprintf(p.out, "start it  sluice %s --config %s\n", command, path)
		return nil
	}
	if err := m.start(p.ctx, unit, changed); err != nil {
		return fmt.Errorf("start %s: %w (journalctl -u %s says why)", unit, err, unit)
	}
	if c.Role == gatewayRole || id == "" {
		fmt.Fprintf(p.out, "started   %s\n", unit)
		return nil
	}
	ctx, cancel := context.WithTimeout(p.ctx, joinedWithin)
	defer cancel()
	for {
		state, err := stateOf(ctx, reg, id)
		if err == nil && state == string(cluster.Ready) {
			fmt.Fprintf(p.out, "started   %s: %s is ready\n", unit, id)
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s was started, but %s is not ready after %s: %s (journalctl -u %s says why)", unit, id, joinedWithin, cmp.Or(state, "it is not in the registry"), unit)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// stateOf is what nodes says of one node, "": it is not there.
func stateOf(ctx context.Context, reg cluster.Registry, id string) (string, error) {
	nodes, err := reg.Nodes(ctx)
	if err != nil {
		return "", err
	}
	for _, row := range nodeRows(nodes, reg.Now()) {
		if row.ID == id {
			return row.State, nil
		}
	}
	return "", nil
}
