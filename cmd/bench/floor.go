package main

import (
	"bufio"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"

	"sluice/internal/usage"
	"sluice/udp"
)

// The floor is the least that sending can cost: AES-128-GCM and sendmmsg of messages that the kernel cuts, paced in real time, to a child
// process with a socket and a blocked reader for each viewer. It has no sessions, no feedback, no history, no locks.

const (
	floorWarm    = time.Second
	floorPacket  = 1200 // bytes, with the RTP header, without the tag
	floorHeader  = 12
	floorTag     = 16
	floorBatch   = 64 // messages whose bytes wait for the system call; what udp.Batch takes at once
	floorBuffers = 4 << 20
)

// floorViewer is an address and a key.
type floorViewer struct {
	addr udp.Addr
	gcm  cipher.AEAD
	sent uint32
}

// floor is the sender.
type floor struct {
	viewers []*floorViewer
	batch   *udp.Batch
	buffers [floorBatch][]byte
	payload []byte
	packets int
}

// measureFloor sends a scenario's packets for a time; self is this program, which reads them, too.
func measureFloor(ctx context.Context, self string, s scenario, d time.Duration) (map[string]float64, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	child := exec.CommandContext(ctx, self, sinkCommand, strconv.Itoa(s.viewers))
	hold, err := child.StdinPipe() // its end tells the child to go
	if err != nil {
		return nil, err
	}
	out, err := child.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := child.Start(); err != nil {
		return nil, err
	}
	defer func() { _ = hold.Close(); _ = child.Wait() }()
	socket, err := udp.Listen(ctx, netip.AddrPortFrom(loopback(), 0), udp.Config{Buffers: floorBuffers})
	if err != nil {
		return nil, err
	}
	defer socket.Close()
	f, err := newFloor(socket, out, s.viewers)
	if err != nil {
		return nil, err
	}
	return f.run(ctx, s, d, child.Process.Pid)
}

func loopback() netip.Addr { return netip.AddrFrom4([4]byte{127, 0, 0, 1}) }

// newFloor reads the viewers' ports.
func newFloor(socket *udp.Socket, ports io.Reader, viewers int) (*floor, error) {
	f := &floor{batch: socket.NewBatch(), payload: make([]byte, floorPacket-floorHeader)}
	lines := bufio.NewScanner(ports)
	for range viewers {
		if !lines.Scan() {
			return nil, errors.New("the readers' process has ended: raise the limit with ulimit -n")
		}
		port, err := strconv.ParseUint(lines.Text(), 10, 16)
		if err != nil {
			return nil, err
		}
		key := make([]byte, 16)
		_, _ = rand.Read(key) // never fails
		block, err := aes.NewCipher(key)
		if err != nil {
			return nil, err
		}
		gcm, err := cipher.NewGCM(block)
		if err != nil {
			return nil, err
		}
		f.viewers = append(f.viewers, &floorViewer{addr: socket.MakeAddr(netip.AddrPortFrom(loopback(), uint16(port))), gcm: gcm})
	}
	return f, nil
}

// run warms up, and then measures the processor time of this process.
func (f *floor) run(ctx context.Context, s scenario, d time.Duration, child int) (map[string]float64, error) {
	begin := time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	var start floorLook
	for frame := 0; ; frame++ {
		due := begin.Add(time.Duration(frame) * time.Second / frameRate)
		timer.Reset(time.Until(due))
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-timer.C:
		}
		if start.at.IsZero() && due.Sub(begin) >= floorWarm {
			start = f.look(child)
		}
		if due.Sub(begin) >= floorWarm+d {
			break
		}
		if err := f.send(s.segments, floorPacket-floorHeader); err != nil {
			return nil, err
		}
		for range (frame+1)*soundRate/frameRate - frame*soundRate/frameRate {
			if err := f.send(1, soundSize); err != nil {
				return nil, err
			}
		}
	}
	end := f.look(child)
	if f.batch.Failed > 0 {
		return nil, fmt.Errorf("%d messages could not be sent", f.batch.Failed)
	}
	_, other := usage.Others(end.machine-start.machine, end.cpu-start.cpu, end.child-start.child)
	seconds, cpu, packets := end.at.Sub(start.at).Seconds(), end.cpu-start.cpu, float64(end.packets-start.packets)
	return map[string]float64{cpuPerPacket: cpu * 1e6 / packets, "packets_per_second": packets / seconds, "server_cores": cpu / seconds, "load_cores": (end.child - start.child) / seconds,
		otherCores: other / seconds}, nil
}

// floorLook is a moment.
type floorLook struct {
	at                  time.Time
	packets             int
	cpu, child, machine float64 // seconds
}

func (f *floor) look(child int) floorLook {
	readers, _ := usage.Of(child)
	machine, _ := usage.Machine()
	return floorLook{time.Now(), f.packets, usage.Own().CPU, readers.CPU, machine}
}

// send sends each viewer a message of n packets with payloads of a size.
func (f *floor) send(n, size int) error {
	at := 0
	for _, v := range f.viewers {
		if f.batch.Full() || at == floorBatch {
			if err := f.batch.Flush(); err != nil {
				return err
			}
			at = 0
		}
		out := f.buffers[at][:0]
		for range n {
			out = v.seal(out, f.payload[:size])
		}
		f.buffers[at] = out
		f.batch.Add(&v.addr, out, floorHeader+size+floorTag)
		f.packets += n
		at++
	}
	return f.batch.Flush()
}

// seal appends an SRTP packet. The nonce is the packet's number, as RFC 7714 §8.1 makes it of number and roll-overs.
func (v *floorViewer) seal(out, payload []byte) []byte {
	var nonce [12]byte
	v.sent++
	binary.BigEndian.PutUint32(nonce[8:], v.sent)
	header := [floorHeader]byte{0x80, 96, byte(v.sent >> 8), byte(v.sent)}
	from := len(out)
	out = append(out, header[:]...)
	return v.gcm.Seal(out, nonce[:], payload, out[from:from+floorHeader])
}

// sinkCommand is the argument by which this program becomes the floor's readers.
const sinkCommand = "sink"

// sink has a socket and a blocked reader for each viewer, until in ends.
func sink(ctx context.Context, viewers string, in io.Reader, out io.Writer) error {
	n, err := strconv.Atoi(viewers)
	if err != nil || n < 1 {
		return fmt.Errorf("%q viewers", viewers)
	}
	var readers sync.WaitGroup
	var sockets []*net.UDPConn
	defer func() {
		for _, c := range sockets {
			_ = c.Close()
		}
		readers.Wait()
	}()
	var ports strings.Builder
	for range n {
		c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(loopback(), 0)))
		if err != nil {
			return err
		}
		sockets = append(sockets, c)
		fmt.Fprintln(&ports, c.LocalAddr().(*net.UDPAddr).Port)
		readers.Go(func() {
			b := make([]byte, udp.MaxDatagram)
			for {
				if _, _, err := c.ReadFromUDPAddrPort(b); err != nil {
					return
				}
			}
		})
	}
	if _, err := io.WriteString(out, ports.String()); err != nil {
		return err
	}
	ended := make(chan struct{})
	go func() { // the process ends before it, when a signal comes first
		defer close(ended)
		_, _ = io.Copy(io.Discard, in)
	}()
	select {
	case <-ended:
	case <-ctx.Done():
	}
	return nil
}
