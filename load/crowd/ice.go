package crowd

import (
	"crypto/rand"
	"net"
	"net/netip"

	"github.com/pion/stun/v4"
)

// A session is the controlling agent of RFC 8445 with one candidate of its own, that needs not be told: the server learns it
// from the first check. Every check nominates, as browsers do with servers that are ICE-lite.

const (
	hostPriority = 126<<24 | 65535<<8 | 255 // RFC 8445 §5.1.2.1
	tieBreaker   = "\xff\xff\xff\xff\xff\xff\xff\xff"
)

type attribute struct {
	kind  stun.AttrType
	value []byte
}

func (a attribute) AddTo(m *stun.Message) error {
	m.Add(a.kind, a.value)
	return nil
}

// makeCheck is a connectivity check (RFC 8445 §7.2.2).
func makeCheck(id [stun.TransactionIDSize]byte, ours, theirs credentials) ([]byte, error) {
	m, err := stun.Build(stun.BindingRequest, stun.NewTransactionIDSetter(id), stun.NewUsername(theirs.ufrag+":"+ours.ufrag),
		attribute{stun.AttrPriority, []byte{hostPriority >> 24, hostPriority >> 16 & 0xff, hostPriority >> 8 & 0xff, hostPriority & 0xff}},
		attribute{stun.AttrICEControlling, []byte(tieBreaker)}, attribute{stun.AttrUseCandidate, nil},
		stun.NewShortTermIntegrity(theirs.pwd), stun.Fingerprint)
	if err != nil {
		return nil, err
	}
	return m.Raw, nil
}

func newTransaction() (id [stun.TransactionIDSize]byte) {
	_, _ = rand.Read(id[:]) // never fails
	return id
}

// readSTUN reads a message. request: it is a check of the server's. Otherwise it is a response, and success tells of
// which kind. Nothing is believed without the integrity that the passwords give.
func readSTUN(b []byte, ours, theirs credentials) (id [stun.TransactionIDSize]byte, request, success, ok bool) {
	m := &stun.Message{Raw: b}
	if m.Decode() != nil {
		return id, false, false, false
	}
	switch m.Type {
	case stun.BindingRequest:
		return m.TransactionID, true, false, stun.NewShortTermIntegrity(ours.pwd).Check(m) == nil
	case stun.BindingSuccess:
		return m.TransactionID, false, true, stun.NewShortTermIntegrity(theirs.pwd).Check(m) == nil
	case stun.BindingError:
		return m.TransactionID, false, false, true
	}
	return id, false, false, false
}

// answerCheck is the response to a check of the server's (RFC 8445 §7.3).
func answerCheck(id [stun.TransactionIDSize]byte, from netip.AddrPort, ours credentials) ([]byte, error) {
	m, err := stun.Build(stun.NewTransactionIDSetter(id), stun.BindingSuccess,
		&stun.XORMappedAddress{IP: net.IP(from.Addr().AsSlice()), Port: int(from.Port())},
		stun.NewShortTermIntegrity(ours.pwd), stun.Fingerprint)
	if err != nil {
		return nil, err
	}
	return m.Raw, nil
}
