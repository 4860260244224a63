package gateway

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// certCheck is how long a changed file may go unnoticed.
const certCheck = 10 * time.Second

// certificate is a pair of PEM files that is read again when one of them changes,
// so that a renewed certificate needs no restart.
type certificate struct {
	certFile, keyFile string
	log               *slog.Logger
	now               func() time.Time

	mu      sync.Mutex
	cert    *tls.Certificate
	stamp   [2]time.Time // modification times of what cert was read from, or failed to
	checked time.Time
}

func newCertificate(certFile, keyFile string, log *slog.Logger) (*certificate, error) {
	c := &certificate{certFile: certFile, keyFile: keyFile, log: log, now: time.Now}
	if err := c.loadLocked(); err != nil {
		return nil, fmt.Errorf("load certificate (--certificate and --key are its PEM files): %w", err)
	}
	return c, nil
}

// get implements tls.Config.GetCertificate. It looks at the files at a handshake, not
// more often than every certCheck. A pair that can't be read leaves the old one in use.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := c.now(); now.Sub(c.checked) >= certCheck {
		c.checked = now
		if stamp, err := c.stamps(); err == nil && stamp != c.stamp {
			if err := c.loadLocked(); err != nil {
				c.log.Warn("changed certificate can't be used, the old one stays", "file", c.certFile, "error", err)
			} else {
				c.log.Info("certificate was renewed", "file", c.certFile)
			}
		}
	}
	return c.cert, nil
}

func (c *certificate) loadLocked() error {
	stamp, err := c.stamps()
	if err != nil {
		return err
	}
	c.stamp, c.checked = stamp, c.now()
	cert, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return err
	}
	c.cert = &cert
	return nil
}

func (c *certificate) stamps() (stamp [2]time.Time, err error) {
	for i, name := range []string{c.certFile, c.keyFile} {
		info, err := os.Stat(name)
		if err != nil {
			return stamp, err
		}
		stamp[i] = info.ModTime()
	}
	return stamp, nil
}
