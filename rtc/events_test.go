package rtc

import (
	"sync/atomic"
	"testing"

	"sluice/media"
)

// OnClosed waits for the call before it, and is the last.
func TestEventsComeOneAtATime(t *testing.T) {
	e := listen(t)
	begun, proceed := make(chan struct{}), make(chan struct{})
	var connected, closed, late atomic.Bool
	gone := make(chan struct{})
	v, _, err := e.NewGroup([]media.Track{h264}, false).Offer(SenderOptions{Events: Events{
		OnConnected: func() { close(begun); <-proceed; connected.Store(true) },
		OnRestored:  func() { late.Store(closed.Load()) },
		OnClosed:    func(error) { closed.Store(true); close(gone) },
	}})
	if err != nil {
		t.Fatal(err)
	}
	here := make(chan struct{})
	go func() { defer close(here); v.tell(v.events.OnConnected) }()
	await(t, begun, "the first call")
	go func() { v.fail(ErrDisconnected) }()
	await(t, v.done, "the session's end")
	again := make(chan struct{})
	go func() { defer close(again); v.tell(v.events.OnRestored) }()
	if closed.Load() {
		t.Error("two calls at a time")
	}
	close(proceed)
	await(t, gone, "OnClosed")
	await(t, again, "the late call")
	await(t, here, "the first call's end")
	if !connected.Load() || late.Load() {
		t.Errorf("connected %v, a call after OnClosed %v", connected.Load(), late.Load())
	}
}
