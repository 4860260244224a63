// Package cloudnotice hears from the cloud that the machine will go: Azure's Scheduled Events.
//
// Imports: nothing of ours.
package cloudnotice

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// AzureService is where every machine of Azure finds the service that knows about it.
const AzureService = "http://169.254.169.254"

const (
	eventsURL   = "/metadata/scheduledevents?api-version=2020-07-01"
	instanceURL = "/metadata/instance/compute/name?api-version=2021-02-01&format=text"

	maxAnswer = 1 << 20
	// The first question switches the service on for the machine, which may take two minutes; questions are asked again.
	askWithin = 10 * time.Second
	// shortFreeze: Azure pauses a machine for a few seconds at most in most cases. Clients get over that: it costs them less than a move.
	shortFreeze = 10 * time.Second
)

// Notice says that something will happen to this machine.
type Notice struct {
	ID       string
	Kind     string    // Terminate, Preempt, Reboot, Redeploy or Freeze
	Deadline time.Time // it does not happen before; zero: it may happen at any moment
	// Stays: the machine is the same afterwards, and so is the process.
	Stays bool
}

// Config of a Watcher.
type Config struct {
	Service string        // default AzureService
	Every   time.Duration // between two questions; default 2 s
	Log     *slog.Logger
}

// Watcher asks for notices. All but Run may be called from any goroutine.
type Watcher struct {
	cfg    Config
	client *http.Client

	mu      sync.Mutex
	notice  *Notice
	machine string // as the service calls it
	failing bool   // the log has said so
}

// New does no I/O.
func New(cfg Config) *Watcher {
	cfg.Service = cmp.Or(cfg.Service, AzureService)
	cfg.Every = cmp.Or(cfg.Every, 2*time.Second)
	cfg.Log = cmp.Or(cfg.Log, slog.Default())
	// The service is on the machine's own link: no proxy knows it.
	return &Watcher{cfg: cfg, client: &http.Client{Timeout: askWithin, Transport: &http.Transport{Proxy: nil, MaxIdleConnsPerHost: 1}}}
}

// Notice is what will happen next, nil: nothing is known.
func (w *Watcher) Notice() *Notice {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.notice
}

// Run asks until ctx ends.
func (w *Watcher) Run(ctx context.Context) error {
	defer w.client.CloseIdleConnections()
	tick := time.NewTicker(w.cfg.Every)
	defer tick.Stop()
	for {
		if err := w.look(ctx); ctx.Err() == nil {
			w.told(err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// told logs the beginning and the end of an outage of the service.
func (w *Watcher) told(err error) {
	switch {
	case err != nil && !w.failing:
		w.cfg.Log.Warn("the cloud's notices can't be read; is this a machine of Azure? else set node.cloud-notice to off", "error", err)
	case err == nil && w.failing:
		w.cfg.Log.Info("the cloud's notices can be read again")
	}
	w.failing = err != nil
}

// scheduled is the service's answer.
type scheduled struct {
	Events []event
}

type event struct {
	EventID           string `json:"EventId"`
	EventType         string
	Resources         []string
	EventStatus       string // Scheduled, or Started
	NotBefore         string // RFC 1123, UTC; empty once it has started
	DurationInSeconds *int   // -1: not known
}

// look asks once. When the service does not answer, what was known stays.
func (w *Watcher) look(ctx context.Context) error {
	if w.machine == "" {
		name, err := w.ask(ctx, http.MethodGet, instanceURL, nil)
		if err != nil {
			return fmt.Errorf("ask for this machine's name: %w", err)
		}
		if w.machine = strings.TrimSpace(string(name)); w.machine == "" {
			return errors.New("ask for this machine's name: the answer is empty")
		}
	}
	body, err := w.ask(ctx, http.MethodGet, eventsURL, nil)
	if err != nil {
		return fmt.Errorf("ask for scheduled events: %w", err)
	}
	var s scheduled
	if err := json.Unmarshal(body, &s); err != nil {
		return fmt.Errorf("read scheduled events: %w", err)
	}
	w.set(w.soonest(s.Events))
	return nil
}

// soonest is the first event that concerns this machine; one that it stays for comes after all that end it.
func (w *Watcher) soonest(events []event) (first *Notice) {
	for _, e := range events {
		if !slices.ContainsFunc(e.Resources, func(r string) bool { return strings.EqualFold(r, w.machine) }) {
			continue
		}
		n := &Notice{ID: e.EventID, Kind: e.EventType}
		switch e.EventType {
		case "Terminate", "Preempt", "Reboot", "Redeploy":
		case "Freeze":
			n.Stays = true
			if d := e.DurationInSeconds; d != nil && *d >= 0 && time.Duration(*d)*time.Second < shortFreeze {
				continue
			}
		default:
			continue
		}
		if at, err := http.ParseTime(e.NotBefore); err == nil {
			n.Deadline = at
		}
		if first == nil || first.Stays && !n.Stays || first.Stays == n.Stays && n.Deadline.Before(first.Deadline) {
			first = n
		}
	}
	return first
}

func (w *Watcher) set(n *Notice) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch old := w.notice; {
	case n == nil && old != nil:
		w.cfg.Log.Info("the cloud has withdrawn its notice, or it is over", "event", old.Kind, "id", old.ID)
	case n != nil && (old == nil || old.ID != n.ID):
		w.cfg.Log.Warn("the cloud gives notice", "event", n.Kind, "machine", w.machine, "not_before", n.Deadline, "id", n.ID)
	}
	w.notice = n
}

// Acknowledge says that the event need not wait for its time.
func (w *Watcher) Acknowledge(ctx context.Context, n *Notice) error {
	type request struct {
		EventID string `json:"EventId"`
	}
	b, err := json.Marshal(struct{ StartRequests []request }{[]request{{n.ID}}})
	if err != nil {
		return err
	}
	if _, err := w.ask(ctx, http.MethodPost, eventsURL, b); err != nil {
		return fmt.Errorf("acknowledge %s %s: %w", n.Kind, n.ID, err)
	}
	return nil
}

func (w *Watcher) ask(ctx context.Context, method, path string, body []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, w.cfg.Service+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Metadata", "true")
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := w.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	got, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, err
	}
	if resp.StatusCode/100 != 2 {
		return nil, fmt.Errorf("the service says %s", resp.Status)
	}
	return got, nil
}
