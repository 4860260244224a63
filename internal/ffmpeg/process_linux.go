package ffmpeg

import (
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// SocketPair is a pipe that keeps packets apart; reading from ours ends when it is closed.
func SocketPair() (ours, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	if err := unix.SetNonblock(fds[0], true); err != nil {
		unix.Close(fds[0])
		unix.Close(fds[1])
		return nil, nil, err
	}
	return os.NewFile(uintptr(fds[0]), "rtp"), os.NewFile(uintptr(fds[1]), "rtp"), nil
}

// ownGroup keeps the terminal's Ctrl-C from FFmpeg, that is ours to end, with all its children. It ends also
// with us, however we end (prctl(2), PR_SET_PDEATHSIG); that goes by the thread that starts it, see Start.
func ownGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
}
