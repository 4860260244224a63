//go:build unix

package gateway

import "syscall"

// maxFiles is how many files the process may have open; Go has raised the soft limit to the hard one.
func maxFiles() uint64 {
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) != nil {
		return 0
	}
	return uint64(limit.Cur) //nolint:unconvert // signed on FreeBSD
}
