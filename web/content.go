package web

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"path"
	"strings"
	"time"
)

// content is one file as it goes over the wire, plain and compressed. It is immutable.
type content struct {
	mime  string
	etag  string // strong, of the plain form, without quotes
	plain []byte
	gzip  []byte // nil when it is not smaller
}

func newContent(name string, b []byte) (*content, error) {
	sum := sha256.Sum256(b)
	c := &content{mime: mimeOf(name), etag: hex.EncodeToString(sum[:8]), plain: b}
	var z bytes.Buffer
	w, err := gzip.NewWriterLevel(&z, gzip.BestCompression)
	if err == nil {
		if _, err = w.Write(b); err == nil {
			err = w.Close()
		}
	}
	if err != nil {
		return nil, fmt.Errorf("compress %s: %w", name, err)
	}
	if z.Len() < len(b) {
		c.gzip = z.Bytes()
	}
	return c, nil
}

// mimeOf does not ask the system, whose tables differ.
func mimeOf(name string) string {
	switch path.Ext(name) {
	case ".html":
		return "text/html; charset=utf-8"
	case ".js":
		return "text/javascript; charset=utf-8"
	case ".css":
		return "text/css; charset=utf-8"
	case ".svg":
		return "image/svg+xml"
	default:
		return "application/octet-stream"
	}
}

// serve sends the content; the caller has set the caching headers. ServeContent looks after
// If-None-Match, ranges and HEAD.
func (c *content) serve(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Type", c.mime)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Add("Vary", "Accept-Encoding")
	body, etag := c.plain, c.etag
	if c.gzip != nil && acceptsGzip(r.Header.Get("Accept-Encoding")) {
		h.Set("Content-Encoding", "gzip")
		body, etag = c.gzip, c.etag+"-gzip" // each form has a tag of its own (RFC 9110 §8.8.3.3)
	}
	h.Set("ETag", `"`+etag+`"`)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
}

// acceptsGzip reads Accept-Encoding (RFC 9110 §12.5.3) as far as gzip is concerned.
func acceptsGzip(accept string) bool {
	for part := range strings.SplitSeq(accept, ",") {
		name, params, _ := strings.Cut(strings.TrimSpace(part), ";")
		if strings.EqualFold(strings.TrimSpace(name), "gzip") {
			q := strings.TrimRight(strings.ReplaceAll(params, " ", ""), "0")
			return q != "q=" && q != "q=0."
		}
	}
	return false
}
