// Package safehttp makes HTTP clients for addresses that customers choose: webhooks and key sets. They reach nothing inside the operator's
// own network unless he allows it, whatever a name resolves to at that moment.
//
// Imports: nothing of ours.
package safehttp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"syscall"
	"time"
)

// ErrRefused: the address is not one that may be asked.
var ErrRefused = errors.New("the address is in a private or reserved network, which node.access.private-hosts does not allow")

// MaxURL bounds the addresses that CheckURL takes, in bytes.
const MaxURL = 2048

// New returns a client that connects to public addresses and to those in allowed. The address is judged when it is dialled, after
// DNS. It follows no redirects, uses no proxy and gives up after timeout.
func New(timeout time.Duration, allowed []netip.Prefix) *http.Client {
	dialer := &net.Dialer{Timeout: timeout, Control: func(_, address string, _ syscall.RawConn) error {
		at, err := netip.ParseAddrPort(address)
		if err != nil {
			return fmt.Errorf("dial %q: %w", address, err)
		}
		if !May(at.Addr(), allowed) {
			return fmt.Errorf("%w: %s", ErrRefused, at.Addr())
		}
		return nil
	}}
	return &http.Client{
		Timeout: timeout,
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
				return dialer.DialContext(ctx, network, address)
			},
			TLSHandshakeTimeout:    timeout,
			ResponseHeaderTimeout:  timeout,
			MaxResponseHeaderBytes: 16 << 10,
			MaxIdleConnsPerHost:    8,
			MaxConnsPerHost:        64,
			IdleConnTimeout:        30 * time.Second,
			ForceAttemptHTTP2:      true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// reserved networks that netip does not know as such (RFC 6890 and the registries that go with it). Those that carry another address
// within them are refused as a whole.
var reserved = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("192.0.0.0/24"), netip.MustParsePrefix("192.0.2.0/24"),
	netip.MustParsePrefix("192.88.99.0/24"), netip.MustParsePrefix("198.18.0.0/15"), netip.MustParsePrefix("198.51.100.0/24"),
	netip.MustParsePrefix("203.0.113.0/24"), netip.MustParsePrefix("240.0.0.0/4"), netip.MustParsePrefix("168.63.129.16/32"), // Azure's own host
	netip.MustParsePrefix("64:ff9b::/96"), netip.MustParsePrefix("64:ff9b:1::/48"), netip.MustParsePrefix("100::/64"),
	netip.MustParsePrefix("2001::/23"), netip.MustParsePrefix("2001:db8::/32"), netip.MustParsePrefix("2002::/16"), netip.MustParsePrefix("::/96"),
	netip.MustParsePrefix("fec0::/10"),
}

// May reports whether an address may be asked.
func May(a netip.Addr, allowed []netip.Prefix) bool {
	a = a.Unmap().WithZone("")
	in := func(p netip.Prefix) bool { return p.Contains(a) }
	if slices.ContainsFunc(allowed, in) {
		return true
	}
	return a.IsGlobalUnicast() && !a.IsPrivate() && !slices.ContainsFunc(reserved, in)
}

// CheckURL reports what is no address to ask.
func CheckURL(s string) error {
	u, err := url.Parse(s)
	switch {
	case len(s) > MaxURL:
		return fmt.Errorf("an address has at most %d bytes", MaxURL)
	case err != nil:
		return errors.New("this is no address: it is https://HOST/PATH")
	case u.Scheme != "https" && u.Scheme != "http" || u.Host == "":
		return errors.New("an address is https://HOST/PATH or http://HOST/PATH")
	case u.User != nil:
		return errors.New("an address has no user and password in it")
	case u.Fragment != "":
		return errors.New("an address has no # in it")
	}
	return nil
}
