package main

import "syscall"

// attributes keep the terminal's Ctrl-C from the children, which are stopped in order, and
// end them with this process, however it ends (prctl(2), PR_SET_PDEATHSIG).
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
