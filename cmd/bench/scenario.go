package main

import (
	"strings"
	"time"
)

// scenario is a case: a stream, and how many watch it.
type scenario struct {
	name, title string
	viewers     int
	bitrate     int     // bit/s of video
	rate        float64 // joins a second
	warm        time.Duration
	segments    int  // packets of a frame, as the floor sends them; 0: it has no part in the case
	line        bool // one of those that show how the cost grows
	adaptive    bool // ours only: viewers' paths are measured, and renditions chosen
}

// cases are in the order of the table. The floor's packets are those that a stream of that bitrate has.
func cases() []scenario {
	const warm = 3 * time.Second
	// A frame of 300 kbit/s would fill a packet and two bytes of the next; the floor has one packet.
	const thin = 299_000
	return []scenario{
		{"v50", "50 viewers at 2.5 Mbit/s", 50, 2_500_000, 100, warm, 9, false, false},
		{"v150", "150 viewers at 2.5 Mbit/s", 150, 2_500_000, 100, warm, 9, false, false},
		{"small", "200 viewers at 300 kbit/s", 200, thin, 100, warm, 1, false, false},
		{"join", "200 joins, a thin stream", 200, 50_000, 100, time.Second, 0, false, false}, // the shorter, the less of the stream's own cost,
		{"line50", "50 viewers at 300 kbit/s", 50, thin, 100, warm, 1, true, false},
		{"line300", "300 viewers at 300 kbit/s", 300, thin, 100, warm, 1, true, false},
		{"adapt300", "300 viewers at 300 kbit/s, adaptive", 300, thin, 100, 2 * warm, 0, true, true},
		{"line1000", "1,000 viewers at 300 kbit/s", 1000, thin, 200, warm, 1, true, false},
	}
}

func caseNames() string {
	var names []string
	for _, s := range cases() {
		names = append(names, s.name)
	}
	return strings.Join(names, ",")
}

// The stream is the same for all.
const (
	frameRate = 30 // frames a second
	soundRate = 50 // packets of sound a second
	soundSize = 160
)
