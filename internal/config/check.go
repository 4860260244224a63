package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"sluice/cluster"
	"sluice/media"
)

// check says what is wrong with one text for the field, by its enum and check tags.
// Whether it is a number or a duration at all is found by setOne.
func (f field) check(s string) error {
	if enum := f.tag.Get("enum"); enum != "" {
		return oneOf(s, strings.Split(enum, ","))
	}
	if c, ok := checks[f.tag.Get("check")]; ok {
		return c(s)
	}
	return nil
}

// checks are the values of check tags.
var checks = map[string]func(string) error{
	"listen": checkListen,
	"listen-or-off": func(s string) error {
		if s == "" {
			return nil
		}
		return checkListen(s)
	},
	"announce": checkAnnounce,
	"ip-or-none": func(s string) error {
		if _, err := netip.ParseAddr(s); err != nil && s != "" {
			return fmt.Errorf("%q is not an IP address", s)
		}
		return nil
	},
	"ports": func(s string) error {
		_, _, err := Ports(s)
		return err
	},
	"rung": func(s string) error {
		_, err := ParseRung(s)
		return err
	},
	"rule": func(s string) error {
		_, _, err := ParseRule(s)
		return err
	},
	"prefix":    checkPrefix,
	"collector": checkCollector,
	"origin":    checkOrigin,
	"host":      checkHost,
	"ice":       checkICE,
	"store":     checkStore,
	"id":        checkID,
	"name":      checkName,
	"fraction":  func(s string) error { return within(s, 0.01, 1) },
	"range": func(s string) error {
		_, _, err := Range(s, 1)
		return err
	},
	"count": func(s string) error { return within(s, 0, 1e9) },
	"some":  func(s string) error { return within(s, 1, 100) },
	"port":  func(s string) error { return within(s, 1, 65535) },
	"positive": func(s string) error {
		if d, err := time.ParseDuration(s); err == nil && d <= 0 {
			return fmt.Errorf("%s is too short: it must be more than zero", s)
		}
		return nil
	},
	"playout": func(s string) error {
		_, err := Playout(s)
		return err
	},
	"path": func(s string) error {
		if s == "" {
			return errors.New("must not be empty")
		}
		return nil
	},
}

func oneOf(s string, list []string) error {
	if slices.Contains(list, s) {
		return nil
	}
	err := fmt.Errorf("%q is not one of %s", s, strings.Join(list, ", "))
	if near := nearest(s, list); near != "" {
		err = fmt.Errorf("%w; did you mean %q?", err, near)
	}
	return err
}

// within leaves what is no number to setOne, which has better words for it.
func within(s string, least, most float64) error {
	if x, err := strconv.ParseFloat(s, 64); err == nil && (x < least || x > most) {
		return fmt.Errorf("%s is not between %v and %v", s, least, most)
	}
	return nil
}

// checkOrigin takes what a link begins with (RFC 6454 §6.2), or a port of the same host.
func checkOrigin(s string) error {
	if s == "" || strings.HasPrefix(s, ":") && checkListen(s) == nil {
		return nil
	}
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil || u.Scheme+"://"+u.Host != s {
		return fmt.Errorf("%q is not an origin such as https://live.example.org:5443, or a port such as :5443", s)
	}
	return nil
}

func checkCollector(s string) error {
	u, err := url.Parse(s)
	if s != "" && (err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "") {
		return fmt.Errorf("%q is not the URL of a collector, such as http://127.0.0.1:4318", s)
	}
	return nil
}

func checkListen(s string) error {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return fmt.Errorf("%q is not an address to listen on, such as :5080 or 127.0.0.1:5080", s)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || strconv.FormatUint(n, 10) != port {
		return fmt.Errorf("port %q of %q is not between 0 and 65535", port, s)
	}
	if host == "" {
		return nil
	}
	return checkHost(host)
}

// checkAnnounce takes an IP address, or a way to find one.
func checkAnnounce(s string) error {
	server, stun := strings.CutPrefix(s, "stun:")
	host, port, err := net.SplitHostPort(server)
	switch _, badIP := netip.ParseAddr(s); {
	case stun && (err != nil || host == "" || port == ""):
		return fmt.Errorf("%q is not a STUN server such as stun:stun.example.org:3478", s)
	case !stun && s != "auto" && badIP != nil:
		return fmt.Errorf("%q is not an IP address, auto, or stun:HOST:PORT", s)
	}
	return nil
}

func checkPrefix(s string) error {
	_, err := Prefixes([]string{s})
	return err
}

// Prefixes reads a list of addresses and networks, such as trusted-proxies.
func Prefixes(list []string) ([]netip.Prefix, error) {
	var all []netip.Prefix
	for _, s := range list {
		p, err := netip.ParsePrefix(s)
		if a, aerr := netip.ParseAddr(s); aerr == nil {
			p, err = a.WithZone("").Prefix(a.BitLen())
		}
		if err != nil {
			return nil, fmt.Errorf("%q is not an IP address or a network such as 10.0.0.0/8", s)
		}
		all = append(all, p)
	}
	return all, nil
}

// Ports reads a range, such as turn.ports; "" is that of all, 0 and 0.
func Ports(s string) (first, last uint16, err error) {
	if s == "" {
		return 0, 0, nil
	}
	from, to, _ := strings.Cut(s, "-")
	a, err := strconv.ParseUint(from, 10, 16)
	b, err2 := strconv.ParseUint(to, 10, 16)
	if err != nil || err2 != nil || a == 0 || b < a {
		return 0, 0, fmt.Errorf("%q is not a range of ports, such as 49152-65535", s)
	}
	return uint16(a), uint16(b), nil
}

// Rung is a rendition that a ladder makes.
type Rung struct {
	Name    string // "480p"
	Height  int    // pixels
	Bitrate int    // bit/s
}

// ParseRung reads HEIGHTp:BITRATE, such as 480p:800k.
func ParseRung(s string) (Rung, error) {
	bad := fmt.Errorf("%q is not a rendition with its bit rate, such as 480p:800k", s)
	name, rate, _ := strings.Cut(s, ":")
	digits, ok := strings.CutSuffix(name, "p")
	height, err := strconv.Atoi(digits)
	if !ok || err != nil || height < 16 || height > 4320 || height%2 != 0 {
		return Rung{}, bad
	}
	unit := 1
	for suffix, n := range map[string]int{"k": 1e3, "M": 1e6} {
		if number, has := strings.CutSuffix(rate, suffix); has {
			rate, unit = number, n
		}
	}
	bits, err := strconv.ParseFloat(rate, 64)
	if bits *= float64(unit); err != nil || !(bits >= 10e3 && bits <= 200e6) {
		return Rung{}, bad
	}
	return Rung{name, height, int(bits)}, nil
}

// ParseRule reads STREAMS=RUNG+RUNG or STREAMS=none, such as live/camera*=480p:800k+240p:400k.
func ParseRule(s string) (streams string, rungs []Rung, err error) {
	streams, list, ok := strings.Cut(s, "=")
	if !ok || streams == "" {
		return "", nil, fmt.Errorf("%q is not a rule for some streams, such as live/camera*=480p:800k+240p:400k or live/raw=none", s)
	}
	if err := media.CheckPattern(streams); err != nil {
		return "", nil, err
	}
	if list == "none" {
		return streams, nil, nil
	}
	for one := range strings.SplitSeq(list, "+") {
		r, err := ParseRung(one)
		if err != nil {
			return "", nil, err
		}
		rungs = append(rungs, r)
	}
	return streams, rungs, nil
}

func checkHost(s string) error {
	if _, err := netip.ParseAddr(s); err == nil {
		return nil
	}
	ok := s != "" && len(s) <= 253 && !strings.Contains(s, "..")
	for _, r := range s {
		ok = ok && (r == '-' || r == '.' || r == '*' || r == '_' || alphanumeric(r))
	}
	if !ok {
		return fmt.Errorf("%q is not a host name or an IP address", s)
	}
	return nil
}

// checkICE takes the URLs of RFC 7064 and RFC 7065, such as turn:host:3478?transport=udp.
func checkICE(s string) error {
	u, err := url.Parse(s)
	if err != nil || u.Opaque == "" || !slices.Contains([]string{"stun", "stuns", "turn", "turns"}, u.Scheme) {
		return fmt.Errorf("%q is not a STUN or TURN URL, such as stun:host:3478 or turn:host:3478?transport=udp", s)
	}
	return nil
}

func checkStore(s string) error {
	_, _, err := cluster.ParseStore(s)
	return err
}

// checkID is for a node's id and region; empty is the default of both.
func checkID(s string) error {
	if s != "" && cluster.CheckNodeID(s) != nil {
		return fmt.Errorf("%.80q is not 1 to 64 letters, digits and '-'", s)
	}
	return nil
}

func checkName(s string) error {
	_, err := media.NewKey(s, "stream")
	return err
}

func alphanumeric(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
}

// nearest returns the word of the list that s was probably meant to be, or "".
func nearest(s string, list []string) string {
	best, least := "", len(s)/3+2 // one slip, and one more for every three letters
	for _, w := range list {
		if d := distance(strings.ToLower(s), strings.ToLower(w)); d < least {
			best, least = w, d
		}
	}
	return best
}

// distance counts the letters to insert, delete or replace (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], cost
		}
	}
	return row[len(b)]
}

// mostPlayout is the longest that players can be told.
const mostPlayout = 40 * time.Second

// Playout reads how long players may keep the picture back; nil: as long as they like.
func Playout(s string) (*time.Duration, error) {
	if s == "off" {
		return nil, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 || d > mostPlayout {
		return nil, fmt.Errorf("%q is neither off nor a time from 0s to %s", s, mostPlayout)
	}
	return &d, nil
}
