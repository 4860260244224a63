package relay

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"
	"time"
)

// ErrUnknownPeer: the peer's key is not that of a node that may be spoken to.
var ErrUnknownPeer = errors.New("the peer's relay key is not in the registry: is it a node of this cluster?")

// Identity is a node's key. It is made anew with each start and never leaves the process.
type Identity struct {
	cert tls.Certificate
	key  string
}

// NewIdentity makes a key and a certificate for it.
func NewIdentity() (*Identity, error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make relay key: %w", err)
	}
	// Only the key counts, so nothing else in the certificate is ever looked at.
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "sluice"},
		NotBefore:    time.Now().Add(-24 * time.Hour),
		NotAfter:     time.Now().AddDate(20, 0, 0),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		return nil, fmt.Errorf("make relay certificate: %w", err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("read relay certificate: %w", err)
	}
	return &Identity{cert: tls.Certificate{Certificate: [][]byte{der}, PrivateKey: private, Leaf: leaf}, key: keyOf(leaf)}, nil
}

// Key is the base64 SHA-256 of the SubjectPublicKeyInfo (RFC 7469 §2.4 pins keys in the same form): what the
// registry holds for the node.
func (i *Identity) Key() string { return i.key }

func keyOf(cert *x509.Certificate) string { return hash(cert.RawSubjectPublicKeyInfo) }

func hash(spki []byte) string {
	sum := sha256.Sum256(spki)
	return base64.StdEncoding.EncodeToString(sum[:])
}

// Sign proves by another way than the relay that this node says something: by ECDSA over SHA-256. The SubjectPublicKeyInfo goes with it, as the registry has
// only its hash.
func (i *Identity) Sign(message []byte) (spki, signature []byte, err error) {
	sum := sha256.Sum256(message)
	signature, err = i.cert.PrivateKey.(*ecdsa.PrivateKey).Sign(rand.Reader, sum[:], crypto.SHA256)
	if err != nil {
		return nil, nil, fmt.Errorf("sign with the relay key: %w", err)
	}
	return i.cert.Leaf.RawSubjectPublicKeyInfo, signature, nil
}

// Verify returns the key (Identity.Key) that has signed a message; false when none has.
func Verify(spki, message, signature []byte) (key string, ok bool) {
	public, err := x509.ParsePKIXPublicKey(spki)
	if err != nil {
		return "", false
	}
	ec, ok := public.(*ecdsa.PublicKey)
	sum := sha256.Sum256(message)
	if !ok || !ecdsa.VerifyASN1(ec, sum[:], signature) {
		return "", false
	}
	return hash(spki), true
}

// PeerKey returns the key that the peer has proved to hold, "" before the handshake is complete.
func PeerKey(s tls.ConnectionState) string {
	if len(s.PeerCertificates) == 0 {
		return ""
	}
	return keyOf(s.PeerCertificates[0])
}

func (i *Identity) config(known func(key string) bool) *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		NextProtos:             []string{alpn},
		Certificates:           []tls.Certificate{i.cert},
		SessionTicketsDisabled: true, // each connection is verified in full
		VerifyConnection: func(s tls.ConnectionState) error {
			if !known(PeerKey(s)) {
				return ErrUnknownPeer
			}
			return nil
		},
	}
}

// ServerTLS lets peers in whose key is known. known may be called from any goroutine; its context ends
// with the handshake.
func (i *Identity) ServerTLS(known func(ctx context.Context, key string) bool) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			c := i.config(func(key string) bool { return key != "" && known(hello.Context(), key) })
			c.ClientAuth = tls.RequireAnyClientCert
			return c, nil
		},
	}
}

// ClientTLS trusts the node with exactly that key.
func (i *Identity) ClientTLS(key string) *tls.Config {
	c := i.config(func(k string) bool { return key != "" && k == key })
	c.InsecureSkipVerify = true // no names and no authorities: VerifyConnection pins the key
	return c
}
