package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"time"

	"sluice/load/crowd"
)

// janus is the server of that name with its streaming plugin: plain RTP comes in, viewers watch. It gets what its manual advises for
// many viewers, and is measured with nothing else loaded.
type janus struct {
	binary             string
	plugin, transports string // the shared objects
}

var errNoJanus = errors.New("Janus is not installed: `apt-get install janus` (Debian, Ubuntu) puts it beside")

var janusVersion = regexp.MustCompile(`Janus version: .*?([0-9]+(?:\.[0-9]+)+)`)

// findJanus finds the binary, its streaming plugin and its HTTP transport.
func findJanus(ctx context.Context, binary string) (*janus, string, error) {
	path, err := exec.LookPath(binary)
	if err != nil {
		return nil, "", errNoJanus
	}
	j := &janus{binary: path}
	for _, x := range []struct {
		path *string
		name string
	}{{&j.plugin, "plugins/libjanus_streaming.so"}, {&j.transports, "transports/libjanus_http.so"}} {
		for _, folder := range []string{"/usr/lib/*/janus", "/usr/lib/janus", "/usr/local/lib/janus", filepath.Dir(path) + "/../lib/janus", filepath.Dir(path) + "/../lib/*/janus"} {
			if found, _ := filepath.Glob(filepath.Join(folder, x.name)); len(found) > 0 { // the pattern is good
				*x.path = found[0]
				break
			}
		}
		if *x.path == "" {
			return nil, "", fmt.Errorf("Janus is at %s, but without %s", path, x.name)
		}
	}
	help, err := output(ctx, path, "--help")
	if err != nil {
		return nil, "", fmt.Errorf("ask %s for its version: %w", path, err)
	}
	version := "unknown"
	if m := janusVersion.FindStringSubmatch(help); m != nil {
		version = m[1]
	}
	return j, version, nil
}

// start writes the configuration into a folder, starts the process and waits until it answers.
func (j *janus) start(ctx context.Context, dir string) (*server, error) {
	api, err := freePorts(1)
	if err != nil {
		return nil, err
	}
	media, err := freePorts(4)
	if err != nil {
		return nil, err
	}
	if err := j.configure(dir, api, media); err != nil {
		return nil, fmt.Errorf("configure Janus: %w", err)
	}
	cmd := command(ctx, dir, j.binary, "--configs-folder="+dir, "--config="+filepath.Join(dir, "janus.jcfg"))
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return nil, err
	}
	defer log.Close() // the child has its own handle
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	c := &janusClient{http: &http.Client{Timeout: startWithin, Transport: &http.Transport{MaxConnsPerHost: 64, MaxIdleConnsPerHost: 64}}}
	base := fmt.Sprintf("http://127.0.0.1:%d/janus", api)
	for end := time.Now().Add(startWithin); ; {
		_, err := c.get(ctx, base+"/info")
		if err == nil {
			break
		}
		if ctx.Err() != nil || time.Now().After(end) {
			_ = cmd.Process.Kill()
			text, _ := os.ReadFile(log.Name())
			return nil, errors.Join(fmt.Errorf("Janus did not start: %w: %s", err, text[max(0, len(text)-500):]), cmd.Wait())
		}
		<-time.After(100 * time.Millisecond)
	}
	return &server{publish: fmt.Sprintf("rtp://127.0.0.1:%d", media), play: base, signal: c.watch, cmd: cmd}, nil
}

const janusCore = `general: {
	configs_folder = %q
	plugins_folder = %q
	transports_folder = %q
	events_folder = %q
	loggers_folder = %q
	debug_level = 2
	event_loops = 2      # threads for all viewers, not one for each
	session_timeout = 0  # no keep-alives
}
certificates: {
	cert_pem = %q
	cert_key = %q
}
nat: { ice_lite = true }
`

const janusHTTP = `general: {
	json = "compact"
	base_path = "/janus"
	http = true
	ip = "127.0.0.1"
	port = %d
	https = false
}
admin: { admin_http = false }
`

// Payload types are those of the load tool. Janus asks for key frames over the RTCP ports.
const janusStreaming = `bench: {
	type = "rtp"
	id = 1
	video = true
	videoiface = "127.0.0.1"
	videoport = %d
	videortcpport = %d
	videopt = 102
	videocodec = "h264"
	videofmtp = "packetization-mode=1;profile-level-id=42e01f"
	audio = true
	audioiface = "127.0.0.1"
	audioport = %d
	audiortcpport = %d
	audiopt = 111
	audiocodec = "opus"
}
`

func (j *janus) configure(dir string, api, media int) error {
	in := func(name string) string { return filepath.Join(dir, name) }
	for _, folder := range []string{"plugins", "transports", "none"} {
		if err := os.Mkdir(in(folder), 0o700); err != nil {
			return err
		}
	}
	if err := os.Symlink(j.plugin, in("plugins/libjanus_streaming.so")); err != nil {
		return err
	}
	if err := os.Symlink(j.transports, in("transports/libjanus_http.so")); err != nil {
		return err
	}
	certificate, key, err := newCertificate(time.Now())
	if err != nil {
		return err
	}
	for name, text := range map[string]string{
		"certificate.pem":             certificate,
		"key.pem":                     key,
		"janus.jcfg":                  fmt.Sprintf(janusCore, dir, in("plugins"), in("transports"), in("none"), in("none"), in("certificate.pem"), in("key.pem")),
		"janus.transport.http.jcfg":   fmt.Sprintf(janusHTTP, api),
		"janus.plugin.streaming.jcfg": fmt.Sprintf(janusStreaming, media, media+1, media+2, media+3),
	} {
		if err := os.WriteFile(in(name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// newCertificate makes one of the kind that browsers and we use: Janus's own would be RSA, which costs it more.
func newCertificate(now time.Time) (certificate, key string, err error) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", "", err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(now.UnixNano()), NotBefore: now.Add(-24 * time.Hour), NotAfter: now.Add(24 * time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &k.PublicKey, k)
	if err != nil {
		return "", "", err
	}
	private, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		return "", "", err
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})), nil
}

// janusClient speaks Janus's HTTP interface: requests are posted, what takes longer comes as an event of a long poll.
type janusClient struct{ http *http.Client }

// janusMessage is a response or an event.
type janusMessage struct {
	Janus  string
	Data   struct{ ID int64 }
	Error  struct{ Reason string }
	JSEP   struct{ SDP string }
	Plugin struct {
		Data struct{ Error string }
	} `json:"plugindata"`
}

type object = map[string]any

// watch is a crowd.Signal: Janus offers, and the viewer answers.
func (c *janusClient) watch(ctx context.Context, base string, describe func(string) (string, error)) (theirs string, bye func(context.Context) error, err error) {
	m, err := c.post(ctx, base, object{"janus": "create"})
	if err != nil {
		return "", nil, err
	}
	session := fmt.Sprintf("%s/%d", base, m.Data.ID)
	bye = func(ctx context.Context) error {
		_, err := c.post(ctx, session, object{"janus": "destroy"})
		return err
	}
	if theirs, err = c.begin(ctx, session, describe); err != nil {
		return "", nil, errors.Join(err, bye(ctx))
	}
	return theirs, bye, nil
}

func (c *janusClient) begin(ctx context.Context, session string, describe func(string) (string, error)) (string, error) {
	m, err := c.post(ctx, session, object{"janus": "attach", "plugin": "janus.plugin.streaming"})
	if err != nil {
		return "", err
	}
	handle := fmt.Sprintf("%s/%d", session, m.Data.ID)
	if _, err := c.post(ctx, handle, object{"janus": "message", "body": object{"request": "watch", "id": 1}}); err != nil {
		return "", err
	}
	for m.JSEP.SDP == "" {
		if m, err = c.get(ctx, session); err != nil {
			return "", err
		}
	}
	answer, err := describe(m.JSEP.SDP)
	if err != nil {
		return "", err
	}
	_, err = c.post(ctx, handle, object{"janus": "message", "body": object{"request": "start"}, "jsep": object{"type": "answer", "sdp": answer}})
	return m.JSEP.SDP, err
}

func (c *janusClient) post(ctx context.Context, url string, body object) (*janusMessage, error) {
	body["transaction"] = "bench"
	b, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	return c.do(req)
}

func (c *janusClient) get(ctx context.Context, url string) (*janusMessage, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	return c.do(req)
}

func (c *janusClient) do(req *http.Request) (*janusMessage, error) {
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	m := &janusMessage{}
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(m); err != nil {
		return nil, fmt.Errorf("read the answer of Janus (%s): %w", resp.Status, err)
	}
	switch {
	case m.Janus == "error":
		return nil, fmt.Errorf("Janus says: %s", m.Error.Reason)
	case m.Plugin.Data.Error != "":
		return nil, fmt.Errorf("Janus says: %s", m.Plugin.Data.Error)
	}
	return m, nil
}

var _ crowd.Signal = (*janusClient)(nil).watch
