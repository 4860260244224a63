package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

// process is one of the cluster's, in its host's namespace.
type process struct {
	name    string
	host    host
	program string
	args    []string
	log     string // path

	mu   sync.Mutex
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
	want bool          // it must run: an end is a death that nobody asked for
	died int           // such deaths
}

// start runs the program. The network namespace is entered by ip, which then becomes the program: they have one process number.
func (p *process) start() error {
	log, err := os.OpenFile(p.log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close() // the process has its own handle
	cmd := exec.Command("ip", append([]string{"netns", "exec", p.host.namespace, p.program}, p.args...)...)
	cmd.Env, cmd.Dir = []string{}, "/" // no settings from there
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	began := make(chan error, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // Pdeathsig goes by the thread that started it
		err := cmd.Start()
		p.mu.Lock()
		p.cmd, p.done, p.want = cmd, done, err == nil
		p.mu.Unlock()
		began <- err
		if err == nil {
			_ = cmd.Wait() // how it ended is in its log
			p.mu.Lock()
			if p.want {
				p.died++
			}
			p.mu.Unlock()
		}
	}()
	return <-began
}

// signal sends a signal. Of one that ends it, deaths says nothing.
func (p *process) signal(s syscall.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s == syscall.SIGKILL || s == syscall.SIGTERM {
		p.want = false
	}
	return p.cmd.Process.Signal(s)
}

// kill ends it without a word, and waits until it is gone.
func (p *process) kill() error {
	if p == nil || p.cmd == nil {
		return nil
	}
	err := p.signal(syscall.SIGKILL)
	<-p.done
	return err
}

// stop ends it as an operator does; it returns when it is gone.
func (p *process) stop(within time.Duration) error {
	if err := p.signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-p.done:
		return nil
	case <-time.After(within):
		_ = p.signal(syscall.SIGKILL)
		<-p.done
		return fmt.Errorf("%s did not end within %s of SIGTERM", p.name, within)
	}
}

// deaths is how often it ended by itself.
func (p *process) deaths() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.died
}

// line is a line of a process's log.
type line struct {
	Time   time.Time
	Msg    string
	Stream string
	From   string
}

// said are the lines of a log since a moment that have one of these messages.
func (p *process) said(since time.Time, messages ...string) []line {
	f, err := os.Open(p.log)
	if err != nil {
		return nil
	}
	defer f.Close()
	var found []line
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		var l line
		if json.Unmarshal(lines.Bytes(), &l) != nil || l.Time.Before(since) {
			continue
		}
		for _, m := range messages {
			if strings.Contains(l.Msg, m) {
				found = append(found, l)
				break
			}
		}
	}
	return found
}

// get asks a node by HTTP.
func get(ctx context.Context, h host, path string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+h.address()+":5080"+path, nil)
	if err != nil {
		return err
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 500)) // for the message
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s%s: %s: %s", h.name, path, resp.Status, body)
	}
	return nil
}

// serve is a node's command line.
func serve(binary string, h host, role, store, dir string, more ...string) *process {
	at := h.address()
	args := append([]string{"serve", "--role=" + role, "--id=" + h.name, "--store=" + store, "--http=" + at + ":5080", "--media=" + at + ":50000", "--relay=" + at + ":5000",
		"--trusted-proxies=" + gateways.String(), "--limits-cpu=1", "--limits-memory=1", "--log-format=json"}, more...)
	return &process{name: h.name, host: h, program: binary, args: args, log: filepath.Join(dir, h.name+".log")}
}

func frontDoor(binary string, h host, store, dir string) *process {
	return &process{name: h.name, host: h, program: binary, log: filepath.Join(dir, h.name+".log"), args: []string{"gateway", "--store=" + store, "--publish=:443", "--play=:5443", "--redirect=",
		"--certificate=" + filepath.Join(dir, certFile), "--key=" + filepath.Join(dir, keyFile), "--log-format=json"}}
}
