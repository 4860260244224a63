package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"sluice/load/crowd"
)

// server is a process that is measured.
type server struct {
	publish, play string
	signal        crowd.Signal // nil: WHEP
	cmd           *exec.Cmd
}

const (
	startWithin = 20 * time.Second
	stopWithin  = 5 * time.Second
	settle      = 2 * time.Second // between publisher and viewers, as the load tool waits
)

func crowdOverhead(s scenario) time.Duration {
	return settle + s.warm + time.Duration(float64(s.viewers)/s.rate*float64(time.Second)) + time.Second
}

// measureServer starts a server of its own for a case, and loads it.
func measureServer(ctx context.Context, s scenario, d time.Duration, start func(ctx context.Context, dir string) (*server, error)) (f map[string]float64, warning string, err error) {
	dir, err := os.MkdirTemp("", "sluice-bench-")
	if err != nil {
		return nil, "", err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	life, end := context.WithCancel(ctx)
	x, err := start(life, dir)
	if err != nil {
		end()
		return nil, "", err
	}
	defer func() {
		end()
		_ = x.cmd.Wait() // a signal has ended it
	}()
	report, err := crowd.Run(ctx, crowd.Config{Publish: x.publish, Play: x.play, Signal: x.signal, Streams: 1, Viewers: s.viewers, Rate: s.rate, Warm: s.warm, For: d,
		Connections: 32, Bitrate: s.bitrate, FPS: frameRate, GOP: 2 * time.Second, Audio: true, PIDs: []int{x.cmd.Process.Pid}})
	if err != nil {
		return nil, "", err
	}
	if report.Figures["up"] < 99 {
		return nil, "", fmt.Errorf("only %.0f %% of the viewers see a picture: %v", report.Figures["up"], report.Failures)
	}
	return report.Figures, report.Warning, nil
}

// command prepares a process that gets SIGTERM when ctx ends.
func command(ctx context.Context, dir, binary string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Dir = dir
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = stopWithin
	return cmd
}

// startOurs starts a standalone node and waits until it says where it listens. An adaptive one has a ladder, of which nobody watches anything but the
// picture as it is published.
func startOurs(ctx context.Context, binary, dir string, adaptive bool) (*server, error) {
	args := []string{"serve", "--role=standalone", "--store=sqlite:" + filepath.Join(dir, "s.db"), "--http=127.0.0.1:0", "--media=127.0.0.1:0", "--relay=127.0.0.1:0",
		"--limits-cpu=1", "--drain-deadline=1s", "--log-format=json"}
	if adaptive {
		args = append(args, "--ladder-rungs=240p:100k", "--ladder-on-demand")
	}
	cmd := command(ctx, dir, binary, args...)
	cmd.Env = []string{} // no settings from there
	log, err := cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	late := time.AfterFunc(startWithin, func() { _ = cmd.Process.Kill() })
	lines := bufio.NewScanner(log)
	last := ""
	for lines.Scan() {
		var line struct{ HTTP string }
		if last = lines.Text(); json.Unmarshal(lines.Bytes(), &line) == nil && line.HTTP != "" {
			late.Stop()
			go func() { _, _ = io.Copy(io.Discard, log) }() // ends with the process
			return &server{publish: "http://" + line.HTTP + "/live/whip/bench", play: "http://" + line.HTTP + "/live/whep/bench", cmd: cmd}, nil
		}
	}
	late.Stop()
	return nil, errors.Join(fmt.Errorf("%s did not start: %s", binary, last), cmd.Wait())
}

// output runs a command that ends by itself.
func output(ctx context.Context, binary string, args ...string) (string, error) {
	b, err := exec.CommandContext(ctx, binary, args...).Output()
	return strings.TrimSpace(string(b)), err
}

// freePorts returns the first of n ports in a row that were free a moment ago, of TCP for one, else of UDP.
func freePorts(n int) (int, error) {
	if n == 1 {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			return 0, err
		}
		defer l.Close()
		return l.Addr().(*net.TCPAddr).Port, nil
	}
	for range 100 {
		first, err := udpPorts(n)
		if err == nil {
			return first, nil
		}
	}
	return 0, fmt.Errorf("no %d ports in a row are free", n)
}

func udpPorts(n int) (first int, err error) {
	for i := range n {
		port := 0
		if i > 0 {
			port = first + i
		}
		c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(loopback(), uint16(port))))
		if err != nil {
			return 0, err
		}
		defer c.Close()
		if i == 0 {
			first = c.LocalAddr().(*net.UDPAddr).Port
		}
	}
	if first+n > 1<<16 {
		return 0, errors.New("no room above")
	}
	return first, nil
}
