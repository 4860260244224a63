package gateway

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
)

var errPlainHTTP = errors.New("client spoke plain HTTP and was sent to https")

// sniffer answers clients that speak plain HTTP to a TLS port with a redirect to
// the same address with https.
type sniffer struct{ net.Listener }

func (l *sniffer) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &sniffed{Conn: c}, nil
}

// sniffed looks at the first byte at the first Read, which is the TLS handshake's and
// has its deadline; so Accept never waits for a client. A TLS connection begins with
// 0x16 (RFC 8446 §5.1), an HTTP request with a capital letter.
type sniffed struct {
	net.Conn
	looked bool // Reads come one after the other: crypto/tls holds a lock
}

func (c *sniffed) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if c.looked || n == 0 {
		return n, err
	}
	c.looked = true
	if b[0] < 'A' || b[0] > 'Z' {
		return n, err
	}
	redirectPlain(c.Conn, io.MultiReader(bytes.NewReader(b[:n]), io.LimitReader(c.Conn, 16<<10)))
	return 0, errPlainHTTP
}

// redirectPlain reads one request and answers it. The connection is closed by the server,
// whose handshake fails.
func redirectPlain(c net.Conn, in io.Reader) {
	r, err := http.ReadRequest(bufio.NewReader(in))
	if err != nil {
		return
	}
	host := r.Host
	if _, port, err := net.SplitHostPort(c.LocalAddr().String()); err == nil && host == "" {
		host = net.JoinHostPort("localhost", port) // HTTP/1.0 without a Host
	}
	body := "This port speaks https (and wss), not plain http.\n"
	_, _ = fmt.Fprintf(c, "HTTP/1.1 308 Permanent Redirect\r\nLocation: https://%s%s\r\nContent-Type: text/plain\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s",
		host, r.URL.RequestURI(), len(body), body)
}

// redirectTo sends every request of the redirect port to the publish port.
func redirectTo(publish net.Addr) http.Handler {
	_, port, _ := net.SplitHostPort(publish.String())
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := r.Host
		if h, _, err := net.SplitHostPort(host); err == nil {
			host = h
			if strings.Contains(h, ":") {
				host = "[" + h + "]"
			}
		}
		if port != "443" {
			host += ":" + port
		}
		http.Redirect(w, r, "https://"+host+r.URL.RequestURI(), http.StatusPermanentRedirect)
	})
}
