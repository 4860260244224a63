package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sluice/cluster"
	"sluice/cluster/sqlite"
	"sluice/internal/config"
)

// asSluice makes this test binary behave as sluice: "real", or "fake" with small nodes and a small
// gateway, which register, answer and die as the real ones do, and carry no media.
const asSluice = "TEST_AS_SLUICE"

func TestMain(m *testing.M) {
	if os.Getenv(asSluice) == "" {
		os.Exit(m.Run())
	}
	flags := map[string]string{}
	for _, a := range os.Args[2:] {
		k, v, _ := strings.Cut(a, "=")
		flags[strings.TrimPrefix(k, "--")] = v
	}
	stop, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer cancel()
	var err error
	switch os.Getenv(asSluice) + " " + os.Args[1] {
	case "fake serve":
		err = fakeNode(stop, flags)
	case "fake gateway":
		err = fakeGateway(stop, flags)
	default:
		os.Exit(run(stop, os.Args[1:], config.Environ(), os.Stdin, os.Stdout, os.Stderr))
	}
	if err != nil {
		log.Fatal(err)
	}
}

// fakeNode registers until it is stopped. A role in TEST_BROKEN does not come up.
func fakeNode(ctx context.Context, flags map[string]string) error {
	if flags["role"] == os.Getenv("TEST_BROKEN") {
		return fmt.Errorf("no %s today", flags["role"])
	}
	reg, err := sqlite.Open(ctx, strings.TrimPrefix(flags["store"], "sqlite:"))
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", flags["http"])
	if err != nil {
		return err
	}
	describe := func() cluster.Node {
		return cluster.Node{Role: cluster.Role(flags["role"]), State: cluster.Ready, PID: os.Getpid(),
			HTTP: l.Addr().String(), Started: time.Now()}
	}
	return cluster.NewMember(reg, flags["id"], describe, newLog(os.Stderr, config.Log{})).Run(ctx)
}

func fakeGateway(ctx context.Context, flags map[string]string) error {
	cert, err := tls.LoadX509KeyPair(flags["certificate"], flags["key"])
	if err != nil {
		return err
	}
	for _, addr := range []string{flags["publish"], flags["play"]} {
		l, err := tls.Listen("tcp", addr, &tls.Config{Certificates: []tls.Certificate{cert}})
		if err != nil {
			return err
		}
		go func() { _ = http.Serve(l, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})) }()
	}
	<-ctx.Done()
	return nil
}

// output collects what a command writes; it is read while the command runs.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// eventually polls until lacks returns "", and else fails with what it last said.
func eventually(t *testing.T, lacks func() string) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		why := lacks()
		if why == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("still not: %s", why)
		}
		<-time.After(10 * time.Millisecond)
	}
}

// freePort returns a port that was free a moment ago.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// gone reports whether a process has ended, be it unburied.
func gone(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return syscall.Kill(pid, 0) != nil
	}
	_, after, _ := strings.Cut(string(stat), ") ") // proc(5): pid (comm) state …
	return strings.HasPrefix(after, "Z")
}
