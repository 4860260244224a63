package plan

import (
	_ "embed"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
)

// Example is the price table that comes with Sluice.
//
//go:embed prices.yaml
var Example []byte

// Prices is a price table.
type Prices struct {
	Date     string            `yaml:"date"`
	Source   string            `yaml:"source"`
	Currency string            `yaml:"currency"`
	Regions  map[string]Region `yaml:"regions"`
}

// Region has the prices of one place.
type Region struct {
	Machines map[string]Machine `yaml:"machines"`
	Egress   []Tier             `yaml:"egress"`
	Hourly   map[string]float64 `yaml:"hourly"`
}

// Machine is a size of a machine.
type Machine struct {
	Cores   int     `yaml:"cores"`
	Memory  float64 `yaml:"memory"`  // GB
	Network float64 `yaml:"network"` // Mbit/s
	Hour    float64 `yaml:"hour"`
}

// Tier is the price of each GB up to an amount in a month; the last has none.
type Tier struct {
	GB    float64 `yaml:"gb"`
	Price float64 `yaml:"price"`
}

// hourly are the prices that a table must have beside those of machines.
var hourly = []string{"application-gateway", "load-balancer", "nat-gateway", "public-address", "registry-disk-and-backup", "cosmos"}

// ParsePrices reads a price table strictly.
func ParsePrices(src []byte) (*Prices, error) {
	var p Prices
	if err := yaml.UnmarshalWithOptions(src, &p, yaml.Strict()); err != nil {
		text, _, _ := strings.Cut(yaml.FormatError(err, false, false), "\n")
		return nil, fmt.Errorf("price table: %s", text)
	}
	if len(p.Regions) == 0 {
		return nil, errors.New("price table: it has no regions")
	}
	for _, name := range slices.Sorted(maps.Keys(p.Regions)) {
		if err := p.Regions[name].check(); err != nil {
			return nil, fmt.Errorf("price table: region %s: %w", name, err)
		}
	}
	return &p, nil
}

func (r Region) check() error {
	if len(r.Machines) == 0 {
		return errors.New("it has no machines")
	}
	for _, name := range slices.Sorted(maps.Keys(r.Machines)) {
		if m := r.Machines[name]; m.Cores < 1 || m.Cores > 1024 || !positive(m.Memory) || !positive(m.Network) || !(m.Hour >= 0) {
			return fmt.Errorf("machine %s needs cores, memory (GB), network (Mbit/s) and the price of an hour", name)
		}
	}
	if len(r.Egress) == 0 {
		return errors.New("it has no prices of egress")
	}
	for i, t := range r.Egress {
		last := i == len(r.Egress)-1
		if !(t.Price >= 0) || last && t.GB != 0 || !last && (!positive(t.GB) || i > 0 && t.GB <= r.Egress[i-1].GB) {
			return errors.New("egress needs tiers of more and more gb, and a last one without gb")
		}
	}
	for _, name := range hourly {
		if v, ok := r.Hourly[name]; !ok || !(v >= 0) {
			return fmt.Errorf("hourly needs a price for %s (0, if you have none)", name)
		}
	}
	return nil
}

func positive(x float64) bool { return x > 0 && x < 1e9 }

// egress is the price of so many GB in a month.
func (r Region) egress(gb float64) (price float64) {
	from := 0.0
	for _, t := range r.Egress {
		to := t.GB
		if to == 0 || to > gb {
			to = gb
		}
		price += max(0, to-from) * t.Price
		from = max(from, to)
	}
	return price
}
