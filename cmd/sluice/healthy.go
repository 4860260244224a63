package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/http"
	"time"
)

// healthyWithin is less than what a container's health check is given.
const healthyWithin = 2 * time.Second

type healthyCmd struct {
	URL string `arg:"" optional:"" default:"http://127.0.0.1:5080/healthz" help:"What to ask; of a gateway: https://127.0.0.1/gateway/healthz."`
}

// Run asks a process of this machine whether it is well, for containers that have no other program.
func (c *healthyCmd) Run(p *process) error {
	ctx, cancel := context.WithTimeout(p.ctx, healthyWithin)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.URL, nil)
	if err != nil {
		return usageError{err}
	}
	transport := &http.Transport{Proxy: nil, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}} // nothing is told, and the certificate has another name
	defer transport.CloseIdleConnections()
	res, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return fmt.Errorf("not well: %w", err)
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("not well: %s", res.Status)
	}
	return nil
}
