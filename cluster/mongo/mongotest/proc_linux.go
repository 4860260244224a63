package mongotest

import "syscall"

// dieWithParent ends the server with a test that dies.
func dieWithParent() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
