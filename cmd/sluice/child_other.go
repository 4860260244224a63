//go:build !linux

package main

import "syscall"

// attributes leave the children in the group of the terminal, whose second Ctrl-C then
// reaches them as well.
func attributes() *syscall.SysProcAttr { return nil }
