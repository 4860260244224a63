package load

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// The largest body that is read from a server, in bytes. An answer of two tracks with
// all candidates of a machine is about 4 KB.
const maxAnswer = 256 << 10

// Client speaks WHIP (RFC 9725) and WHEP. One client serves any number of sessions from any goroutine.
type Client struct {
	http   *http.Client
	events *http.Client // for answers without an end
	token  string
	allow  func(*url.URL) error // what may be asked; nil: all
}

// NewClient returns a client. It trusts the certificates in roots (nil: the system's), or any
// if insecure. Close it when its sessions are over.
func NewClient(token string, roots *x509.CertPool, insecure bool) *Client {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.TLSClientConfig = &tls.Config{RootCAs: roots, InsecureSkipVerify: insecure, MinVersion: tls.VersionTLS12}
	c := &Client{token: token}
	c.http = &http.Client{Transport: t, Timeout: requestTimeout, CheckRedirect: c.redirect}
	c.events = &http.Client{Transport: t.Clone(), CheckRedirect: c.redirect} // connections of its own: Limit is for the others
	return c
}

// Allow bounds the addresses that are asked, also where a server redirects to. It comes before the first request.
func (c *Client) Allow(allow func(*url.URL) error) { c.allow = allow }

// maxRedirects is as net/http has it.
const maxRedirects = 10

func (c *Client) redirect(next *http.Request, before []*http.Request) error {
	if len(before) >= maxRedirects {
		return fmt.Errorf("it redirects more than %d times", maxRedirects)
	}
	return c.follow(before[len(before)-1].URL, next.URL)
}

// follow says whether to go where an answer leads: never out of encryption, as the token would be read by all.
func (c *Client) follow(from, to *url.URL) error {
	if from.Scheme == "https" && to.Scheme != "https" {
		return fmt.Errorf("it leads from https to %s://%s: that would show the token to everybody", to.Scheme, to.Host)
	}
	if c.allow == nil {
		return nil
	}
	if err := c.allow(to); err != nil {
		return fmt.Errorf("it leads to another server: %w", err)
	}
	return nil
}

// Limit bounds the connections to one host; as many are kept for the next request. It comes before the first request.
func (c *Client) Limit(connections int) {
	t := c.http.Transport.(*http.Transport)
	t.MaxConnsPerHost, t.MaxIdleConnsPerHost, t.MaxIdleConns = connections, connections, 0
}

// Close closes the connections that are kept for the next request.
func (c *Client) Close() {
	c.http.CloseIdleConnections()
	c.events.CloseIdleConnections()
}

// Resource is a session as HTTP sees it (RFC 9725 §4.2).
type Resource struct {
	URL    string // where to PATCH and DELETE
	ETag   string // the ICE session (RFC 9725 §4.3.1); empty when the server does no trickle
	Answer string // SDP

	events string // where the server tells the session to move; "": nowhere
	client *Client
}

// Refused is a server's answer that was not the wished one. Its text is for a person;
// Code is the stable name for programs, empty when the server isn't ours.
type Refused struct {
	Status int    // HTTP status
	Code   string // such as "stream_offline"
	Title  string
	Detail string

	RetryAfter time.Duration // what the server wishes; 0: it says nothing
}

// noSession is the Code of a server of ours that does not have the session, or not any more.
const noSession = "no_session"

// Error says what the server said and what to do about it, in one line.
func (r *Refused) Error() string {
	text := orDefault(r.Detail, orDefault(r.Title, http.StatusText(r.Status)))
	if r.Code != "" {
		text = r.Code + ": " + text
	}
	text = fmt.Sprintf("%s (HTTP %d)", text, r.Status)
	switch {
	case r.Code == "stream_offline":
		text += ": publish it first, for example with `sluice publish test-pattern`"
	case r.Status == http.StatusUnauthorized || r.Status == http.StatusForbidden:
		text += ": give a token that allows this with --token"
	case r.Code == "" && r.Status == http.StatusNotFound:
		text += ": is this a WHIP or WHEP address, such as https://HOST/live/whip/stream1?"
	}
	return text
}

// Offer posts an SDP offer (RFC 9725 §4.2) and returns the resource with the answer. A refusal is a *Refused.
func (c *Client) Offer(ctx context.Context, endpoint, offer string) (*Resource, error) {
	resp, body, err := c.do(ctx, http.MethodPost, endpoint, "application/sdp", "", []byte(offer))
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusCreated {
		return nil, refused(resp, body)
	}
	// The location is relative to where a redirect has led us (RFC 9110 §10.2.2).
	at, err := resp.Request.URL.Parse(resp.Header.Get("Location"))
	if err != nil || resp.Header.Get("Location") == "" {
		return nil, fmt.Errorf("read the answer of %s: its Location header %q is no address", endpoint, resp.Header.Get("Location"))
	}
	if err := c.follow(resp.Request.URL, at); err != nil {
		return nil, fmt.Errorf("read the answer of %s: %w", endpoint, err)
	}
	if mt, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); mt != "application/sdp" {
		return nil, fmt.Errorf("read the answer of %s: content type %q instead of application/sdp", endpoint, mt)
	}
	return &Resource{URL: at.String(), ETag: resp.Header.Get("ETag"), Answer: string(body),
		events: c.eventsAt(resp.Request.URL, eventsLink(resp.Header)), client: c}, nil
}

// Patch sends an SDP fragment: candidates (RFC 9725 §4.3.2), or, with ifMatch "*", an ICE
// restart (§4.3.3), whose answer it returns and whose ETag it keeps. Not for two goroutines at a time.
func (r *Resource) Patch(ctx context.Context, fragment, ifMatch string) (string, error) {
	resp, body, err := r.client.do(ctx, http.MethodPatch, r.URL, "application/trickle-ice-sdpfrag", ifMatch, []byte(fragment))
	if err != nil {
		return "", err
	}
	switch resp.StatusCode {
	case http.StatusNoContent:
		return "", nil
	case http.StatusOK:
		r.ETag = orDefault(resp.Header.Get("ETag"), r.ETag)
		return string(body), nil
	}
	return "", refused(resp, body)
}

// Present asks whether the server still has the session. A refusal is a *Refused: with ours, no_session says that it has not.
func (r *Resource) Present(ctx context.Context) error {
	resp, body, err := r.client.do(ctx, http.MethodGet, r.URL, "", "", nil)
	if err != nil {
		return err
	}
	if resp.StatusCode/100 != 2 {
		return refused(resp, body)
	}
	return nil
}

// Delete ends the session (RFC 9725 §4.2).
func (r *Resource) Delete(ctx context.Context) error {
	resp, body, err := r.client.do(ctx, http.MethodDelete, r.URL, "", "", nil)
	if err != nil {
		return err
	}
	if resp.StatusCode/100 != 2 {
		return refused(resp, body)
	}
	return nil
}

func (c *Client) do(ctx context.Context, method, target, contentType, ifMatch string, body []byte) (*http.Response, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, target, bytes.NewReader(body))
	if err != nil {
		return nil, nil, err
	}
	if req.URL.Scheme != "http" && req.URL.Scheme != "https" {
		return nil, nil, fmt.Errorf("address %q: it must begin with http:// or https://", target)
	}
	for k, v := range map[string]string{"Content-Type": contentType, "If-Match": ifMatch} {
		if v != "" {
			req.Header.Set(k, v)
		}
	}
	req.Header.Set("Accept", "application/sdp, application/trickle-ice-sdpfrag, application/problem+json")
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token) // RFC 9725 §4.5
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, nil, reached(ctx, err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return nil, nil, fmt.Errorf("read the answer of %s: %w", target, err)
	}
	if len(got) > maxAnswer {
		return nil, nil, fmt.Errorf("read the answer of %s: it is larger than %d bytes", target, maxAnswer)
	}
	return resp, got, nil
}

// reached adds to an error of the way to the server what to do about it.
func reached(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var (
		ue  *url.Error
		dns *net.DNSError
		hdr tls.RecordHeaderError
	)
	at := ""
	if errors.As(err, &ue) {
		err = ue.Err // without the method and the address, that we write ourselves
		if u, perr := url.Parse(ue.URL); perr == nil {
			at = u.Host
		}
	}
	hint := ""
	switch {
	case isCertificate(err):
		hint = ": for a self-signed certificate give --insecure"
	case errors.As(err, &hdr) || strings.Contains(err.Error(), "HTTP response to HTTPS client"):
		hint = ": try http:// instead of https://"
	case errors.Is(err, syscall.ECONNREFUSED):
		hint = ": is the server running? `sluice up` starts one"
	case errors.As(err, &dns):
		hint = ": check the host's name"
	}
	return fmt.Errorf("reach %s: %w%s", at, err, hint)
}

func isCertificate(err error) bool {
	var v *tls.CertificateVerificationError
	var u x509.UnknownAuthorityError
	var h x509.HostnameError
	return errors.As(err, &v) || errors.As(err, &u) || errors.As(err, &h)
}

// refused reads a problem (RFC 9457 §3), or what else a proxy in between may have said.
func refused(resp *http.Response, body []byte) error {
	r := &Refused{Status: resp.StatusCode}
	// Only seconds: servers of ours send no dates (RFC 9110 §10.2.3).
	if s, err := strconv.ParseUint(resp.Header.Get("Retry-After"), 10, 16); err == nil {
		r.RetryAfter = time.Duration(s) * time.Second
	}
	mt, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	switch mt {
	case "application/problem+json", "application/json":
		var p struct{ Code, Title, Detail string }
		if json.Unmarshal(body, &p) == nil {
			r.Code, r.Title, r.Detail = oneLine(p.Code), oneLine(p.Title), oneLine(p.Detail)
		}
	case "text/plain":
		r.Detail = oneLine(string(body))
	}
	return r
}

// oneLine makes a server's text fit for a terminal: its first line, without control
// characters, at most 300 bytes.
func oneLine(s string) string {
	s, _, _ = strings.Cut(strings.TrimSpace(s), "\n")
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == '\uFFFD' {
			return -1
		}
		return r
	}, s)
	if len(s) > 300 {
		s = strings.ToValidUTF8(s[:300], "") + "…"
	}
	return s
}
