// Package compose_test holds compose.yaml, its Dockerfile and its first step to what docs/deploy/compose.md says of them.
//
// Imports: cluster, internal/config.
package compose_test

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"

	"sluice/cluster"
	"sluice/internal/config"
)

type service struct {
	Image       string
	Command     []string
	Environment map[string]string
	Secrets     []string
	Ports       []string
	Volumes     []string
	ReadOnly    bool     `yaml:"read_only"`
	CapDrop     []string `yaml:"cap_drop"`
	StopGrace   string   `yaml:"stop_grace_period"`
	Restart     string
	DependsOn   map[string]struct{ Condition string } `yaml:"depends_on"`
	Healthcheck struct{ Test []string }
	Networks    map[string]struct {
		Address string `yaml:"ipv4_address"`
	}
}

type project struct {
	Services map[string]service
	Networks map[string]struct {
		IPAM struct{ Config []struct{ Subnet string } }
	}
	Volumes map[string]any
	Secrets map[string]struct{ File string }
}

func readProject(t *testing.T) project {
	t.Helper()
	src, err := os.ReadFile("compose.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var p project
	if err := yaml.Unmarshal(src, &p); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestServices(t *testing.T) {
	p := readProject(t)
	subnet := netip.MustParsePrefix(p.Networks["cluster"].IPAM.Config[0].Subnet)
	addresses, published := map[string]string{}, map[string]string{}
	for name, s := range p.Services {
		at := netip.MustParseAddr(s.Networks["cluster"].Address)
		if !subnet.Contains(at) || addresses[at.String()] != "" {
			t.Errorf("%s has the address %s, in %s and also of %q", name, at, subnet, addresses[at.String()])
		}
		addresses[at.String()] = name
		for _, port := range s.Ports {
			if published[port] != "" {
				t.Errorf("%s and %s both publish %s", name, published[port], port)
			}
			published[port] = name
		}
		for _, secret := range s.Secrets {
			if p.Secrets[secret].File == "" {
				t.Errorf("%s wants the secret %s, which there is not", name, secret)
			}
		}
		for key, value := range s.Environment {
			if strings.Contains(key, "PASSWORD") && !strings.HasSuffix(key, "_FILE") || strings.Contains(value, "://") {
				t.Errorf("%s: %s is in the environment, where docker inspect shows it", name, key)
			}
		}
		if !regexp.MustCompile(`:.+`).MatchString(s.Image) || strings.HasSuffix(s.Image, ":latest") {
			t.Errorf("%s: image %q has no version", name, s.Image)
		}
	}
	mongo := p.Services["mongo"]
	if len(mongo.Ports) > 0 || mongo.Environment["MONGO_INITDB_ROOT_PASSWORD_FILE"] == "" || len(mongo.Healthcheck.Test) == 0 || !slices.ContainsFunc(mongo.Volumes, func(v string) bool { return strings.HasSuffix(v, ":/data/db") }) {
		t.Errorf("MongoDB must have a password, a volume, a health check and no port: %+v", mongo)
	}
}

// TestNodes: what Sluice's services are told is understood, and they may do no more than they must.
func TestNodes(t *testing.T) {
	p := readProject(t)
	roles := map[string]int{}
	for name, s := range p.Services {
		if name == "mongo" {
			continue
		}
		roles[s.Environment["SLUICE_NODE_ROLE"]]++
		if unknown := config.Unknown(s.Environment); len(unknown) > 0 {
			t.Errorf("%s: %v", name, unknown)
		}
		cfg, err := config.Load("", s.Environment)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if grace, err := time.ParseDuration(s.StopGrace); err != nil || grace < cfg.Node.DrainDeadline+20*time.Second {
			t.Errorf("%s is killed after %s (%v); a node drains for %s", name, s.StopGrace, err, cfg.Node.DrainDeadline)
		}
		if !s.ReadOnly || !slices.Equal(s.CapDrop, []string{"ALL"}) || s.Restart != "on-failure" || s.DependsOn["mongo"].Condition != "service_healthy" {
			t.Errorf("%s: read_only %v, cap_drop %v, restart %s, depends_on %v", name, s.ReadOnly, s.CapDrop, s.Restart, s.DependsOn)
		}
		if s.Command[0] == "gateway" {
			g := config.Default().Gateway
			want := []string{"443:443", "5443:5443", "80:80"}
			if !slices.Equal(s.Ports, want) || g.Publish != ":443" || g.Play != ":5443" || g.Redirect != ":80" || s.Healthcheck.Test[2] != "healthy" {
				t.Errorf("%s publishes %v, want %v; health check %v", name, s.Ports, want, s.Healthcheck.Test)
			}
			continue
		}
		port := strings.TrimPrefix(cfg.Node.Media, ":")
		if want := []string{fmt.Sprintf("%s:%[1]s/udp", port), fmt.Sprintf("%s:%[1]s/tcp", port)}; !slices.Equal(s.Ports, want) {
			t.Errorf("%s publishes %v, want %v: clients are told the port inside", name, s.Ports, want)
		}
		if cfg.Node.ID != name || cfg.Node.Address != s.Networks["cluster"].Address {
			t.Errorf("%s calls itself %s at %s", name, cfg.Node.ID, cfg.Node.Address)
		}
	}
	if roles["origin"] != 1 || roles["edge"] != 2 || roles[""] != 1 {
		t.Errorf("roles %v, want an origin, two edges and a gateway", roles)
	}
}

func TestDockerfile(t *testing.T) {
	src, err := os.ReadFile("Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	stages := strings.Split(string(src), "\nFROM ")
	last := stages[len(stages)-1]
	for _, want := range []string{"CGO_ENABLED=0"} {
		if !strings.Contains(string(src), want) {
			t.Errorf("it lacks %s", want)
		}
	}
	for _, want := range []string{"scratch\n", "\nUSER 65532:65532\n", "\nHEALTHCHECK ", `CMD ["/sluice", "healthy"]`, `ENTRYPOINT ["/sluice"]`} {
		if !strings.Contains(last, want) {
			t.Errorf("the last stage lacks %q", want)
		}
	}
	mod, err := os.ReadFile("../../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	version := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindSubmatch(mod)
	if !strings.Contains(string(src), "FROM golang:"+string(version[1])+"-") {
		t.Errorf("it builds with another Go than %s", version[1])
	}
}

// TestInit: the first step makes files that Sluice understands, keeps them the second time, and says what it wants.
func TestInit(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("openssl is not installed")
	}
	dir := t.TempDir()
	script, err := os.ReadFile("init.sh")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "init.sh"), script, 0o644); err != nil {
		t.Fatal(err)
	}
	initialize := func(args ...string) (string, error) {
		out, err := exec.Command("sh", append([]string{filepath.Join(dir, "init.sh")}, args...)...).CombinedOutput()
		return string(out), err
	}
	for _, bad := range []string{"", "my host", "a$(id)", "example.org"} {
		if out, err := initialize(bad); err == nil || !strings.Contains(out, "usage:") {
			t.Errorf("%q: %v, %s", bad, err, out)
		}
	}
	if out, err := initialize("192.0.2.7"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for name, s := range readProject(t).Secrets {
		if info, err := os.Stat(filepath.Join(dir, s.File)); err != nil || info.Size() == 0 || info.Mode().Perm() != 0o444 {
			t.Errorf("secret %s: %v, %v", name, info, err)
		}
	}
	if info, err := os.Stat(filepath.Join(dir, "secrets")); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the folder: %v, %v", info.Mode(), err)
	}
	settings := filepath.Join(dir, "secrets/sluice.yaml")
	first, err := os.ReadFile(settings)
	if err != nil {
		t.Fatal(err)
	}
	cfg, mistakes := config.Parse(first)
	if len(mistakes) > 0 {
		t.Fatal(mistakes)
	}
	kind, _, err := cluster.ParseStore(cfg.Store)
	if err != nil || kind != cluster.MongoDB || !slices.Equal(cfg.Node.Announce, []string{"192.0.2.7"}) {
		t.Errorf("settings: %v, %v, %v", kind, err, cfg.Node.Announce)
	}
	host := readProject(t).Services["mongo"].Networks["cluster"].Address
	if !strings.Contains(cfg.Store, "@"+host+"/sluice?") || cfg.Node.TrustedProxies[0] != readProject(t).Services["gateway"].Networks["cluster"].Address {
		t.Error("the settings have another address of MongoDB or of the gateway than compose.yaml")
	}
	if out, err := initialize("192.0.2.8"); err != nil {
		t.Fatalf("again: %v: %s", err, out)
	}
	if again, _ := os.ReadFile(settings); string(again) != string(first) {
		t.Error("the second time it wrote other settings; the database has the first password")
	}
}
