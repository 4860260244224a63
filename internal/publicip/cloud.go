package publicip

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"time"
)

const maxAnswer = 64 << 10

// errNoPublic: the cloud knows the machine, which has no public address.
var errNoPublic = errors.New("knows this machine, but no public address of it")

// service is what a cloud says about its machines to themselves.
type service struct {
	base   string
	client *http.Client
}

func newService(base string) *service {
	// The service is on the machine's own link: no proxy knows it.
	return &service{base: base, client: &http.Client{Timeout: cloudWithin, Transport: &http.Transport{Proxy: nil}}}
}

// azure: "Azure Instance Metadata Service". Addresses of the SKU Standard are only in what it says of load balancers, also where there is none.
func (s *service) azure(ctx context.Context) (Found, error) {
	header := http.Header{"Metadata": {"true"}}
	body, err := s.ask(ctx, http.MethodGet, "/metadata/instance/network/interface/0/ipv4/ipAddress/0?api-version=2021-02-01", header)
	if err != nil {
		return Found{}, err
	}
	var own struct{ PrivateIPAddress, PublicIPAddress string }
	if err := json.Unmarshal(body, &own); err != nil || own.PrivateIPAddress == "" {
		return Found{}, fmt.Errorf("Azure's answer has no address: %.100s", body)
	}
	if own.PublicIPAddress == "" {
		body, err := s.ask(ctx, http.MethodGet, "/metadata/loadbalancer?api-version=2020-10-01", header)
		if err != nil && !errors.Is(err, errNotThere) {
			return Found{}, err
		}
		var lb struct {
			LoadBalancer struct {
				PublicIPAddresses []struct{ FrontendIPAddress, PrivateIPAddress string }
			}
		}
		_ = json.Unmarshal(body, &lb) // what can't be read has no address
		for _, a := range lb.LoadBalancer.PublicIPAddresses {
			if a.PrivateIPAddress == own.PrivateIPAddress {
				own.PublicIPAddress = a.FrontendIPAddress
			}
		}
	}
	return found("Azure", own.PublicIPAddress, own.PrivateIPAddress)
}

// aws: "Use IMDSv2", which wants a token first.
func (s *service) aws(ctx context.Context) (Found, error) {
	token, err := s.ask(ctx, http.MethodPut, "/latest/api/token", http.Header{"X-Aws-Ec2-Metadata-Token-Ttl-Seconds": {"60"}})
	if err != nil {
		return Found{}, err
	}
	header := http.Header{"X-Aws-Ec2-Metadata-Token": {strings.TrimSpace(string(token))}}
	private, err := s.ask(ctx, http.MethodGet, "/latest/meta-data/local-ipv4", header)
	if err != nil {
		return Found{}, err
	}
	public, err := s.ask(ctx, http.MethodGet, "/latest/meta-data/public-ipv4", header)
	if err != nil && !errors.Is(err, errNotThere) { // 404: it has none
		return Found{}, err
	}
	return found("AWS", string(public), string(private))
}

// google: "View and query VM metadata".
func (s *service) google(ctx context.Context) (Found, error) {
	header := http.Header{"Metadata-Flavor": {"Google"}}
	const nic = "/computeMetadata/v1/instance/network-interfaces/0/"
	private, err := s.ask(ctx, http.MethodGet, nic+"ip", header)
	if err != nil {
		return Found{}, err
	}
	public, err := s.ask(ctx, http.MethodGet, nic+"access-configs/0/external-ip", header)
	if err != nil && !errors.Is(err, errNotThere) {
		return Found{}, err
	}
	return found("Google Cloud", string(public), string(private))
}

func found(by, public, private string) (Found, error) {
	f := Found{By: by}
	f.Private, _ = netip.ParseAddr(strings.TrimSpace(private)) // not valid: not known
	var err error
	if f.Public, err = netip.ParseAddr(strings.TrimSpace(public)); err != nil {
		return Found{}, fmt.Errorf("%s %w", by, errNoPublic)
	}
	return f, nil
}

var errNotThere = errors.New("not there")

// ask tries twice: services answer 429 and 5xx while a machine starts.
func (s *service) ask(ctx context.Context, method, path string, header http.Header) (body []byte, err error) {
	for try := range 2 {
		if try > 0 {
			select {
			case <-ctx.Done():
				return nil, ctx.Err()
			case <-time.After(200 * time.Millisecond):
			}
		}
		var again bool
		if body, again, err = s.askOnce(ctx, method, path, header); !again {
			break
		}
	}
	return body, err
}

func (s *service) askOnce(ctx context.Context, method, path string, header http.Header) (body []byte, again bool, err error) {
	req, err := http.NewRequestWithContext(ctx, method, s.base+path, nil)
	if err != nil {
		return nil, false, err
	}
	req.Header = header.Clone()
	res, err := s.client.Do(req)
	if err != nil {
		return nil, false, err
	}
	defer func() { _ = res.Body.Close() }()
	body, err = io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	switch {
	case err != nil:
		return nil, false, err
	case res.StatusCode == http.StatusNotFound:
		return nil, false, errNotThere
	case res.StatusCode/100 != 2:
		again = res.StatusCode == http.StatusTooManyRequests || res.StatusCode >= 500
		return nil, again, fmt.Errorf("the service says %s", res.Status)
	}
	return body, false, nil
}
