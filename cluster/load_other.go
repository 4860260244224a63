//go:build !linux

package cluster

func cpuTicks() (busy, total uint64) { return 0, 0 }

func memoryInUse() float64 { return 0 }
