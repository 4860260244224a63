package api

import (
	"context"
	"net/http"
	"time"

	"sluice/internal/auth"
	"sluice/internal/webhook"
)

const tagWebhooks = "Webhooks"

// WebhookDelivery is something that a customer's server was told, or will be.
type WebhookDelivery struct {
	ID       string          `json:"id"`
	State    string          `json:"state" enum:"pending,waiting,delivered,failed"`
	StreamID string          `json:"streamId"`
	Events   []webhook.Event `json:"events" doc:"They are sent one after the other."`
	Attempts int             `json:"attempts"`
	Status   int             `json:"status,omitempty" doc:"Of HTTP, last."`
	Error    string          `json:"error,omitempty"`
	Created  time.Time       `json:"created"`
	At       time.Time       `json:"at" doc:"When it was delivered or given up; of one that waits: when it is tried again."`
}

func (a *API) webhooks() {
	list := operation{method: http.MethodGet, tag: tagWebhooks, needs: auth.SettingsRead, does: "What a server was told, or will be", more: "The newest is first. What was delivered is kept for a day, what failed for 30."}
	again := operation{method: http.MethodPost, tag: tagWebhooks, needs: auth.SettingsWrite, does: "Send something again"}
	list.path, list.id = "/{app}/rest/v2/webhooks/deliveries", "listDeliveries"
	register(a, list, a.appDeliveries)
	list.path, list.id = "/rest/v2/webhooks/deliveries", "listServerDeliveries"
	register(a, list, a.serverDeliveries)
	again.path, again.id = "/{app}/rest/v2/webhooks/deliveries/{id}/redeliver", "redeliver"
	register(a, again, a.redeliverApp)
	again.path, again.id = "/rest/v2/webhooks/deliveries/{id}/redeliver", "redeliverServer"
	register(a, again, a.redeliverServer)
}

// OfState is which deliveries, and how many.
type OfState struct {
	State  string `query:"state" enum:",pending,waiting,delivered,failed" doc:"Empty: all."`
	Offset int    `query:"offset" minimum:"0" maximum:"100000000" default:"0"`
	Size   int    `query:"size" minimum:"1" maximum:"500" default:"50"`
}

type deliveriesOutput struct {
	Total int `header:"X-Total-Count"`
	Body  []WebhookDelivery
}

type appDeliveriesInput struct {
	InApp
	OfState
}

func (a *API) appDeliveries(ctx context.Context, in *appDeliveriesInput) (*deliveriesOutput, error) {
	if _, err := a.app(in.App); err != nil {
		return nil, err
	}
	return a.deliveries(ctx, in.App, in.OfState)
}

func (a *API) serverDeliveries(ctx context.Context, in *OfState) (*deliveriesOutput, error) {
	return a.deliveries(ctx, "", *in)
}

func (a *API) deliveries(ctx context.Context, app string, in OfState) (*deliveriesOutput, error) {
	out := &deliveriesOutput{Body: []WebhookDelivery{}}
	list, total, err := a.deps.Webhooks.Deliveries(ctx, app, in.State, in.Offset, in.Size)
	for _, d := range list {
		out.Body = append(out.Body, WebhookDelivery{ID: d.ID, State: d.State, StreamID: d.Stream, Events: d.Events, Attempts: d.Attempts, Status: d.Status,
			Error: d.Error, Created: d.Created, At: d.At})
	}
	out.Total = total
	return out, err
}

type redeliverInput struct {
	InApp
	ID string `path:"id" minLength:"1" maxLength:"256"`
}

func (a *API) redeliverApp(ctx context.Context, in *redeliverInput) (*answer, error) {
	_, err := a.app(in.App)
	if err == nil {
		err = a.deps.Webhooks.Redeliver(ctx, in.App, in.ID)
	}
	a.record(ctx, "send a webhook again", in.ID, in.App, err)
	return done("it is sent again"), err
}

func (a *API) redeliverServer(ctx context.Context, in *idInput) (*answer, error) {
	err := a.deps.Webhooks.Redeliver(ctx, "", in.ID)
	a.record(ctx, "send a webhook again", in.ID, "", err)
	return done("it is sent again"), err
}
