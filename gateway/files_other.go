//go:build !unix

package gateway

func maxFiles() uint64 { return 0 }
