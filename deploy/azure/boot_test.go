package azure_test

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
)

// cloudConfig is what a machine is given.
type cloudConfig struct {
	WriteFiles []struct{ Path, Permissions, Encoding, Content string } `yaml:"write_files"`
	RunCmd     [][]string                                              `yaml:"runcmd"`
}

// render makes a machine's custom data as the scale sets do.
func render(t *testing.T, template, script string, values map[string]string) (text string, cfg cloudConfig) {
	t.Helper()
	e, diags := hclsyntax.ParseTemplate([]byte(read(t, template)), template, hcl.InitialPos)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	vars := map[string]cty.Value{}
	for k, v := range values {
		vars[k] = cty.StringVal(v)
	}
	v, diags := e.Value(&hcl.EvalContext{Functions: functions(), Variables: map[string]cty.Value{
		"script": cty.StringVal(base64.StdEncoding.EncodeToString([]byte(read(t, script)))), "values": cty.MapVal(vars)}})
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	if err := yaml.UnmarshalWithOptions([]byte(v.AsString()), &cfg, yaml.Strict()); err != nil {
		t.Fatalf("%v\n%s", err, v.AsString())
	}
	return v.AsString(), cfg
}

func TestCloudInit(t *testing.T) {
	awkward := map[string]string{"ROLE": "edge", "SETTINGS": `node.region=it's log.format=json`, "EMPTY": "", "URL": "https://x/a?b=$HOME&c=`id`"}
	for _, tc := range []struct{ template, script, program string }{
		{"cloud-init/node.yaml.tftpl", "cloud-init/node.sh", "/usr/local/sbin/sluice-boot"},
		{"cloud-init/registry.yaml.tftpl", "cloud-init/registry.sh", "/usr/local/sbin/sluice-registry"},
	} {
		t.Run(tc.script, func(t *testing.T) {
			text, cfg := render(t, tc.template, tc.script, awkward)
			if n := base64.StdEncoding.EncodedLen(len(text)); n > 64<<10 {
				t.Errorf("custom data has %d bytes; Azure takes 64 KiB", n)
			}
			if len(cfg.WriteFiles) != 2 || len(cfg.RunCmd) != 1 || cfg.RunCmd[0][0] != tc.program || cfg.WriteFiles[0].Path != tc.program {
				t.Fatalf("it does %+v", cfg)
			}
			script, err := base64.StdEncoding.DecodeString(cfg.WriteFiles[0].Content)
			if err != nil || string(script) != read(t, tc.script) || cfg.WriteFiles[0].Permissions != "0755" || cfg.WriteFiles[0].Encoding != "b64" {
				t.Error("the script does not come through")
			}
			values := cfg.WriteFiles[1]
			if values.Path != "/etc/default/"+filepath.Base(tc.program) || values.Permissions != "0600" {
				t.Errorf("values go to %s, %s", values.Path, values.Permissions)
			}
			for name, want := range awkward {
				out, err := exec.Command("sh", "-euc", values.Content+"\nprintf %s \"$"+name+"\"").Output()
				if err != nil || string(out) != want {
					t.Errorf("the script sees %s as %q, %v; want %q", name, out, err, want)
				}
			}
			file := filepath.Join(t.TempDir(), "custom-data.yaml")
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := exec.LookPath("cloud-init"); err != nil {
				t.Log("cloud-init is not installed: it is not asked")
			} else if out, err := exec.Command("cloud-init", "schema", "--config-file", file).CombinedOutput(); err != nil || !strings.Contains(string(out), "Valid cloud-config") {
				t.Errorf("cloud-init schema: %v\n%s", err, out)
			}
			if out, err := exec.Command("sh", "-n", tc.script).CombinedOutput(); err != nil {
				t.Errorf("sh -n: %v\n%s", err, out)
			}
		})
	}
}

// cloud is Azure as a machine sees it when it boots: identity, vault and storage.
type cloud struct {
	*httptest.Server
	notYet atomic.Int32 // so often the vault does not know the registry yet
	bad    atomic.Int32 // requests without the right token
}

const packageText = "a Debian package"

func newCloud(t *testing.T) *cloud {
	c := &cloud{}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metadata/identity/oauth2/token", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Metadata") != "true" || r.URL.Query().Get("client_id") != "me" {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]string{"access_token": "for " + r.URL.Query().Get("resource")})
	})
	only := func(audience string, h http.HandlerFunc) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Authorization") != "Bearer for "+audience {
				c.bad.Add(1)
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			h(w, r)
		}
	}
	mux.HandleFunc("GET /releases/x.deb", only("https://storage.azure.com/", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, packageText) }))
	mux.HandleFunc("GET /secrets/{name}", only("https://vault.azure.net", func(w http.ResponseWriter, r *http.Request) {
		value := map[string]string{"registry-url": "mongodb://u:p\"'$@h/sluice", "registry-ca": "CERTIFICATE\nOF\n", "gateway": "KEY AND CERTIFICATE\n"}[r.PathValue("name")]
		if value == "" || r.PathValue("name") == "registry-url" && c.notYet.Add(-1) >= 0 {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]string{"value": value})
	}))
	c.Server = httptest.NewServer(mux)
	t.Cleanup(c.Close)
	return c
}

// machine is a root of its own in which the boot script runs; dpkg and sluice write down what they are asked.
type machine struct {
	t        *testing.T
	root     string
	commands string
}

func newMachine(t *testing.T) *machine {
	m := &machine{t: t, root: t.TempDir()}
	m.commands = filepath.Join(m.root, "commands")
	programs := filepath.Join(m.root, "programs")
	if err := os.Mkdir(programs, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"dpkg":   "#!/bin/sh\necho \"dpkg $1 $(cat \"$2\")\" >>" + m.commands + "\n",
		"sluice": "#!/bin/sh\nfor a; do case $a in *[!0-9]s|[!0-9]*) printf '%s ' \"$a\";; *) printf 'N ';; esac; done >>" + m.commands + "\necho >>" + m.commands + "\n",
	} {
		if err := os.WriteFile(filepath.Join(programs, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

// boot runs the script with values.
func (m *machine) boot(c *cloud, values map[string]string) (said string, err error) {
	m.t.Helper()
	sum := sha256.Sum256([]byte(packageText))
	all := map[string]string{"ROOT": m.root, "METADATA": c.URL, "CLIENT": "me", "PAUSE": "0.01", "WAIT": "30", "PACKAGE_URL": c.URL + "/releases/x.deb",
		"PACKAGE_SHA256": hex.EncodeToString(sum[:]), "STORE_SECRET": c.URL + "/secrets/registry-url", "CA_SECRET": c.URL + "/secrets/registry-ca"}
	for k, v := range values {
		all[k] = v
	}
	_, cfg := render(m.t, "cloud-init/node.yaml.tftpl", "cloud-init/node.sh", all)
	file := filepath.Join(m.root, "values")
	if err := os.WriteFile(file, []byte(cfg.WriteFiles[1].Content), 0o600); err != nil {
		m.t.Fatal(err)
	}
	cmd := exec.CommandContext(m.t.Context(), "sh", "cloud-init/node.sh")
	cmd.Env = append(os.Environ(), "SLUICE_BOOT="+file, "PATH="+filepath.Join(m.root, "programs")+":"+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (m *machine) file(name string) string {
	b, _ := os.ReadFile(filepath.Join(m.root, name))
	return string(b)
}

func TestBoot(t *testing.T) {
	for _, tc := range []struct {
		name   string
		notYet int32
		values map[string]string
		want   string // commands; ROOT is the machine's
		said   string
		fails  bool
	}{
		{"edge", 0, map[string]string{"ROLE": "edge", "PUBLIC_ADDRESS": "auto", "CLOUD_NOTICE": "azure", "TRUSTED_PROXIES": "10.0.0.0/24", "SETTINGS": "node.play-url=:5443 log.format=json"},
			"dpkg -i a Debian package\njoin --store-file ROOT/etc/sluice/registry-url --role edge --wait N --trusted-proxies N --public-address auto --cloud-notice azure --set node.play-url=:5443 --set log.format=json \n", "joined as edge", false},
		{"origin that tells the signal", 0, map[string]string{"ROLE": "origin", "REGION": "eu", "SIGNAL": "gateway.scale.cpu=0.6"},
			"dpkg -i a Debian package\njoin --store-file ROOT/etc/sluice/registry-url --role origin --wait N --region eu \n" +
				"join --store-file ROOT/etc/sluice/registry-url --role gateway --wait N --set gateway.publish= --set gateway.play= --set gateway.redirect= --set gateway.scale.cpu=0.6 \n", "joined as origin", false},
		{"gateway", 0, map[string]string{"ROLE": "gateway", "CERTIFICATE_SECRET": "VAULT/secrets/gateway"},
			"dpkg -i a Debian package\njoin --store-file ROOT/etc/sluice/registry-url --role gateway --wait N --set gateway.certificate=/etc/sluice/gateway.pem --set gateway.key=/etc/sluice/gateway.pem \n", "joined as gateway", false},
		{"the registry comes later", 3, map[string]string{"ROLE": "edge"}, "dpkg -i a Debian package\njoin --store-file ROOT/etc/sluice/registry-url --role edge --wait N \n", "not yet, trying again: secret", false},
		{"the registry never comes", 1 << 30, map[string]string{"ROLE": "edge", "WAIT": "1"}, "dpkg -i a Debian package\n", "gave up: secret", true},
		{"another package", 0, map[string]string{"ROLE": "edge", "PACKAGE_SHA256": strings.Repeat("0", 64)}, "", "its checksum is not 000", true},
		{"no package", 0, map[string]string{"ROLE": "edge", "PACKAGE_URL": "VAULT/releases/y.deb", "WAIT": "0"}, "", "gave up: get", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			c, m := newCloud(t), newMachine(t)
			c.notYet.Store(tc.notYet)
			for k, v := range tc.values {
				tc.values[k] = strings.ReplaceAll(v, "VAULT", c.URL)
			}
			said, err := m.boot(c, tc.values)
			if (err != nil) != tc.fails || !strings.Contains(said, tc.said) {
				t.Errorf("ended with %v, want it to say %q\n%s", err, tc.said, said)
			}
			if got, want := m.file("commands"), strings.ReplaceAll(tc.want, "ROOT", m.root); got != want {
				t.Errorf("commands\n%s\nwant\n%s", got, want)
			}
			if c.bad.Load() > 0 && !tc.fails {
				t.Error("asked without the right token")
			}
			for _, left := range []string{"var/cache/sluice/header", "var/cache/sluice/token", "var/cache/sluice/sluice.deb", "etc/sluice/registry-url.json"} {
				if m.file(left) != "" {
					t.Errorf("%s is left", left)
				}
			}
			if tc.fails {
				return
			}
			if m.file("etc/sluice/registry-url") != "mongodb://u:p\"'$@h/sluice" || m.file("etc/sluice/registry-ca.pem") != "CERTIFICATE\nOF\n" {
				t.Errorf("the vault's secrets came as %q and %q", m.file("etc/sluice/registry-url"), m.file("etc/sluice/registry-ca.pem"))
			}
			info, err := os.Stat(filepath.Join(m.root, "etc/sluice/registry-url"))
			if err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("the registry's URL: %v, %v", info.Mode(), err)
			}
			// Again, as after a change of settings: nothing is installed twice.
			if said, err := m.boot(c, tc.values); err != nil || strings.Count(m.file("commands"), "dpkg") != 1 {
				t.Errorf("a second time: %v\n%s\n%s", err, said, m.file("commands"))
			}
		})
	}
}
