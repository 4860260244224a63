package census

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"sluice/cluster"
	"sluice/relay"
)

// ErrNode: a node did not answer, or refused.
var ErrNode = errors.New("a node of the cluster can't be asked")

const (
	keyHeader       = "Sluice-Node-Key"
	timeHeader      = "Sluice-Node-Time"
	nonceHeader     = "Sluice-Node-Nonce"
	signatureHeader = "Sluice-Node-Signature"

	skew      = 15 * time.Second // between the clocks of two nodes, both by the registry's
	maxNonces = 20_000           // of the last 2·skew; more calls than that are refused
	maxAnswer = 32 << 20         // bytes
)

// signed is what a call's signature is over: so it is good for one node, once, and for a short time.
func signed(method, uri, to, at, nonce string) []byte {
	return []byte(strings.Join([]string{"sluice node call", method, uri, to, at, nonce}, "\n"))
}

// Caller asks other nodes, with the key that the registry has of this one.
type Caller struct {
	identity *relay.Identity
	now      func() time.Time // the registry's clock
	client   *http.Client
}

// NewCaller returns one for a node. Close ends its connections.
func NewCaller(identity *relay.Identity, now func() time.Time) *Caller {
	transport := &http.Transport{MaxIdleConnsPerHost: 2, IdleConnTimeout: 30 * time.Second, ResponseHeaderTimeout: askWithin, DisableCompression: true}
	refuse := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &Caller{identity: identity, now: now, client: &http.Client{Transport: transport, CheckRedirect: refuse}}
}

// Close ends connections that nobody uses.
func (c *Caller) Close() { c.client.CloseIdleConnections() }

// Ask calls a node; its answer is read into out, unless that is nil. Its errors wrap ErrNode.
func (c *Caller) Ask(ctx context.Context, to cluster.Node, method, uri string, out any) error {
	if err := c.call(ctx, to, method, uri, out); err != nil {
		return fmt.Errorf("%w: %s at %s: %w", ErrNode, to.ID, to.HTTP, err)
	}
	return nil
}

func (c *Caller) call(ctx context.Context, to cluster.Node, method, uri string, out any) error {
	r, err := http.NewRequestWithContext(ctx, method, "http://"+to.HTTP+uri, nil)
	if err != nil {
		return err
	}
	at, nonce := strconv.FormatInt(c.now().UnixMilli(), 10), rand.Text()
	spki, signature, err := c.identity.Sign(signed(method, uri, to.ID, at, nonce))
	if err != nil {
		return err
	}
	head(r, spki, signature, at, nonce)
	res, err := c.client.Do(r)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	switch {
	case err != nil:
		return err
	case res.StatusCode != http.StatusOK:
		return fmt.Errorf("it answers %s: %.200s", res.Status, bytes.TrimSpace(b))
	case out == nil:
		return nil
	}
	return json.Unmarshal(b, out)
}

// head puts a signature and what it is over into a request.
func head(r *http.Request, spki, signature []byte, at, nonce string) {
	r.Header.Set(keyHeader, base64.StdEncoding.EncodeToString(spki))
	r.Header.Set(timeHeader, at)
	r.Header.Set(nonceHeader, nonce)
	r.Header.Set(signatureHeader, base64.StdEncoding.EncodeToString(signature))
}

// Guard lets in calls of nodes of the cluster.
type Guard struct {
	node  string                                           // whose it is
	now   func() time.Time                                 // the registry's clock
	known func(ctx context.Context, key string) (yes bool) // whether a relay key is that of a node

	mu     sync.Mutex
	nonces map[string]time.Time // until when
}

// NewGuard returns a node's.
func NewGuard(node string, now func() time.Time, known func(context.Context, string) bool) *Guard {
	return &Guard{node: node, now: now, known: known, nonces: map[string]time.Time{}}
}

// Allows reports whether a request is a call of a node, and the first with its signature.
func (g *Guard) Allows(r *http.Request) bool {
	h := r.Header
	at, err := strconv.ParseInt(h.Get(timeHeader), 10, 64)
	if err != nil {
		return false
	}
	now := g.now()
	if age := now.Sub(time.UnixMilli(at)); age > skew || age < -skew {
		return false
	}
	spki, err1 := base64.StdEncoding.DecodeString(h.Get(keyHeader))
	signature, err2 := base64.StdEncoding.DecodeString(h.Get(signatureHeader))
	nonce := h.Get(nonceHeader)
	if err1 != nil || err2 != nil || len(nonce) > 64 || len(spki) > 1024 {
		return false
	}
	key, ok := relay.Verify(spki, signed(r.Method, r.URL.RequestURI(), g.node, h.Get(timeHeader), nonce), signature)
	return ok && g.known(r.Context(), key) && g.first(nonce, now)
}

// first remembers a nonce for as long as its call could be sent again.
func (g *Guard) first(nonce string, now time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.nonces) >= maxNonces {
		for n, until := range g.nonces {
			if now.After(until) {
				delete(g.nonces, n)
			}
		}
	}
	if _, again := g.nonces[nonce]; again || len(g.nonces) >= maxNonces {
		return false
	}
	g.nonces[nonce] = now.Add(2*skew + time.Second)
	return true
}
