package rtc

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/pion/stun/v4"

	"sluice/media"
)

// client is a socket of a peer that does only what a test tells it to.
type client struct {
	t *testing.T
	net.Conn
}

func newClient(t *testing.T, e *Endpoint) client {
	t.Helper()
	c, err := net.Dial("udp4", netip.AddrPortFrom(e.addrs[0], e.port).String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return client{t, c}
}

func (c client) addr() netip.AddrPort { return c.LocalAddr().(*net.UDPAddr).AddrPort() }

func (c client) say(b []byte) {
	c.t.Helper()
	if _, err := c.Write(b); err != nil {
		c.t.Fatal(err)
	}
}

// next is the next STUN message of a type.
func (c client) next(want stun.MessageType) *stun.Message {
	c.t.Helper()
	b := make([]byte, 1500)
	for {
		_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
		n, err := c.Read(b)
		if err != nil {
			c.t.Fatalf("no %v came: %v", want, err)
		}
		m := &stun.Message{Raw: b[:n]}
		if m.Decode() == nil && m.Type == want {
			return m
		}
	}
}

// answer is what a peer says to a check of ours.
func answer(t *testing.T, id [stun.TransactionIDSize]byte, pwd string) []byte {
	t.Helper()
	m, err := stun.Build(stun.NewTransactionIDSetter(id), stun.BindingSuccess, &stun.XORMappedAddress{IP: net.IPv4(127, 0, 0, 1), Port: 9},
		stun.NewShortTermIntegrity(pwd), stun.Fingerprint)
	if err != nil {
		t.Fatal(err)
	}
	return m.Raw
}

// connectedViewer is a session whose peer is at home.
func connectedViewer(t *testing.T, e *Endpoint, home client, k keys) *Sender {
	t.Helper()
	v, _, err := e.NewGroup([]media.Track{h264}, false).Offer(SenderOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.Close)
	v.mu.Lock()
	v.theirs = credentials{"abcd", "abcdefghijklmnopqrstuvwx"}
	v.mu.Unlock()
	home.say(rightCheck(t, &v.session, true))
	home.next(stun.BindingSuccess)
	if err := v.connected(k); err != nil {
		t.Fatal(err)
	}
	return v
}

func (s *session) where() netip.AddrPort {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.at.from
}

func someKeys() keys {
	p := profiles()[0]
	return splitKeys(p, make([]byte, p.material()), false)
}

// Media goes to another address only when that has answered a check of ours: the source of a check may be spoofed.
func TestAddressMustAnswer(t *testing.T) {
	e := listen(t)
	home, other := newClient(t, e), newClient(t, e)
	v := connectedViewer(t, e, home, someKeys())
	// settled waits until what was sent before has been handled.
	settled := func(c client) {
		t.Helper()
		c.say(rightCheck(t, &v.session, false))
		c.next(stun.BindingSuccess)
	}
	other.say(rightCheck(t, &v.session, true))
	asked := other.next(stun.BindingRequest)
	if err := stun.NewShortTermIntegrity(v.theirs.pwd).Check(asked); err != nil {
		t.Errorf("our check: %v", err)
	}
	if got := v.where(); got != home.addr() {
		t.Fatalf("a check alone moved the media to %v", got)
	}
	for name, b := range map[string][]byte{
		"another transaction": answer(t, stun.NewTransactionID(), v.theirs.pwd),
		"another password":    answer(t, asked.TransactionID, "anything but the password"),
		"our password":        answer(t, asked.TransactionID, v.ours.pwd),
		"cut short":           answer(t, asked.TransactionID, v.theirs.pwd)[:stunHeader],
	} {
		other.say(b)
		settled(other)
		if got := v.where(); got != home.addr() {
			t.Fatalf("an answer with %s moved the media", name)
		}
	}
	home.say(answer(t, asked.TransactionID, v.theirs.pwd))
	settled(home)
	if got := v.where(); got != home.addr() {
		t.Fatal("the answer from another address moved the media")
	}
	other.say(answer(t, asked.TransactionID, v.theirs.pwd))
	settled(other)
	if got := v.where(); got != other.addr() {
		t.Fatalf("media goes to %v, and %v has answered", got, other.addr())
	}
	home.say(rightCheck(t, &v.session, true)) // it has shown itself before
	settled(home)
	if got := v.where(); got != home.addr() {
		t.Errorf("media did not go back to %v", home.addr())
	}
}

// A check of ours that is lost is sent again, with the peer's next or without.
func TestAddressIsAskedAgain(t *testing.T) {
	e := listen(t)
	home, other := newClient(t, e), newClient(t, e)
	v := connectedViewer(t, e, home, someKeys())
	other.say(rightCheck(t, &v.session, true))
	first := other.next(stun.BindingRequest)
	if again := other.next(stun.BindingRequest); again.TransactionID != first.TransactionID {
		t.Error("it is another transaction")
	}
}

// Reports move nothing: a viewer has the keys to seal them, and could send them, and the check, with the address of somebody else.
func TestReportsProveNoAddress(t *testing.T) {
	e := listen(t)
	home, other := newClient(t, e), newClient(t, e)
	k := someKeys()
	v := connectedViewer(t, e, home, k)
	theirs, err := newSRTCP(k) // all keys are the same
	if err != nil {
		t.Fatal(err)
	}
	report := func() []byte {
		b, err := theirs.seal(nil, []byte{128, 201, 0, 1, 0, 0, 0, 9})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	other.say(rightCheck(t, &v.session, false))
	other.next(stun.BindingSuccess)
	other.say(report())
	other.say(rightCheck(t, &v.session, true))
	other.next(stun.BindingSuccess)
	other.say(report())
	other.say(rightCheck(t, &v.session, false))
	other.next(stun.BindingSuccess)
	if got := v.where(); got != home.addr() {
		t.Errorf("media goes to %v, not to %v", got, home.addr())
	}
}

// A session keeps its address from others' checks while its peer is heard there; a port that is used again goes on working.
func TestAddressIsKept(t *testing.T) {
	for _, c := range []struct {
		name  string
		then  func(h *host, v *Sender)
		taken bool
	}{
		{"the owner is there", func(*host, *Sender) {}, false},
		{"the owner is silent", func(h *host, _ *Sender) { silent(h) }, true},
		{"the owner has ended", func(_ *host, v *Sender) { v.Close() }, true},
		{"the owner was silent, and is back", func(h *host, v *Sender) {
			silent(h)
			arrival{host: h, from: v.where()}.heard(&v.session, time.Now())
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := listen(t)
			port := newClient(t, e)
			first := connectedViewer(t, e, port, someKeys())
			second, _, err := e.NewGroup([]media.Track{h264}, false).Offer(SenderOptions{})
			if err != nil {
				t.Fatal(err)
			}
			defer second.Close()
			c.then(e.hosts[0], first)
			here := arrival{host: e.hosts[0], from: port.addr()}
			e.hosts[0].receive(here, rightCheck(t, &second.session, true))
			want, loser := &first.session, second.where()
			if c.taken {
				want, loser = &second.session, netip.AddrPort{}
			}
			if here.owner() != want {
				t.Error("the address has the wrong owner")
			}
			if !c.taken && loser.IsValid() {
				t.Errorf("the other session sends to %v", loser)
			}
		})
	}
}
