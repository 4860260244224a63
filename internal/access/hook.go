package access

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"
)

const (
	// answerWithin is how long a client waits for somebody else's server: the Ant Media SDK starts anew after 3 s.
	answerWithin = 2 * time.Second
	// mostAsking at once. Who comes when there are as many waits within answerWithin.
	mostAsking = 64
)

// question is what a webhook is asked.
type question struct {
	AppName        string              `json:"appName"`
	Name           string              `json:"name"`
	StreamID       string              `json:"streamId"`
	Mode           Action              `json:"mode"`
	Origin         string              `json:"origin,omitempty"`
	Token          string              `json:"token"`
	SubscriberID   string              `json:"subscriberId"`
	SubscriberCode string              `json:"subscriberCode"`
	MetaData       string              `json:"metaData"`
	QueryParams    map[string][]string `json:"queryParams"`
	RemoteIP       string              `json:"remoteIp,omitempty"`
}

// ask admits when the webhook's answer is 200.
func (g *Guard) ask(ctx context.Context, rule Rule, r Request) error {
	err := g.answer(ctx, rule.Webhook, r)
	if err != nil && severity(err) == severity(ErrNoAnswer) {
		g.log.Warn("a webhook that decides on access did not answer", "stream", r.Stream.String(), "action", string(r.Action), "admitted", rule.WebhookOpen, "error", err)
		if rule.WebhookOpen {
			return nil
		}
		return ErrNoAnswer // why is for the log
	}
	return err
}

func (g *Guard) answer(ctx context.Context, to string, r Request) error {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	select {
	case g.asking <- struct{}{}:
		defer func() { <-g.asking }()
	case <-ctx.Done():
		return fmt.Errorf("%w: too many wait for it", ErrNoAnswer)
	}
	query, _ := url.ParseQuery(r.Query) // what can be read of it
	q := question{AppName: r.Stream.App, Name: r.Name, StreamID: r.Stream.ID, Mode: r.Action, Origin: r.Origin, Token: r.Token,
		SubscriberID: r.SubscriberID, SubscriberCode: r.SubscriberCode, MetaData: r.Metadata, QueryParams: query}
	if q.Name == "" {
		q.Name = r.Stream.ID
	}
	if r.Remote.IsValid() {
		q.RemoteIP = r.Remote.String()
	}
	b, err := json.Marshal(q)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNoAnswer, err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to, bytes.NewReader(b))
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNoAnswer, err)
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := g.cfg.Client.Do(req)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNoAnswer, err)
	}
	defer func() { _ = res.Body.Close() }()
	_, _ = io.CopyN(io.Discard, res.Body, 4<<10) // so that the connection may be used again
	switch {
	case res.StatusCode == http.StatusOK:
		return nil
	case res.StatusCode >= 500:
		return fmt.Errorf("%w: its status was %d", ErrNoAnswer, res.StatusCode)
	}
	return fmt.Errorf("%w: the application's server refused it", ErrForbidden)
}
