package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"
)

// Files of the cluster's own certificate authority and of what the gateway shows.
const (
	caFile, caKeyFile     = "ca.pem", "ca.key"
	certFile, certKeyFile = "cert.pem", "cert.key" // cert.pem has the chain
)

// Life of the certificates. Browsers refuse server certificates of more than 398 days.
const (
	caLife   = 10 * 365 * 24 * time.Hour
	leafLife = 397 * 24 * time.Hour
	renewAt  = 30 * 24 * time.Hour // before the end
)

// certificates makes sure that the folder has a server certificate for the hosts, signed by a CA
// which stays the same: who trusts it once need not do so again. What is there and still good is kept.
func (h home) certificates(hosts []string, now time.Time) error {
	ca, fresh, err := h.loadOrMake(caFile, caKeyFile, func(tls.Certificate) bool { return true }, now, func() (tls.Certificate, error) {
		host, _ := os.Hostname() // only a name for people
		return sign(&x509.Certificate{
			Subject:  pkix.Name{CommonName: "Sluice on " + host},
			NotAfter: now.Add(caLife), KeyUsage: x509.KeyUsageCertSign, IsCA: true, MaxPathLenZero: true,
		}, nil, now)
	})
	if err != nil {
		return fmt.Errorf("certificate authority: %w", err)
	}
	good := func(c tls.Certificate) bool {
		return !fresh && c.Leaf.CheckSignatureFrom(ca.Leaf) == nil &&
			!slices.ContainsFunc(hosts, func(host string) bool { return c.Leaf.VerifyHostname(host) != nil })
	}
	_, _, err = h.loadOrMake(certFile, certKeyFile, good, now, func() (tls.Certificate, error) {
		leaf := &x509.Certificate{
			Subject:  pkix.Name{CommonName: hosts[0]},
			NotAfter: now.Add(leafLife), KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		}
		for _, host := range hosts {
			if ip := net.ParseIP(host); ip != nil {
				leaf.IPAddresses = append(leaf.IPAddresses, ip)
			} else {
				leaf.DNSNames = append(leaf.DNSNames, host)
			}
		}
		return sign(leaf, &ca, now)
	})
	if err != nil {
		return fmt.Errorf("server certificate: %w", err)
	}
	return nil
}

// loadOrMake returns the pair in two files, made anew when it is absent, about to expire or not good.
func (h home) loadOrMake(cert, key string, good func(tls.Certificate) bool, now time.Time, fresh func() (tls.Certificate, error)) (c tls.Certificate, made bool, err error) {
	c, err = tls.LoadX509KeyPair(h.path(cert), h.path(key))
	switch {
	case err == nil && now.Before(c.Leaf.NotAfter.Add(-renewAt)) && good(c):
		return c, false, nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return c, false, fmt.Errorf("%w (delete %s and %s, they are made again)", err, h.path(cert), h.path(key))
	}
	if c, err = fresh(); err != nil {
		return c, false, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		return c, false, err
	}
	var chain []byte
	for _, d := range c.Certificate {
		chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: d})...)
	}
	return c, true, errors.Join(
		os.WriteFile(h.path(key), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600),
		os.WriteFile(h.path(cert), chain, 0o600))
}

// sign makes a key of P-256 and its certificate, by ca or, when that is nil, by itself.
func sign(t *x509.Certificate, ca *tls.Certificate, now time.Time) (c tls.Certificate, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return c, err
	}
	if t.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127)); err != nil { // RFC 5280 §4.1.2.2: at most 20 octets
		return c, err
	}
	t.NotBefore = now.Add(-time.Hour) // for clients whose clock is behind
	t.BasicConstraintsValid = true
	parent, signer := t, any(key)
	if ca != nil {
		parent, signer = ca.Leaf, ca.PrivateKey
	}
	der, err := x509.CreateCertificate(rand.Reader, t, parent, key.Public(), signer)
	if err != nil {
		return c, err
	}
	c = tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	if ca != nil {
		c.Certificate = append(c.Certificate, ca.Certificate...)
	}
	c.Leaf, err = x509.ParseCertificate(der)
	return c, err
}

// ownHosts are the names and addresses by which this machine can be reached: localhost
// first, then its name, then the addresses of its network.
func ownHosts() []string {
	hosts := []string{"localhost", "127.0.0.1", "::1"}
	if name, err := os.Hostname(); err == nil && name != "" {
		hosts = append(hosts, name)
	}
	addrs, _ := net.InterfaceAddrs() // without them, localhost remains
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil && !p.Addr().IsLoopback() && !p.Addr().IsLinkLocalUnicast() {
			hosts = append(hosts, p.Addr().String())
		}
	}
	slices.Sort(hosts[3:])
	return slices.Compact(hosts)
}

// trust reads the certificates in a PEM file.
func trust(path string) (*x509.CertPool, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read certificate authority: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(b) {
		return nil, fmt.Errorf("read certificate authority: no certificate in %s", path)
	}
	return pool, nil
}
