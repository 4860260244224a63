package cluster

import (
	"fmt"
	"slices"
	"testing"
)

func TestAdmit(t *testing.T) {
	self := Parent{ID: "p", Region: "a", Fanout: 2}
	busy := func(p Parent) Parent { p.Busy = true; return p }
	root := func(p Parent) Parent { p.Root = true; return p }
	for _, c := range []struct {
		name     string
		self     Parent
		children []Child
		asker    Asker
		want     Verdict
	}{
		{"room", self, []Child{{ID: "x", Region: "a"}}, Asker{ID: "n", Region: "a"}, Verdict{Accept: true}},
		{"full: to the one with the least below", self, []Child{{ID: "x", Region: "a", Below: 2}, {ID: "y", Region: "a", Below: 1}}, Asker{ID: "n", Region: "a"}, Verdict{To: "y"}},
		{"full: to the asker's region", self, []Child{{ID: "x", Region: "a"}, {ID: "y", Region: "b", Below: 9}}, Asker{ID: "n", Region: "b"}, Verdict{To: "y"}},
		{"full: to where the asker's region is below", self, []Child{{ID: "x"}, {ID: "y", Below: 9, Regions: []string{"b"}}}, Asker{ID: "n", Region: "b"}, Verdict{To: "y"}},
		{"full: to any where nobody is of the region", self, []Child{{ID: "x", Below: 1}, {ID: "y"}}, Asker{ID: "n", Region: "c"}, Verdict{To: "y"}},
		{"room, but another region has its own", self, []Child{{ID: "y", Region: "b"}}, Asker{ID: "n", Region: "b"}, Verdict{To: "y"}},
		{"room, and the first of another region", self, []Child{{ID: "x", Region: "a"}}, Asker{ID: "n", Region: "b"}, Verdict{Accept: true}},
		{"room, and its region's is to be avoided", self, []Child{{ID: "y", Region: "b"}}, Asker{ID: "n", Region: "b", Avoid: []string{"y"}}, Verdict{Accept: true}},
		{"of one's own region nobody is sent on while there is room", self, []Child{{ID: "x", Region: "a"}}, Asker{ID: "n", Region: "a"}, Verdict{Accept: true}},
		{"never to one to avoid", self, []Child{{ID: "x"}, {ID: "y", Below: 5}}, Asker{ID: "n", Avoid: []string{"x"}}, Verdict{To: "y"}},
		{"all are to be avoided", self, []Child{{ID: "x"}, {ID: "y"}}, Asker{ID: "n", Avoid: []string{"x", "y"}}, Verdict{}},
		{"a child that comes anew takes its own place", self, []Child{{ID: "x"}, {ID: "n"}}, Asker{ID: "n", Region: "a"}, Verdict{Accept: true}},
		{"a child is not sent to itself", self, []Child{{ID: "x", Below: 3}, {ID: "y", Below: 3}, {ID: "n"}}, Asker{ID: "n"}, Verdict{To: "x"}},
		{"the place of one that is gone", self, []Child{{ID: "x"}, {ID: "y", Gone: true}}, Asker{ID: "n", Region: "a", Avoid: []string{"y"}}, Verdict{Accept: true}},
		{"not to a busy child", self, []Child{{ID: "x", Busy: true}, {ID: "y", Below: 7}}, Asker{ID: "n"}, Verdict{To: "y"}},
		{"to a busy child that knows others, at worst", self, []Child{{ID: "x", Busy: true, Below: 1}, {ID: "y", Busy: true}}, Asker{ID: "n"}, Verdict{To: "x"}},
		{"a busy node sends on although it has room", busy(self), []Child{{ID: "x"}}, Asker{ID: "n"}, Verdict{To: "x"}},
		{"a busy node without children refuses", busy(self), nil, Asker{ID: "n"}, Verdict{}},
		{"but nobody else has what is published here", busy(root(self)), nil, Asker{ID: "n"}, Verdict{Accept: true}},
		{"a full one refuses whom it can't send on", root(self), []Child{{ID: "x", Busy: true}, {ID: "y", Busy: true}}, Asker{ID: "n"}, Verdict{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := Admit(c.self, c.children, c.asker); got != c.want {
				t.Errorf("%+v, want %+v", got, c.want)
			}
		})
	}
}

// A thousand nodes of three regions come one after the other and follow what they are told.
func TestTreeOfAThousand(t *testing.T) {
	const n, fanout = 1000, 4
	region := func(i int) string { return fmt.Sprint("r", i%3) }
	children := map[string][]string{} // by id
	where := map[string]string{"origin": region(0)}
	below := func(id string) (count int, regions []string) {
		todo := slices.Clone(children[id])
		for len(todo) > 0 {
			c := todo[0]
			todo = append(todo[1:], children[c]...)
			count++
			if !slices.Contains(regions, where[c]) {
				regions = append(regions, where[c])
			}
		}
		return count, regions
	}
	deepest, crossed := 0, 0
	for i := range n {
		asker := Asker{ID: fmt.Sprint("n", i), Region: region(i)}
		at := "origin"
		for depth := 1; ; depth++ {
			var of []Child
			for _, id := range children[at] {
				count, regions := below(id)
				of = append(of, Child{ID: id, Region: where[id], Below: count, Regions: regions})
			}
			v := Admit(Parent{ID: at, Region: where[at], Fanout: fanout, Root: at == "origin"}, of, asker)
			if v.Accept {
				children[at] = append(children[at], asker.ID)
				where[asker.ID] = asker.Region
				deepest = max(deepest, depth)
				if where[at] != asker.Region {
					crossed++
				}
				break
			}
			if v.To == "" {
				t.Fatalf("node %d was refused by %s", i, at)
			}
			at = v.To
		}
	}
	for id, of := range children {
		if len(of) > fanout {
			t.Errorf("%s has %d children", id, len(of))
		}
	}
	// A full tree of 4 holds 1,364 in 5 levels; three of regions lie under one another here.
	if deepest > 8 || crossed > 6 {
		t.Errorf("%d levels, %d links between regions", deepest, crossed)
	}
}
