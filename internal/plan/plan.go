// Package plan says how many machines an audience takes, and what they cost, by what was measured and a price table.
//
// Imports: nothing of ours.
package plan

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"sort"
	"strconv"
	"strings"
)

// Figures are what was measured: docs/bench.json, on the machine that it names. A test compares.
type Figures struct {
	PacketBig   float64 // µs of a processor for a packet, 150 viewers, frames of nine packets and sound
	PacketSmall float64 // the same with 200 viewers at 300 kbit/s: frames of one packet
	Join        float64 // ms of a processor
	Memory      float64 // KiB for each viewer
	Relay       float64 // µs for a packet at either end of the relay, and at ingest: a guess on the safe side, as in docs/cluster.md
}

// Measured are the figures of docs/bench.json.
func Measured() Figures {
	return Figures{PacketBig: 2.68, PacketSmall: 7.14, Join: 1.80, Memory: 37.5, Relay: 6}
}

const (
	payload    = 1200.0 // bytes of media in a packet
	overhead   = 64.0   // bytes around it: RTP with its extensions, SRTP's tag, UDP, IP
	soundRate  = 50.0   // packets a second
	soundBytes = 80.0   // 32 kbit/s
	benchFPS   = 30.0
	benchBurst = 9.0 // packets of a frame in the bench's stream of 2.5 Mbit/s

	hoursOfMonth = 730.0
	memoryBase   = 0.5 // GB: the system, and the process without viewers
	rise         = 1.25
	gatewayCores = 2 // size of the two machines of Sluice's own gateway, and of the registry
)

// Ask is what is to be carried.
type Ask struct {
	Viewers int
	Streams int
	Bitrate float64 // of the picture, bit/s
	FPS     float64
	Target  float64 // load at which the groups are kept, 0 to 1: gateway.scale.cpu
	Fanout  int     // node.relay-fanout
	Stay    float64 // minutes that a viewer stays
	Hours   float64 // in a month with this audience
	Spare   int     // nodes that may fail
	Region  string
	Size    string // of edges; "": the cheapest
	Gateway string // application-gateway or sluice
	Store   string // mongodb or cosmos
}

// Plan is the answer. Money is in Currency, for a month.
type Plan struct {
	Region   string `json:"region"`
	Currency string `json:"currency"`
	Prices   string `json:"pricesOf"`

	Edges   Group `json:"edges"`
	Origins Group `json:"origins"`
	Tree    Tree  `json:"relay"`

	Egress     float64 `json:"egressMbit"` // at the peak
	EgressGB   float64 `json:"egressGB"`   // in a month
	Idle       float64 `json:"idle"`       // a month in which nobody comes: the least machines
	Machines   float64 `json:"machines"`   // more machines, in the hours with this audience
	Traffic    float64 `json:"traffic"`
	Total      float64 `json:"total"`
	ByThousand float64 `json:"perThousandViewersAndHour"` // machines and traffic, without what is idle
	Items      []Item  `json:"idleItems"`
}

// Group are machines that are alike.
type Group struct {
	Size     string  `json:"size"`
	Nodes    int     `json:"nodes"` // at the peak, with spare ones
	Min      int     `json:"min"`   // limits of the scale set
	Max      int     `json:"max"`
	PerNode  int     `json:"viewersPerNode,omitempty"`
	CPU      float64 `json:"cpu"`       // of each node at the peak, 0 to 1
	Network  float64 `json:"network"`   // the same of its network
	LimitsBy string  `json:"limitedBy"` // cpu, network or memory
}

// Tree is how streams get to edges.
type Tree struct {
	EdgesPerStream int     `json:"edgesPerStream"`
	Depth          int     `json:"depth"`
	Mbit           float64 `json:"mbit"` // between nodes, at the peak
}

// Item is a line of a bill.
type Item struct {
	Name  string  `json:"name"`
	Price float64 `json:"price"`
}

// Make makes the plan. Its errors say what to change.
func Make(a Ask, f Figures, p *Prices) (*Plan, error) {
	if err := a.check(); err != nil {
		return nil, err
	}
	region, ok := p.Regions[a.Region]
	if !ok {
		return nil, fmt.Errorf("the price table has no region %q, only %s", a.Region, strings.Join(slices.Sorted(maps.Keys(p.Regions)), ", "))
	}
	sizes := slices.Sorted(maps.Keys(region.Machines))
	if a.Size != "" {
		if _, ok := region.Machines[a.Size]; !ok {
			return nil, fmt.Errorf("the price table has no machine %q in %s, only %s", a.Size, a.Region, strings.Join(sizes, ", "))
		}
		sizes = []string{a.Size}
	}
	small := smallest(region)
	var best *Plan
	var tooSmall error
	for _, size := range sizes {
		one, err := a.with(f, region, size, small)
		if err != nil {
			tooSmall = err
			continue
		}
		if best == nil || one.Total < best.Total {
			best = one
		}
	}
	if best == nil {
		return nil, tooSmall
	}
	best.Region, best.Currency, best.Prices = a.Region, p.Currency, p.Date
	return best, nil
}

func (a Ask) check() error {
	for _, c := range []struct {
		bad  bool
		text string
	}{
		{a.Viewers < 1 || a.Viewers > 1e8, "--viewers must be between 1 and 100000000"},
		{a.Streams < 1 || a.Streams > a.Viewers*10, "--streams must be at least 1, and not more than ten for each viewer"},
		{!(a.Bitrate >= 10e3 && a.Bitrate <= 200e6), "--bitrate must be between 10k and 200M"},
		{!(a.FPS >= 1 && a.FPS <= 240), "--fps must be between 1 and 240"},
		{!(a.Target >= 0.1 && a.Target <= 0.85), "--target must be between 0.1 and 0.85, above which a node is full"},
		{a.Fanout < 1 || a.Fanout > 100, "--fanout must be between 1 and 100"},
		{!(a.Stay >= 0.1 && a.Stay <= 1e5), "--stay must be between 6s and 69 days"},
		{!(a.Hours >= 0 && a.Hours <= hoursOfMonth), "--hours must be between 0 and 730, which is a whole month"},
		{a.Spare < 0 || a.Spare > 100, "--spare must be between 0 and 100"},
	} {
		if c.bad {
			return errors.New(c.text)
		}
	}
	return nil
}

// load is what one viewer, or one copy of a stream between nodes, takes.
type load struct {
	packets float64 // a second
	bytes   float64 // a second, with headers
	cpu     float64 // seconds of a processor in a second, for a viewer
	relay   float64 // for a copy, at one end
}

// viewer is the load of one: a frame goes out as one message, whose cost is one part for itself and one for each of its packets. The two parts
// are those on which the two measured cases lie.
func (a Ask) viewer(f Figures) load {
	big, small := benchFPS*benchBurst+soundRate, benchFPS+soundRate // packets a second of the two cases; both have as many messages as the second has packets
	perPacket := (f.PacketBig*big - f.PacketSmall*small) / (big - small)
	perMessage := f.PacketSmall - perPacket
	burst := math.Max(1, math.Ceil(a.Bitrate/8/a.FPS/payload))
	packets := a.FPS*burst + soundRate
	return load{
		packets: packets,
		bytes:   a.Bitrate/8 + soundRate*soundBytes + packets*overhead,
		cpu:     ((a.FPS+soundRate)*perMessage+packets*perPacket)/1e6 + f.Join/1e3/(a.Stay*60),
		relay:   packets * f.Relay / 1e6,
	}
}

// edges is how many edges of a size it takes, without spare ones, and what limits them. The more there are, the less each has of viewers and of
// streams.
func (a Ask) edges(f Figures, l load, m Machine) (n int, by string, err error) {
	over := func(n int) (by string, most float64) { // by how much the worst of the limits is exceeded, 1: just reached
		share, streams := float64(a.Viewers)/float64(n), a.streamsOn(n)
		for _, limit := range []struct {
			name  string
			value float64
		}{
			{"cpu", (share*l.cpu + streams*l.relay*(1+a.forwarded(n))) / (float64(m.Cores) * a.Target)},
			{"network", (share + streams*(1+a.forwarded(n))) * l.bytes * 8 / (m.Network * 1e6 * a.Target)},
			{"memory", share * f.Memory * 1024 / ((m.Memory*0.85 - memoryBase) * 1e9)},
		} {
			if limit.value > most {
				by, most = limit.name, limit.value
			}
		}
		return by, most
	}
	n = 1 + sort.Search(a.Viewers+a.Streams, func(i int) bool { _, most := over(i + 1); return most <= 1 })
	if n > a.Viewers+a.Streams {
		return 0, "", fmt.Errorf("%.4g Mbit/s is too much for a machine of %d cores and %.4g Mbit/s: name a larger --size", a.Bitrate/1e6, m.Cores, m.Network)
	}
	by, _ = over(n)
	return n, by, nil
}

// copies is on how many of n edges a stream is: on as few as its viewers fill.
func (a Ask) copies(n int) int { return min(n, (n+a.Streams-1)/a.Streams) }

// streamsOn is how many streams each of n edges has.
func (a Ask) streamsOn(n int) float64 {
	return math.Ceil(float64(a.Streams) * float64(a.copies(n)) / float64(n))
}

// forwarded is how often an edge passes a stream on, in the mean: the first edges of the tree get it of the origin, the others of edges.
func (a Ask) forwarded(n int) float64 {
	copies := a.copies(n)
	return float64(copies-min(a.Fanout, copies)) / float64(copies)
}

// depth is the length of the longest way from an origin to one of so many edges.
func (a Ask) depth(copies int) int {
	if a.Fanout == 1 {
		return copies
	}
	depth := 1
	for reached, row := a.Fanout, a.Fanout; reached < copies; depth++ {
		row *= a.Fanout
		reached += row
	}
	return depth
}

// with is the plan with edges of one size, and origins of another.
func (a Ask) with(f Figures, region Region, edge, small string) (*Plan, error) {
	l, m, o := a.viewer(f), region.Machines[edge], region.Machines[small]
	p := &Plan{}
	edges, by, err := a.edges(f, l, m)
	if err != nil {
		return nil, err
	}
	nodes := max(2, edges+a.Spare)
	share := float64(a.Viewers) / float64(nodes)
	streams := a.streamsOn(nodes) * (1 + a.forwarded(nodes))
	p.Edges = Group{Size: edge, Nodes: nodes, Min: 2, Max: max(3, int(math.Ceil(rise*float64(nodes)))), PerNode: int(math.Ceil(share)), LimitsBy: by,
		CPU: (share*l.cpu + streams*l.relay) / float64(m.Cores), Network: (share + streams) * l.bytes * 8 / (m.Network * 1e6)}

	// An origin takes the stream in, and gives it to its children.
	copies := a.copies(nodes)
	sent := float64(a.Streams) * (1 + float64(min(a.Fanout, copies)))
	cpu, network := sent*l.relay/float64(o.Cores), sent*l.bytes*8/(o.Network*1e6) // of one origin
	by = "cpu"
	if network > cpu {
		by = "network"
	}
	origins := max(2, int(math.Ceil(max(cpu, network)/a.Target))+a.Spare)
	p.Origins = Group{Size: small, Nodes: origins, Min: 2, Max: max(3, int(math.Ceil(rise*float64(origins)))), LimitsBy: by,
		CPU: cpu / float64(origins), Network: network / float64(origins)}

	p.Tree = Tree{EdgesPerStream: copies, Depth: a.depth(copies), Mbit: float64(a.Streams*copies) * l.bytes * 8 / 1e6}
	p.Egress = float64(a.Viewers) * l.bytes * 8 / 1e6
	p.EgressGB = p.Egress * 1e6 / 8 * 3600 * a.Hours / 1e9
	a.price(p, region)
	return p, nil
}

// price adds what it costs.
func (a Ask) price(p *Plan, r Region) {
	month := func(name string, hour float64) {
		p.Items = append(p.Items, Item{name, hour * hoursOfMonth})
		p.Idle += hour * hoursOfMonth
	}
	edge, origin := r.Machines[p.Edges.Size].Hour+r.Hourly["public-address"], r.Machines[p.Origins.Size].Hour+r.Hourly["public-address"]
	month(fmt.Sprintf("%d edges", p.Edges.Min), float64(p.Edges.Min)*edge)
	month(fmt.Sprintf("%d origins", p.Origins.Min), float64(p.Origins.Min)*origin)
	if a.Gateway == "sluice" {
		month("load balancer and 2 gateways", r.Hourly["load-balancer"]+r.Hourly["public-address"]+2*r.Machines[smallest(r)].Hour)
	} else {
		month("application gateway", r.Hourly["application-gateway"]+r.Hourly["public-address"])
	}
	if a.Store == "cosmos" {
		month("Cosmos DB", r.Hourly["cosmos"])
	} else {
		month("registry, its disk and backup", r.Machines[smallest(r)].Hour+r.Hourly["registry-disk-and-backup"])
	}
	month("NAT gateway", r.Hourly["nat-gateway"]+r.Hourly["public-address"])
	p.Machines = a.Hours * (float64(p.Edges.Nodes-p.Edges.Min)*edge + float64(p.Origins.Nodes-p.Origins.Min)*origin)
	p.Traffic = r.egress(p.EgressGB)
	p.Total = p.Idle + p.Machines + p.Traffic
	if a.Hours > 0 {
		p.ByThousand = (p.Machines + p.Traffic) / a.Hours / float64(a.Viewers) * 1000
	}
}

// smallest is the cheapest machine with two processors or more.
func smallest(r Region) string {
	names := slices.Sorted(maps.Keys(r.Machines))
	return slices.MinFunc(names, func(x, y string) int {
		a, b := r.Machines[x], r.Machines[y]
		if (a.Cores < gatewayCores) != (b.Cores < gatewayCores) {
			return cmp.Compare(b.Cores, a.Cores)
		}
		return cmp.Or(cmp.Compare(a.Hour, b.Hour), strings.Compare(x, y))
	})
}

// ParseBitrate reads 2500k, 2.5M or 2500000.
func ParseBitrate(s string) (float64, error) {
	number, unit := s, 1.0
	for suffix, n := range map[string]float64{"k": 1e3, "M": 1e6} {
		if rest, ok := strings.CutSuffix(s, suffix); ok {
			number, unit = rest, n
		}
	}
	x, err := strconv.ParseFloat(number, 64)
	if err != nil || !(x > 0) || math.IsInf(x, 0) {
		return 0, fmt.Errorf("%q is not a bit rate such as 2500k or 2.5M", s)
	}
	return x * unit, nil
}
