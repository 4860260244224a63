//go:build !linux

package ffmpeg

import (
	"errors"
	"os"
	"os/exec"
)

// SocketPair is a pipe that keeps packets apart.
func SocketPair() (ours, theirs *os.File, err error) {
	return nil, nil, errors.New("encoding needs Linux, for its sockets that keep packets apart")
}

func ownGroup(*exec.Cmd) {}
