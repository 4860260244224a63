//go:build race

package rig

// slower is how much more time may pass than without the race detector, beside which hundreds of handshakes are many times the work.
const slower = 4
