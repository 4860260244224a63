package rtc

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/pion/stun/v4"
)

// credentials are the ICE credentials of one side (RFC 8445 §5.3).
type credentials struct{ ufrag, pwd string }

// newCredentials makes our side's. The fragment is long enough to be unique on this node.
func newCredentials() credentials {
	return credentials{ufrag: rand.Text()[:16], pwd: rand.Text() + rand.Text()[:6]}
}

// check is a connectivity check of a peer (RFC 8445 §7.2) that has passed its integrity check.
type check struct {
	id       [stun.TransactionIDSize]byte
	nominate bool // USE-CANDIDATE
	conflict bool // the peer takes itself for controlled, which an ICE-lite side always is (RFC 8445 §7.3.1.1)
}

var errNotOurs = errors.New("not a check for this session")

// readCheck reads a binding request to us. Nothing in it is believed before MESSAGE-INTEGRITY has been checked with our password.
func readCheck(b []byte, ours credentials) (check, error) {
	m := &stun.Message{Raw: b}
	if err := m.Decode(); err != nil {
		return check{}, err
	}
	if m.Type != stun.BindingRequest {
		return check{}, errNotOurs
	}
	if err := stun.NewShortTermIntegrity(ours.pwd).Check(m); err != nil {
		return check{}, err
	}
	if err := stun.Fingerprint.Check(m); err != nil && !errors.Is(err, stun.ErrAttributeNotFound) {
		return check{}, err
	}
	return check{id: m.TransactionID, nominate: m.Contains(stun.AttrUseCandidate), conflict: m.Contains(stun.AttrICEControlled)}, nil
}

// answerCheck is the response to a check (RFC 8445 §7.3).
func answerCheck(c check, from netip.AddrPort, ours credentials) ([]byte, error) {
	setters := []stun.Setter{
		stun.NewTransactionIDSetter(c.id), stun.BindingSuccess,
		&stun.XORMappedAddress{IP: net.IP(from.Addr().AsSlice()), Port: int(from.Port())},
	}
	if c.conflict {
		setters = []stun.Setter{stun.NewTransactionIDSetter(c.id), stun.BindingError, stun.CodeRoleConflict}
	}
	m, err := stun.Build(append(setters, stun.NewShortTermIntegrity(ours.pwd), stun.Fingerprint)...)
	if err != nil {
		return nil, fmt.Errorf("answer a connectivity check: %w", err)
	}
	return m.Raw, nil
}

// makeCheck is a check of ours to a peer that we have just heard. An ICE-lite side need not send any; but
// some peers nominate a pair as soon as they are checked on it, instead of at their next tick.
func makeCheck(ours, theirs credentials) ([]byte, error) {
	m, err := stun.Build(stun.BindingRequest, stun.TransactionID, stun.NewUsername(theirs.ufrag+":"+ours.ufrag),
		controlled{}, priority(hostPriority), stun.NewShortTermIntegrity(theirs.pwd), stun.Fingerprint)
	if err != nil {
		return nil, fmt.Errorf("make a connectivity check: %w", err)
	}
	return m.Raw, nil
}

// answersCheck reports whether b is the answer of a peer to a check of ours (RFC 8445 §7.2.5): it alone knows the password.
func answersCheck(b, asked []byte, theirs credentials) bool {
	m := &stun.Message{Raw: b}
	return len(asked) >= stunHeader && m.Decode() == nil && m.Type == stun.BindingSuccess &&
		string(m.TransactionID[:]) == string(asked[8:stunHeader]) && stun.NewShortTermIntegrity(theirs.pwd).Check(m) == nil
}

// stunHeader is the size of a STUN message's header, the last 12 bytes of which are the transaction's (RFC 8489 §5).
const stunHeader = 20

// isAnswer reports whether a STUN message is a binding success response, which names no session.
func isAnswer(b []byte) bool { return len(b) >= stunHeader && b[0] == 1 && b[1] == 1 }

// hostPriority is that of a host candidate of the first component (RFC 8445 §5.1.2.1).
const hostPriority = 126<<24 | 65535<<8 | 255

// controlled is ICE-CONTROLLED with a tie-breaker of 0: we never win a conflict of roles.
type controlled struct{}

func (controlled) AddTo(m *stun.Message) error {
	m.Add(stun.AttrICEControlled, make([]byte, 8))
	return nil
}

type priority uint32

func (p priority) AddTo(m *stun.Message) error {
	m.Add(stun.AttrPriority, []byte{byte(p >> 24), byte(p >> 16), byte(p >> 8), byte(p)})
	return nil
}

// localUfrag is our part of a binding request's USERNAME, "" when it has none.
func localUfrag(b []byte) string {
	m := &stun.Message{Raw: b}
	if err := m.Decode(); err != nil {
		return ""
	}
	name, err := m.Get(stun.AttrUsername)
	if err != nil {
		return ""
	}
	ours, _, _ := strings.Cut(string(name), ":")
	return ours
}
