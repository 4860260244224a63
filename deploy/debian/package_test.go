// Package debian_test holds the Debian package and its units to what docs/deploy/systemd.md says of them.
//
// Imports: internal/config.
package debian_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"

	"sluice/internal/config"
)

const top = "../.."

// recipe is what we look at of nfpm.yaml.
type recipe struct {
	Name     string
	Contents []struct {
		Src, Dst string
		FileInfo struct{ Mode int } `yaml:"file_info"`
	}
	Scripts map[string]string
}

func readRecipe(t *testing.T) recipe {
	t.Helper()
	src, err := os.ReadFile("nfpm.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var r recipe
	if err := yaml.Unmarshal(src, &r); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestRecipe(t *testing.T) {
	r := readRecipe(t)
	sources := map[string]bool{}
	for _, c := range r.Contents {
		sources[c.Src] = true
		if !strings.Contains(c.Src, "${") {
			if _, err := os.Stat(filepath.Join(top, c.Src)); err != nil {
				t.Errorf("%s of the package: %v", c.Dst, err)
			}
		}
		if strings.HasPrefix(c.Dst, "/etc/") {
			t.Errorf("%s: dpkg would ask about changes of files in /etc; sluice join writes them", c.Dst)
		}
	}
	units, err := filepath.Glob(filepath.Join(top, "deploy/systemd/*"))
	if err != nil || len(units) == 0 {
		t.Fatalf("no units: %v", err)
	}
	for _, u := range units {
		if rel, _ := filepath.Rel(top, u); !sources[rel] {
			t.Errorf("%s is not in the package", rel)
		}
	}
	for when, script := range r.Scripts {
		if out, err := exec.Command("sh", "-n", filepath.Join(top, script)).CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s", when, err, out)
		}
	}
}

// unit is a unit file: values by "Section.Key".
func unit(t *testing.T, name string) map[string][]string {
	t.Helper()
	src, err := os.ReadFile(filepath.Join(top, "deploy/systemd", name))
	if err != nil {
		t.Fatal(err)
	}
	values, section := map[string][]string{}, ""
	for line := range strings.Lines(string(src)) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "[") {
			section = strings.Trim(line, "[]")
		} else if key, value, ok := strings.Cut(line, "="); ok && !strings.HasPrefix(line, "#") {
			values[section+"."+key] = append(values[section+"."+key], value)
		}
	}
	return values
}

func TestUnits(t *testing.T) {
	for name, want := range map[string]map[string]string{
		"sluice-node.service": {
			"Service.ExecStart": "/usr/bin/sluice serve --config /etc/sluice/sluice.yaml", "Service.User": "sluice",
			"Service.Restart": "on-failure", "Service.CapabilityBoundingSet": "", "Service.ProtectSystem": "strict",
		},
		"sluice-gateway.service": {
			"Service.ExecStart": "/usr/bin/sluice gateway --config /etc/sluice/sluice.yaml", "Service.User": "sluice",
			"Service.AmbientCapabilities": "CAP_NET_BIND_SERVICE", "Service.ProtectSystem": "strict",
		},
	} {
		t.Run(name, func(t *testing.T) {
			got := unit(t, name)
			for key, value := range want {
				if len(got[key]) != 1 || got[key][0] != value {
					t.Errorf("%s is %q, want %q", key, got[key], value)
				}
			}
		})
	}
	stop, err := strconv.Atoi(strings.TrimSuffix(unit(t, "sluice-node.service")["Service.TimeoutStopSec"][0], "s"))
	if drain := config.Default().Node.DrainDeadline; err != nil || time.Duration(stop)*time.Second < drain+30*time.Second {
		t.Errorf("systemd kills a node after %d s, which leaves no room for draining in %s and stopping (%v)", stop, drain, err)
	}
}

// TestSystemdIsContent asks systemd itself, where it is installed.
func TestSystemdIsContent(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("systemd-analyze is not installed")
	}
	for _, name := range []string{"sluice-node.service", "sluice-gateway.service"} {
		t.Run(name, func(t *testing.T) {
			src, err := os.ReadFile(filepath.Join(top, "deploy/systemd", name))
			if err != nil {
				t.Fatal(err)
			}
			copied := filepath.Join(t.TempDir(), name) // with a program that is there
			program, _ := exec.LookPath("true")
			text := strings.ReplaceAll(string(src), "/usr/bin/sluice", program)
			if err := os.WriteFile(copied, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
			out, err := exec.Command(analyze, "verify", copied).CombinedOutput()
			if err != nil || strings.Contains(string(out), name+":") {
				t.Errorf("systemd-analyze verify: %v\n%s", err, out)
			}
			// 10 is open to everything, 0 to nothing; units that nobody has thought about have 9.6.
			out, err = exec.Command(analyze, "security", "--offline=true", "--no-pager", "--threshold=20", copied).CombinedOutput()
			if err != nil && !strings.Contains(string(out), "unrecognized option") {
				t.Errorf("systemd-analyze security: %v\n%s", err, out)
			}
		})
	}
}
