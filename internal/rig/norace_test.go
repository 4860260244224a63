//go:build !race

package rig

const slower = 1
