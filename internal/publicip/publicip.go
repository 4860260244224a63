// Package publicip finds the address at which the world reaches this machine: its cloud says it (Azure, AWS, Google Cloud), or a STUN server.
//
// Imports: nothing of ours.
package publicip

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"
)

const (
	// Service is where machines of all three clouds find the service that knows about them.
	Service = "http://169.254.169.254"
	// Auto asks the clouds, and looks at the machine's own interfaces.
	Auto = "auto"
	// stunScheme begins a server that is asked instead.
	stunScheme = "stun:"

	cloudWithin = 3 * time.Second // the service is on the machine's own link, or not there
	stunWithin  = 8 * time.Second
)

// ErrNone: nobody knows an address of this machine.
var ErrNone = errors.New("no public address found")

// Found is an address and who knew it.
type Found struct {
	Public  netip.Addr
	Private netip.Addr // of the same interface, for neighbours; not valid: not known
	By      string     // "Azure", "AWS", "Google Cloud", "stun:HOST:PORT", "a network interface"
}

// Finder asks.
type Finder struct {
	Service    string                     // "": Service
	Interfaces func() ([]net.Addr, error) // nil: net.InterfaceAddrs
}

// Dynamic reports whether s says how to find an address, rather than being one: auto, or stun:HOST:PORT.
func Dynamic(s string) bool { return s == Auto || strings.HasPrefix(s, stunScheme) }

// Find does what how says. The error wraps ErrNone.
func (f Finder) Find(ctx context.Context, how string) (Found, error) {
	if server, ok := strings.CutPrefix(how, stunScheme); ok {
		ctx, cancel := context.WithTimeout(ctx, stunWithin)
		defer cancel()
		public, private, err := askSTUN(ctx, server)
		if err != nil {
			return Found{}, fmt.Errorf("%w: ask STUN server %s: %w", ErrNone, server, err)
		}
		return Found{Public: public, Private: private, By: how}, nil
	}
	found, err := f.clouds(ctx)
	if err == nil {
		return found, nil
	}
	own, ownErr := f.own()
	if ownErr == nil {
		return own, nil
	}
	return Found{}, fmt.Errorf("%w: %w; %w: give the address itself, or stun:HOST:PORT", ErrNone, err, ownErr)
}

// clouds asks the services of all clouds at once; two of the three are not there, and say so.
func (f Finder) clouds(ctx context.Context) (Found, error) {
	ctx, cancel := context.WithTimeout(ctx, cloudWithin)
	defer cancel()
	service := newService(cmp.Or(f.Service, Service))
	defer service.client.CloseIdleConnections()
	type answer struct {
		found Found
		err   error
	}
	asks := []func(context.Context) (Found, error){service.azure, service.aws, service.google}
	answers := make(chan answer, len(asks))
	for _, ask := range asks {
		go func() {
			found, err := ask(ctx)
			answers <- answer{found, err}
		}()
	}
	var best Found
	var errs []error
	for range asks { // all, so that every goroutine has ended
		a := <-answers
		switch {
		case a.err == nil && !best.Public.IsValid():
			best = a.found
			cancel()
		case errors.Is(a.err, errNoPublic):
			errs = append(errs, a.err)
		}
	}
	if best.Public.IsValid() {
		return best, nil
	}
	if len(errs) > 0 {
		return Found{}, errors.Join(errs...)
	}
	return Found{}, errors.New("this is no machine of Azure, AWS or Google Cloud")
}

// own is a public address that an interface has itself.
func (f Finder) own() (Found, error) {
	list := f.Interfaces
	if list == nil {
		list = net.InterfaceAddrs
	}
	addrs, err := list()
	if err != nil {
		return Found{}, fmt.Errorf("list this machine's addresses: %w", err)
	}
	var best netip.Addr
	for _, a := range addrs {
		p, err := netip.ParsePrefix(a.String())
		if err != nil || !public(p.Addr()) {
			continue
		}
		if !best.IsValid() || best.Is6() && p.Addr().Is4() {
			best = p.Addr()
		}
	}
	if !best.IsValid() {
		return Found{}, errors.New("none of its interfaces has a public address")
	}
	return Found{Public: best, Private: best, By: "a network interface"}, nil
}

// shared is for NAT at providers (RFC 6598), the others are for documents and tests (RFC 5737, RFC 3849).
var special = []netip.Prefix{
	netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("198.51.100.0/24"),
	netip.MustParsePrefix("203.0.113.0/24"), netip.MustParsePrefix("2001:db8::/32"),
}

func public(a netip.Addr) bool {
	if !a.IsGlobalUnicast() || a.IsPrivate() {
		return false
	}
	for _, p := range special {
		if p.Contains(a) {
			return false
		}
	}
	return true
}
