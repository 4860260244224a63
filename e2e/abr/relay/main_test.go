package main

import (
	"bufio"
	"context"
	"io"
	"net"
	"testing"
	"time"
)

// What is sent to the relay comes to the target, later.
func TestRelayDelays(t *testing.T) {
	target, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer target.Close()
	ctx, cancel := context.WithCancel(t.Context())
	out, in := io.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, []string{target.LocalAddr().String(), "30ms"}, in) }()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("udp4", line[:len(line)-1])
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	begin := time.Now()
	if _, err := c.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	_ = target.SetReadDeadline(begin.Add(5 * time.Second))
	if _, _, err := target.ReadFromUDP(make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begin); took < 30*time.Millisecond {
		t.Errorf("it came after %v", took)
	}
	cancel()
	<-ended
}

func TestArguments(t *testing.T) {
	for _, args := range [][]string{nil, {"10.0.0.1:5"}, {"here", "5ms"}, {"10.0.0.1:5", "5"}, {"10.0.0.1:5", "-5ms"}} {
		if err := run(t.Context(), args, io.Discard); err == nil {
			t.Errorf("%q is taken", args)
		}
	}
}
