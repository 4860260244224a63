package cluster

import (
	"cmp"
	"hash/fnv"
	"io"
	"math"

	"sluice/media"
)

// NearLimit is the share of CPU or memory above which a node gets new clients
// only when every other node is there too.
const NearLimit = 0.85

// cpuStep: loads that differ by less are equal, so that the number of viewers decides.
const cpuStep = 0.05

// PickEdge chooses the edge for a viewer of a stream: of the living, ready edges those
// that already have the stream, unless they are near their limit, else the least
// loaded. Nodes in avoid (ids) have just failed and are passed over. False: there is none.
func PickEdge(v View, key media.Key, avoid map[string]bool) (Node, bool) {
	return pick(v, Edge, key, avoid)
}

// PickOrigin chooses the origin for a publisher: the one that still has the stream, since
// its hub continues it for the viewers without a gap, else the least loaded.
func PickOrigin(v View, key media.Key, avoid map[string]bool) (Node, bool) {
	return pick(v, Origin, key, avoid)
}

func pick(v View, role Role, key media.Key, avoid map[string]bool) (best Node, found bool) {
	for _, n := range v.Nodes {
		if !n.Takes(role) || n.State != Ready || !n.Alive(v.At) || avoid[n.ID] {
			continue
		}
		if !found || compare(n, best, key) < 0 {
			best, found = n, true
		}
	}
	return best, found
}

// compare is negative when a is the better place for the stream.
func compare(a, b Node, key media.Key) int {
	return cmp.Or(
		cmp.Compare(tier(a, key), tier(b, key)),
		cmp.Compare(math.Floor(a.CPU/cpuStep), math.Floor(b.CPU/cpuStep)),
		cmp.Compare(a.Viewers(), b.Viewers()),
		cmp.Compare(spread(a.ID, key), spread(b.ID, key)),
		cmp.Compare(a.ID, b.ID),
	)
}

// tier is 0 for a node with room that has the stream, 1 for one with room, 2 near the limit.
func tier(n Node, key media.Key) int {
	switch {
	case n.CPU > NearLimit || n.Memory > NearLimit:
		return 2
	case n.Serves(key):
		return 0
	}
	return 1
}

// spread is a number that differs for each pair of node and stream, so that of idle
// nodes each gets its share of the streams.
func spread(id string, key media.Key) uint64 {
	h := fnv.New64a()
	_, _ = io.WriteString(h, id+" "+key.String())
	x := h.Sum64() // FNV's high bits hardly change with the last letter: mix them (splitmix64)
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
