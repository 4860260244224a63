package cluster

import (
	"cmp"
	"slices"
)

// Parent is a node that is asked for a stream which it has.
type Parent struct {
	ID, Region string
	Fanout     int  // children of one stream, at most
	Root       bool // the stream is published here
	Busy       bool // near its limits or draining: others go first
}

// Child is a node that takes the stream from the Parent.
type Child struct {
	ID, Region string
	Below      int      // nodes that take the stream through it
	Regions    []string // where those are
	Busy       bool     // it takes no children, but may know others that do
	Gone       bool     // it gives no sign of life: its place is free
}

// Asker is a node that wants the stream.
type Asker struct {
	ID, Region string
	Avoid      []string // nodes that it has just lost, or that refused it
}

// Verdict is a Parent's answer. Neither accepted nor sent on: refused.
type Verdict struct {
	Accept bool
	To     string // id of the child to ask instead
}

// Admit decides who gives a stream to a node, so that streams spread over a tree: no node has more than Fanout children, and a
// stream crosses to another region as seldom as can be. Whoever was asked decides by
// what it knows itself, without the registry.
func Admit(self Parent, children []Child, asker Asker) Verdict {
	taken := 0
	var best *Child
	for i := range children {
		c := &children[i]
		if c.ID == asker.ID || c.Gone { // it comes anew, and its place becomes free; or it is dead, and will leave
			continue
		}
		taken++
		if c.Busy && c.Below == 0 || slices.Contains(asker.Avoid, c.ID) {
			continue
		}
		if best == nil || compareChildren(c, best, asker.Region) < 0 {
			best = c
		}
	}
	switch room := taken < self.Fanout; {
	case best != nil && asker.Region != self.Region && distance(best, asker.Region) < elsewhere:
		return Verdict{To: best.ID}
	case room && !self.Busy, room && self.Root && best == nil:
		return Verdict{Accept: true}
	case best != nil:
		return Verdict{To: best.ID}
	}
	return Verdict{}
}

// How far a region is from a child.
const (
	here = iota
	below
	elsewhere
)

func distance(c *Child, region string) int {
	switch {
	case c.Region == region:
		return here
	case slices.Contains(c.Regions, region):
		return below
	}
	return elsewhere
}

// compareChildren is negative when a is the better one to ask.
func compareChildren(a, b *Child, region string) int {
	idle := func(c *Child) int {
		if c.Busy {
			return 1
		}
		return 0
	}
	return cmp.Or(
		cmp.Compare(distance(a, region), distance(b, region)),
		cmp.Compare(idle(a), idle(b)),
		cmp.Compare(a.Below, b.Below),
		cmp.Compare(a.ID, b.ID),
	)
}
