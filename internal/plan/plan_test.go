package plan

import (
	"encoding/json"
	"math"
	"os"
	"strings"
	"testing"
)

// ask is a plan for one stream of 2.5 Mbit/s.
func ask(viewers int) Ask {
	return Ask{Viewers: viewers, Streams: 1, Bitrate: 2.5e6, FPS: 30, Target: 0.6, Fanout: 16, Stay: 30, Hours: 60, Spare: 1, Region: "here", Gateway: "sluice", Store: "mongodb"}
}

// table has round prices: a core costs 1 an hour.
const table = `
currency: EUR
date: 2026-01-01
regions:
  here:
    machines:
      two: {cores: 2, memory: 8, network: 10000, hour: 2}
      eight: {cores: 8, memory: 32, network: 10000, hour: 8}
    egress: [{gb: 100, price: 0}, {gb: 1100, price: 1}, {price: 0.5}]
    hourly: {application-gateway: 1, load-balancer: 1, nat-gateway: 1, public-address: 0, registry-disk-and-backup: 0, cosmos: 3}
`

func prices(t *testing.T) *Prices {
	t.Helper()
	p, err := ParsePrices([]byte(table))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestFiguresAreMeasured: the figures are those of docs/bench.json.
func TestFiguresAreMeasured(t *testing.T) {
	src, err := os.ReadFile("../../docs/bench.json")
	if err != nil {
		t.Fatal(err)
	}
	var bench struct {
		Rows []struct {
			Name   string
			Values map[string][]struct{ Median float64 }
		}
	}
	if err := json.Unmarshal(src, &bench); err != nil {
		t.Fatal(err)
	}
	f := Measured()
	for name, got := range map[string]float64{
		"CPU per packet, 150 viewers, µs": f.PacketBig, "CPU per packet, 200 at 300 kbit/s, µs": f.PacketSmall,
		"CPU per join (200), ms": f.Join, "memory per viewer (150), KiB": f.Memory,
	} {
		found := false
		for _, r := range bench.Rows {
			if r.Name == name {
				found = true
				if m := r.Values["ours"][0].Median; math.Abs(got-m) > 0.02*m {
					t.Errorf("%s: the plan goes by %v, docs/bench.json has %v", name, got, m)
				}
			}
		}
		if !found {
			t.Errorf("docs/bench.json has no %q", name)
		}
	}
}

// TestViewer: the model gives back the cases that it is made of.
func TestViewer(t *testing.T) {
	f := Measured()
	f.Join = 0
	for _, tc := range []struct {
		name             string
		bitrate          float64
		packets, perPack float64
	}{{"frames of nine packets", 2.5e6, 320, f.PacketBig}, {"frames of one packet", 280e3, 80, f.PacketSmall}} {
		a := ask(1)
		a.Bitrate = tc.bitrate
		l := a.viewer(f)
		if l.packets != tc.packets || math.Abs(l.cpu*1e6-tc.packets*tc.perPack) > 1 {
			t.Errorf("%s: %v packets a second that cost %.1f µs, want %v of %.2f µs each", tc.name, l.packets, l.cpu*1e6, tc.packets, tc.perPack)
		}
	}
}

func TestMake(t *testing.T) {
	for _, tc := range []struct {
		name string
		with func(*Ask)
		want func(*Plan) string // what is wrong, "": nothing
	}{
		{"a few viewers take the least machines", func(a *Ask) { a.Viewers = 3 }, func(p *Plan) string {
			return must(p.Edges.Nodes == 2 && p.Origins.Nodes == 2 && p.Edges.Min == 2 && p.Edges.Max == 3 && p.Tree.Depth == 1, "least")
		}},
		{"many", func(a *Ask) {}, func(p *Plan) string {
			// 320 packets × 2.68 µs + 1.8 ms in half an hour: 859 µs a second; two cores at 60 % carry 1,396 viewers less one relay.
			return must(p.Edges.Size == "two" && p.Edges.Nodes == 73 && p.Edges.LimitsBy == "cpu" && p.Edges.CPU < 0.6 && p.Tree.EdgesPerStream == 73 && p.Tree.Depth == 2, "73 edges of two cores")
		}},
		{"the network ends first", func(a *Ask) { a.Size = "eight" }, func(p *Plan) string {
			return must(p.Edges.LimitsBy == "network" && p.Edges.Network < 0.6 && p.Edges.CPU < 0.6, "10 Gbit/s for eight cores")
		}},
		{"a fanout of one is a chain", func(a *Ask) { a.Fanout = 1 }, func(p *Plan) string { return must(p.Tree.Depth == p.Tree.EdgesPerStream, "chain") }},
		{"as many streams as viewers", func(a *Ask) { a.Viewers, a.Streams = 2000, 2000 }, func(p *Plan) string {
			return must(p.Tree.EdgesPerStream == 1 && p.Origins.Nodes > 2 && p.Edges.CPU <= 0.6 && p.Origins.CPU <= 0.6, "relaying costs, nobody is above the target")
		}},
		{"more viewers, more of everything", func(a *Ask) { a.Viewers *= 2 }, func(p *Plan) string {
			return must(p.Edges.Nodes > 140 && p.Edges.Nodes < 150 && p.Edges.Max >= 180, "about twice")
		}},
		{"a ladder's smallest rung", func(a *Ask) { a.Bitrate = 300e3 }, func(p *Plan) string {
			return must(p.Edges.Nodes < 73 && p.Edges.Nodes > 40, "a packet of a small frame costs more")
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a := ask(100_000)
			tc.with(&a)
			p, err := Make(a, Measured(), prices(t))
			if err != nil {
				t.Fatal(err)
			}
			if wrong := tc.want(p); wrong != "" {
				t.Errorf("want: %s; got %+v", wrong, *p)
			}
		})
	}
}

func must(ok bool, what string) string {
	if ok {
		return ""
	}
	return what
}

func TestMoney(t *testing.T) {
	a := ask(100)
	a.Hours = 10
	p, err := Make(a, Measured(), prices(t))
	if err != nil {
		t.Fatal(err)
	}
	// 2 edges, 2 origins, 2 gateways, the registry: 7 machines of 2 an hour; balancer and NAT 1 each.
	if want := (7*2 + 2) * 730.0; p.Idle != want || p.Machines != 0 {
		t.Errorf("idle %v, want %v; machines %v", p.Idle, want, p.Machines)
	}
	gb := p.Egress * 1e6 / 8 * 36000 / 1e9 // 100 viewers of 2.7 Mbit/s in ten hours: 1,213 GB
	if want := 1000 + 0.5*(gb-1100); math.Abs(p.Traffic-want) > 0.01 || gb < 1150 || gb > 1300 {
		t.Errorf("%v GB cost %v, want %v", gb, p.Traffic, want)
	}
	if want := p.Traffic / 10 / 100 * 1000; math.Abs(p.ByThousand-want) > 0.01 || p.Total != p.Idle+p.Traffic {
		t.Errorf("1,000 viewers cost %v an hour, want %v; all %v", p.ByThousand, want, p.Total)
	}
	a.Store, a.Gateway, a.Hours = "cosmos", "application-gateway", 0
	if p, err = Make(a, Measured(), prices(t)); err != nil || p.Idle != (4*2+1+3+1)*730 || p.Traffic != 0 || p.ByThousand != 0 {
		t.Errorf("with Azure's own: %+v, %v", p, err)
	}
}

func TestNonsense(t *testing.T) {
	for _, tc := range []struct {
		name string
		with func(*Ask)
		err  string
	}{
		{"nobody", func(a *Ask) { a.Viewers = 0 }, "--viewers must be"},
		{"everybody", func(a *Ask) { a.Viewers = 1e9 }, "--viewers must be"},
		{"no streams", func(a *Ask) { a.Streams = 0 }, "--streams must be"},
		{"no picture", func(a *Ask) { a.Bitrate = 0 }, "--bitrate must be"},
		{"no number", func(a *Ask) { a.Bitrate = math.NaN() }, "--bitrate must be"},
		{"no pictures", func(a *Ask) { a.FPS = 0 }, "--fps must be"},
		{"all of a node", func(a *Ask) { a.Target = 1 }, "--target must be"},
		{"a long month", func(a *Ask) { a.Hours = 731 }, "--hours must be"},
		{"nobody stays", func(a *Ask) { a.Stay = 0 }, "--stay must be"},
		{"mars", func(a *Ask) { a.Region = "mars" }, `the price table has no region "mars", only here`},
		{"no such machine", func(a *Ask) { a.Size = "huge" }, `the price table has no machine "huge" in here, only eight, two`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a := ask(10)
			tc.with(&a)
			if _, err := Make(a, Measured(), prices(t)); err == nil || !strings.HasPrefix(err.Error(), tc.err) {
				t.Errorf("got %v, want %s", err, tc.err)
			}
		})
	}
	slow := prices(t)
	slow.Regions["here"].Machines["two"], slow.Regions["here"].Machines["eight"] = Machine{1, 4, 1, 1}, Machine{1, 4, 1, 1}
	if _, err := Make(ask(10), Measured(), slow); err == nil || !strings.Contains(err.Error(), "is too much for a machine of 1 cores and 1 Mbit/s") {
		t.Errorf("a machine that can't carry one viewer: %v", err)
	}
}

func TestPrices(t *testing.T) {
	shipped, err := ParsePrices(Example)
	if err != nil || shipped.Date == "" || !strings.Contains(shipped.Source, "must be checked") {
		t.Fatalf("the table that ships: %+v, %v", shipped, err)
	}
	for name, r := range shipped.Regions {
		for size := range r.Machines {
			a := ask(5000)
			a.Region, a.Size = name, size
			if p, err := Make(a, Measured(), shipped); err != nil || p.Edges.Size != size {
				t.Errorf("%s in %s: %v", size, name, err)
			}
		}
	}
	for _, tc := range []struct{ name, old, new, err string }{
		{"not YAML", "regions:", "regions", "price table: "},
		{"unknown key", "network: 10000, hour: 2", "network: 10000, hours: 2", "unknown field"},
		{"no regions", "  here:", "  #", "price table: "},
		{"no cores", "{cores: 2", "{cores: 0", "region here: machine two needs cores"},
		{"tiers that fall", "gb: 1100", "gb: 10", "egress needs tiers"},
		{"no last tier", "{price: 0.5}", "{gb: 2000, price: 0.5}", "egress needs tiers"},
		{"a negative price", "price: 1}", "price: -1}", "egress needs tiers"},
		{"no price", ", cosmos: 3", "", "hourly needs a price for cosmos"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			src := strings.Replace(table, tc.old, tc.new, 1)
			if src == table {
				t.Fatal("nothing was changed")
			}
			if _, err := ParsePrices([]byte(src)); err == nil || !strings.Contains(err.Error(), tc.err) {
				t.Errorf("got %v, want %s", err, tc.err)
			}
		})
	}
}

func TestParseBitrate(t *testing.T) {
	for s, want := range map[string]float64{"2500k": 2.5e6, "2.5M": 2.5e6, "2500000": 2.5e6, "": 0, "k": 0, "-1k": 0, "1G": 0, "NaN": 0, "InfM": 0} {
		if got, err := ParseBitrate(s); got != want || (err == nil) != (want > 0) {
			t.Errorf("%q is %v, %v", s, got, err)
		}
	}
}
