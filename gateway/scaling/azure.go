package scaling

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"sluice/cluster"
)

const (
	// pushEvery: Azure Monitor keeps one figure a minute.
	pushEvery  = time.Minute
	pushWithin = 10 * time.Second
	// azureMetadata is where every machine of Azure asks about itself.
	azureMetadata = "http://169.254.169.254"
	// tokenSlack is how long before its end a token is replaced.
	tokenSlack = 5 * time.Minute
)

// Azure is where the signal is told to Azure Monitor, as custom metrics of scale sets, so that their autoscale rules can use it.
type Azure struct {
	Endpoint string // such as https://westeurope.monitoring.azure.com, of the scale sets' region; "": not told
	Edges    string // resource id of the edges' scale set: /subscriptions/…/virtualMachineScaleSets/NAME; "": not told
	Origins  string // and of the origins'
	Region   string // of the nodes that are meant, as they call it

	metadata string        // for tests; "": azureMetadata
	every    time.Duration // for tests; 0: pushEvery
}

// azure sends the signal with the identity of the machine, which needs the role "Monitoring Metrics Publisher" on the scale sets.
type azure struct {
	cfg      Azure
	audience string
	client   *http.Client

	token string
	until time.Time
}

func newAzure(cfg Azure) (*azure, error) {
	if cfg.Endpoint == "" {
		return nil, nil
	}
	u, err := url.Parse(cfg.Endpoint)
	if err != nil || u.Host == "" {
		return nil, fmt.Errorf("Azure endpoint %q is not like https://westeurope.monitoring.azure.com", cfg.Endpoint)
	}
	_, cloud, ok := strings.Cut(u.Host, ".") // without the region: monitoring.azure.com, .us or .cn
	if !ok {
		cloud = u.Host
	}
	cfg.metadata, cfg.every = cmp.Or(cfg.metadata, azureMetadata), cmp.Or(cfg.every, pushEvery)
	return &azure{cfg: cfg, audience: "https://" + cloud + "/", client: &http.Client{
		Timeout:   pushWithin,
		Transport: &http.Transport{Proxy: nil}, // the metadata service is no proxy's business
	}}, nil
}

// run sends until ctx ends. Trouble is told once, and when it is over.
func (a *azure) run(ctx context.Context, signals func() []cluster.Signal, log *slog.Logger) {
	defer a.client.CloseIdleConnections()
	tick := time.NewTicker(a.cfg.every)
	defer tick.Stop()
	failing := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		err := a.push(ctx, signals(), time.Now())
		switch {
		case ctx.Err() != nil:
			return
		case err != nil && !failing:
			log.Warn("Azure Monitor does not get the scaling signal", "error", err)
		case err == nil && failing:
			log.Info("Azure Monitor gets the scaling signal again")
		}
		failing = err != nil
	}
}

// push sends the signal of each group that has a scale set.
func (a *azure) push(ctx context.Context, signals []cluster.Signal, now time.Time) error {
	for _, s := range signals {
		resource := map[cluster.Role]string{cluster.Edge: a.cfg.Edges, cluster.Origin: a.cfg.Origins}[s.Role]
		if resource == "" || s.Region != a.cfg.Region {
			continue
		}
		for _, m := range []struct {
			name  string
			value float64
		}{
			{"Load", 100 * s.Recent},                  // percent
			{"Desired", float64(s.Desired)},           // nodes
			{"Missing", float64(s.Desired - s.Nodes)}, // nodes to add; negative: to remove
		} {
			if err := a.send(ctx, resource, metric(m.name, m.value, string(s.Role), now)); err != nil {
				return err
			}
		}
	}
	return nil
}

// customMetric is a value as Azure Monitor takes it ("Ingest custom metrics for an Azure resource by using the REST API").
type customMetric struct {
	Time string `json:"time"`
	Data struct {
		BaseData baseData `json:"baseData"`
	} `json:"data"`
}

type baseData struct {
	Metric    string         `json:"metric"`
	Namespace string         `json:"namespace"`
	DimNames  []string       `json:"dimNames"`
	Series    []metricSeries `json:"series"`
}

type metricSeries struct {
	DimValues []string `json:"dimValues"`
	Min       float64  `json:"min"`
	Max       float64  `json:"max"`
	Sum       float64  `json:"sum"`
	Count     int      `json:"count"`
}

func metric(name string, value float64, role string, at time.Time) customMetric {
	m := customMetric{Time: at.UTC().Format("2006-01-02T15:04:05Z")}
	m.Data.BaseData = baseData{Metric: name, Namespace: "Sluice", DimNames: []string{"Role"},
		Series: []metricSeries{{DimValues: []string{role}, Min: value, Max: value, Sum: value, Count: 1}}}
	return m
}

func (a *azure) send(ctx context.Context, resource string, m customMetric) error {
	token, err := a.identity(ctx)
	if err != nil {
		return err
	}
	body, err := json.Marshal(m)
	if err != nil {
		return err
	}
	at := strings.TrimSuffix(a.cfg.Endpoint, "/") + "/" + strings.Trim(resource, "/") + "/metrics"
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, at, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+token)
	if _, err := a.do(req); err != nil {
		a.token = "" // it may have been withdrawn
		return fmt.Errorf("send metric %q to Azure Monitor (the machine's identity needs the role Monitoring Metrics Publisher on the scale set): %w", m.Data.BaseData.Metric, err)
	}
	return nil
}

// identity returns a token of the machine's managed identity, from the metadata service.
func (a *azure) identity(ctx context.Context) (string, error) {
	if a.token != "" && time.Now().Before(a.until) {
		return a.token, nil
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet,
		a.cfg.metadata+"/metadata/identity/oauth2/token?api-version=2018-02-01&resource="+url.QueryEscape(a.audience), nil)
	if err != nil {
		return "", err
	}
	req.Header.Set("Metadata", "true")
	body, err := a.do(req)
	if err != nil {
		return "", fmt.Errorf("get a token of this machine's managed identity (has it one?): %w", err)
	}
	var t struct {
		Token   string `json:"access_token"`
		Expires string `json:"expires_in"` // seconds, as text
	}
	if err := json.Unmarshal(body, &t); err != nil || t.Token == "" {
		return "", fmt.Errorf("the metadata service's answer has no token: %.100s", body)
	}
	seconds, _ := strconv.Atoi(t.Expires) // 0: for this time only
	a.token, a.until = t.Token, time.Now().Add(time.Duration(seconds)*time.Second-tokenSlack)
	return a.token, nil
}

// do returns the body of a good answer.
func (a *azure) do(req *http.Request) ([]byte, error) {
	res, err := a.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(res.Body, 64<<10))
	if err != nil {
		return nil, err
	}
	if res.StatusCode/100 != 2 {
		return nil, fmt.Errorf("%s: %.200s", res.Status, body)
	}
	return body, nil
}
