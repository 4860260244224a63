package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// prefix of a namespace's name; then come the process that made it, and whose it is.
const prefix = "sluice-chaos-"

// subnet is a part of the network, with a bridge of its own on the router: 10.88.NET.0/24.
type subnet int

// The subnets, as in a cloud's virtual network.
const (
	origins    subnet = 1
	edges      subnet = 2
	gateways   subnet = 3
	clients    subnet = 4
	registries subnet = 5
)

func (s subnet) String() string { return fmt.Sprintf("10.88.%d.0/24", s) }

// host is a machine of the network: a namespace with one cable to its subnet's bridge.
type host struct {
	name      string // also its cable's on the router
	net       subnet
	number    int
	namespace string
}

func (h host) address() string { return fmt.Sprintf("10.88.%d.%d", h.net, h.number) }

// network is the router and the hosts: namespaces of the kernel, joined by cables and bridges, with a route between any two subnets.
type network struct {
	router string
	hosts  map[string]host
}

// layout is who is there.
func layout(pid, originCount, edgeCount, gatewayCount int) *network {
	n := &network{router: fmt.Sprint(prefix, pid, "-router"), hosts: map[string]host{}}
	add := func(name string, net subnet, number int) {
		n.hosts[name] = host{name, net, number, fmt.Sprint(prefix, pid, "-", name)}
	}
	for i := range originCount {
		add(fmt.Sprint("origin-", i+1), origins, 11+i)
	}
	for i := range edgeCount {
		add(fmt.Sprint("edge-", i+1), edges, 11+i)
	}
	for i := range gatewayCount {
		add(fmt.Sprint("gateway-", i+1), gateways, 11+i)
	}
	add("clients", clients, 11)
	add("registry", registries, 11)
	return n
}

// missing says what is lacking to make namespaces; "": nothing.
func missing() string {
	var packages []string
	for program, name := range map[string]string{"ip": "iproute2", "nft": "nftables", "tc": "iproute2"} {
		if _, err := exec.LookPath(program); err != nil && !slices.Contains(packages, name) {
			packages = append(packages, name)
		}
	}
	slices.Sort(packages)
	switch {
	case len(packages) > 0:
		return "apt-get install " + strings.Join(packages, " ")
	case os.Getuid() != 0:
		return "network namespaces are for root: sudo make chaos"
	}
	return ""
}

// command runs a program that ends by itself, with input on its standard input.
func command(ctx context.Context, input string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Dir, cmd.Stdin = "/", strings.NewReader(input) // whatever sluice.yaml is here, it is not for these clusters
	out, err := cmd.Output()
	var failed *exec.ExitError
	if errors.As(err, &failed) {
		err = fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(failed.Stderr)))
	}
	return string(out), err
}

// build makes the namespaces; remove takes them away also when build failed.
func (n *network) build(ctx context.Context) error {
	batch := []string{"netns add " + n.router}
	in := func(namespace, text string) { batch = append(batch, "-n "+namespace+" "+text) }
	in(n.router, "link set lo up")
	for _, s := range []subnet{origins, edges, gateways, clients, registries} {
		in(n.router, fmt.Sprintf("link add bridge%d type bridge", s))
		in(n.router, fmt.Sprintf("address add 10.88.%d.1/24 dev bridge%d", s, s))
		in(n.router, fmt.Sprintf("link set bridge%d up", s))
	}
	for _, h := range n.hosts {
		batch = append(batch, "netns add "+h.namespace)
		in(n.router, fmt.Sprintf("link add %s type veth peer name cable netns %s", h.name, h.namespace))
		in(n.router, fmt.Sprintf("link set %s master bridge%d up", h.name, h.net))
		in(h.namespace, "link set lo up")
		in(h.namespace, fmt.Sprintf("address add %s/24 dev cable", h.address()))
		in(h.namespace, "link set cable up")
		in(h.namespace, fmt.Sprintf("route add default via 10.88.%d.1", h.net))
	}
	for _, line := range batch {
		if _, err := command(ctx, "", append([]string{"ip"}, strings.Fields(line)...)...); err != nil {
			return fmt.Errorf("make the network: %w", err)
		}
	}
	_, err := command(ctx, "", "ip", "netns", "exec", n.router, "sysctl", "-qw", "net.ipv4.ip_forward=1")
	return err
}

// remove ends what runs in the namespaces, by process number, and takes them away.
func (n *network) remove() error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	names := []string{n.router}
	for _, h := range n.hosts {
		names = append(names, h.namespace)
	}
	return removeNamespaces(ctx, names)
}

func removeNamespaces(ctx context.Context, names []string) (all error) {
	for _, name := range names {
		pids, err := command(ctx, "", "ip", "netns", "pids", name)
		if err != nil {
			continue // it was not made
		}
		for _, text := range strings.Fields(pids) {
			if pid, err := strconv.Atoi(text); err == nil && pid != os.Getpid() {
				_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended
			}
		}
		_, err = command(ctx, "", "ip", "netns", "del", name) // cables go with it
		all = errors.Join(all, err)
	}
	return all
}

// sweep removes what runs left that were killed.
func sweep(ctx context.Context) error {
	list, err := command(ctx, "", "ip", "netns", "list")
	if err != nil {
		return err
	}
	var stale []string
	for line := range strings.Lines(list) {
		name, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		if pid, ok := makerOf(name); ok && syscall.Kill(pid, 0) != nil {
			stale = append(stale, name)
		}
	}
	return removeNamespaces(ctx, stale)
}

// makerOf is the process that made a namespace of ours.
func makerOf(namespace string) (int, bool) {
	rest, ok := strings.CutPrefix(namespace, prefix)
	if !ok {
		return 0, false
	}
	text, _, _ := strings.Cut(rest, "-")
	pid, err := strconv.Atoi(text)
	return pid, err == nil && pid > 0
}

// cut says which packets a host loses: those to and from these addresses (or subnets), of all ports or of one TCP port.
type cut struct {
	with []string
	port int // 0: everything
}

// rules are nft's, for a host's own table. share is how much of all UDP is lost at random on the way in, 0 to 1.
func rules(cuts []cut, share float64) string {
	var b strings.Builder
	b.WriteString("table inet chaos\ndelete table inet chaos\ntable inet chaos {\n")
	for _, way := range []struct{ hook, end string }{{"input", "saddr"}, {"output", "daddr"}} {
		fmt.Fprintf(&b, "chain %s { type filter hook %s priority 0;\n", way.hook, way.hook)
		for _, c := range cuts {
			port := ""
			if c.port != 0 {
				port = fmt.Sprintf(" tcp %s %d", map[string]string{"input": "sport", "output": "dport"}[way.hook], c.port)
			}
			fmt.Fprintf(&b, "ip %s { %s }%s drop\n", way.end, strings.Join(c.with, ", "), port)
		}
		if share > 0 && way.hook == "input" {
			fmt.Fprintf(&b, "iif != \"lo\" meta l4proto udp numgen random mod 1000 < %d drop\n", int(share*1000+0.5))
		}
		b.WriteString("}\n")
	}
	b.WriteString("}\n")
	return b.String()
}

// shape sets which packets a host loses; nothing: its network is whole.
func (n *network) shape(ctx context.Context, name string, share float64, cuts ...cut) error {
	_, err := command(ctx, rules(cuts, share), "ip", "netns", "exec", n.hosts[name].namespace, "nft", "-f", "-")
	return err
}

// limit bounds what a host's cable carries to it, in Mbit/s, by a token bucket at the router's end.
func (n *network) limit(ctx context.Context, name string, mbps int) error {
	_, err := command(ctx, "", "ip", "netns", "exec", n.router, "tc", "qdisc", "replace", "dev", name, "root", "tbf",
		"rate", fmt.Sprint(mbps, "mbit"), "burst", "256kb", "latency", "50ms")
	return err
}
