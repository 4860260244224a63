package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/cluster"
	"sluice/cluster/mongo/mongotest"
	"sluice/cluster/sqlite"
	"sluice/internal/config"
	"sluice/internal/publicip"
)

func TestJoin(t *testing.T) {
	dir := t.TempDir()
	registry := "sqlite:" + filepath.Join(dir, "r.db")
	list := filepath.Join(dir, "store")
	broken := filepath.Join(dir, "broken.yaml")
	for path, text := range map[string]string{list: registry + "\n", broken: "node:\n  rol: edge\n"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const head = "# Written by sluice join. Every setting with its default: /usr/share/doc/sluice/sluice.yaml\n"
	edge := head + "store: \"" + registry + "\"\nnode:\n  role: edge\n  id: e-1\n"
	for _, tc := range []struct {
		name, args string
		env        map[string]string
		before     string // the file; "": none
		code       int
		file       string // afterwards
		out        string // part of the output, or of the error
	}{
		{"new", registry + " --role edge --id e-1", nil, "", 0, edge, "settings  written to FILE\nstart it  sluice serve --config FILE\n"},
		{"by file", "--store-file " + list + " --role edge --id e-1", nil, "", 0, edge, "registry  answers; it knows 0 nodes\n"},
		{"by variable", "--role edge --id e-1", map[string]string{"SLUICE_STORE": registry}, "", 0, edge, ""},
		{"again, with comments", registry + " --role edge", nil, "# mine\n" + edge, 0, "# mine\n" + edge, "settings  FILE says so already\n"},
		{"another role", registry, nil, strings.Replace(edge, "role: edge", "role: standalone\n  http: \":81\"", 1), 0,
			strings.Replace(edge, "role: edge\n  id: e-1\n", "role: origin\n  id: e-1\n  http: \":81\"\n", 1), "what it was is in FILE.old\n"},
		{"everything", registry + " --role edge --id e-1 --region eu --public-address 1.2.3.4 --address 10.0.0.1 --trusted-proxies 10.0.0.0/24,::1 --cloud-notice azure --set node.limits.egress=2000 --set log.format=json",
			nil, "", 0, head + "store: \"" + registry + "\"\nlog:\n  format: json\nnode:\n  role: edge\n  id: e-1\n  region: eu\n  announce: [1.2.3.4]\n  address: 10.0.0.1\n  trusted-proxies: [10.0.0.0/24, \"::1\"]\n  limits:\n    egress: 2000\n  cloud-notice: azure\n",
			"address   1.2.3.4 for clients, 10.0.0.1 for nodes\n"},
		{"gateway beside a node", registry + " --role gateway --trusted-proxies 10.0.0.1 --set gateway.publish= --set gateway.play=", nil, edge, 0,
			edge + "gateway:\n  publish: \"\"\n  play: \"\"\n  trusted-proxies: [10.0.0.1]\n", "start it  sluice gateway --config FILE\n"},
		{"no registry", "", nil, "", exitUsage, "", "which registry? sluice join mongodb://…, or --store-file "},
		{"two registries", registry + " --store-file " + list, nil, "", exitUsage, "", "the registry was given twice"},
		{"no such store file", "--store-file " + list + "x", nil, "", exitFailed, "", "read --store-file: "},
		{"a bad registry", "ftp://user:hunter2@x", nil, "", exitUsage, "", "registry of the command line: unknown kind of store"},
		{"nobody answers", "127.0.0.1:1", nil, edge, exitFailed, edge, "join: nothing was changed: open registry: MongoDB at 127.0.0.1:1, database sluice: no answer"},
		{"a bad role", registry + " --role egde", nil, "", exitUsage, "", "--role must be one of"},
		{"a bad setting", registry + " --set node.limit.egress=1", nil, "", exitUsage, "", `--set there is no setting "node.limit.egress"; did you mean "node.limits.egress"?`},
		{"a bad value", registry + " --set node.limits.cpu=7", nil, "", exitUsage, "", "--set node.limits.cpu: 7 is not between 0.01 and 1"},
		{"no value", registry + " --set node.limits.cpu", nil, "", exitUsage, "", "--set node.limits.cpu: write KEY=VALUE"},
		{"a bad address", registry + " --public-address here", nil, "", exitUsage, "", `node.announce: "here" is not an IP address`},
		{"a node's flag for a gateway", registry + " --role gateway --id x", nil, "", exitUsage, "", "are for nodes, not for a gateway"},
		{"a file with a mistake", registry, nil, "node:\n  rol: edge\n", exitFailed, "node:\n  rol: edge\n", `FILE:2: "node" has no key "rol"; did you mean "role"?; mend or remove the file`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "etc", "sluice.yaml")
			if tc.before != "" {
				if err := errors.Join(os.Mkdir(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(tc.before), 0o600)); err != nil {
					t.Fatal(err)
				}
			}
			var out, errs output
			code := run(t.Context(), append([]string{"join", "--config", file}, strings.Fields(tc.args)...), tc.env, nil, &out, &errs)
			want := strings.ReplaceAll(tc.out, "FILE", file)
			if code != tc.code || !strings.Contains(out.String()+errs.String(), want) {
				t.Errorf("exit code %d, want %d with %q\n%s%s", code, tc.code, want, out.String(), errs.String())
			}
			if strings.Contains(errs.String(), "hunter2") {
				t.Error("the error has the password")
			}
			got, err := os.ReadFile(file)
			if string(got) != tc.file {
				t.Errorf("the file is (%v)\n%s\nwant\n%s", err, got, tc.file)
			}
			if info, err := os.Stat(file); err == nil && info.Mode()&0o007 != 0 {
				t.Errorf("everybody may read the file: %v", info.Mode())
			}
			if old, err := os.ReadFile(file + ".old"); err == nil && string(old) != tc.before {
				t.Errorf("the old file is\n%s", old)
			}
		})
	}
}

// manager is a systemd whose units do what it is told.
type manager struct {
	calls []string
	then  func() error
}

func (m *manager) start(_ context.Context, unit string, changed bool) error {
	m.calls = append(m.calls, unit+map[bool]string{true: " anew"}[changed])
	return m.then()
}

func TestJoinStarts(t *testing.T) {
	registry := filepath.Join(t.TempDir(), "r.db")
	reg, err := sqlite.Open(t.Context(), registry)
	if err != nil {
		t.Fatal(err)
	}
	defer reg.Close()
	ready := func() error {
		return reg.Join(t.Context(), cluster.Node{ID: "e-1", Session: 1, Role: cluster.Edge, State: cluster.Ready})
	}
	file := filepath.Join(t.TempDir(), "sluice.yaml")
	for _, tc := range []struct {
		name, role string
		then       func() error
		calls      []string
		out, err   string
	}{
		{"it fails", "edge", func() error { return errors.New("no such unit") }, []string{"sluice-node anew"}, "", "start sluice-node: no such unit (journalctl"},
		{"a node", "edge", ready, []string{"sluice-node"}, "started   sluice-node: e-1 is ready\n", ""},
		{"another role", "origin", ready, []string{"sluice-node anew"}, "started   sluice-node: e-1 is ready\n", ""},
		{"a gateway", "gateway", func() error { return nil }, []string{"sluice-gateway"}, "started   sluice-gateway\n", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := &manager{then: tc.then}
			c := joinCmd{Registry: "sqlite:" + registry, Role: tc.role, ID: "e-1", Start: true, manager: m}
			if tc.role == "gateway" {
				c.ID = ""
			} else {
				c.PublicAddress, c.finder = "auto", publicip.Finder{Service: metadata(t, "20.1.2.3", "10.0.1.4").URL}
			}
			var out, errs bytes.Buffer
			err := c.Run(&process{ctx: t.Context(), out: &out, err: &errs}, &cli{Config: file})
			if tc.err == "" && err != nil || tc.err != "" && (err == nil || !strings.HasPrefix(err.Error(), tc.err)) {
				t.Errorf("got %v, want %q", err, tc.err)
			}
			if !slices.Equal(m.calls, tc.calls) || !strings.HasSuffix(out.String(), tc.out) {
				t.Errorf("asked for %q, want %q\n%s", m.calls, tc.calls, &out)
			}
			if tc.role != "gateway" && !strings.HasPrefix(out.String(), "address   20.1.2.3 for clients, 10.0.1.4 for nodes\n") {
				t.Errorf("the address is not said: %s", &out)
			}
		})
	}
	cfg, err := config.Load(file, nil)
	if err != nil || !slices.Equal(cfg.Node.Announce, []string{"auto"}) {
		t.Errorf("the file has %v, %v; a machine's address may be another after its next boot", cfg.Node.Announce, err)
	}
}

func TestSystemctl(t *testing.T) {
	dir := t.TempDir()
	said, program := filepath.Join(dir, "said"), filepath.Join(dir, "systemctl")
	script := "#!/bin/sh\necho \"$@\" >>" + said + "\n[ \"$3 $4\" != \"start sluice-bad\" ] || { echo 'Unit not found.' >&2; exit 5; }\n"
	if err := os.WriteFile(program, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	s := systemctl(program)
	if err := errors.Join(s.start(t.Context(), "sluice-node", false), s.start(t.Context(), "sluice-node", true)); err != nil {
		t.Error(err)
	}
	if err := s.start(t.Context(), "sluice-bad", false); err == nil || err.Error() != "systemctl start: exit status 5: Unit not found." {
		t.Errorf("got %v", err)
	}
	got, _ := os.ReadFile(said)
	const flags = "--no-ask-password --quiet "
	if want := flags + "enable sluice-node\n" + flags + "start sluice-node\n" + flags + "enable sluice-node\n" + flags + "restart sluice-node\n"; !strings.HasPrefix(string(got), want) {
		t.Errorf("ran\n%s\nwant\n%s", got, want)
	}
}

// TestJoinWaits: on a machine that boots with the others the registry may come later, here on MongoDB's protocol and with a password.
func TestJoinWaits(t *testing.T) {
	server := mongotest.Start(t, mongotest.Options{User: "sluice", Password: "p@ss"})
	line := server.Line(nil)
	server.Kill()
	file := filepath.Join(t.TempDir(), "sluice.yaml")
	store := "mongodb://sluice:p%40ss@" + line.Address() + "/sluice?authSource=admin"
	var out, errs output
	joined := make(chan int, 1)
	go func() {
		joined <- run(t.Context(), []string{"join", "--config", file, "--wait", "60s", "--role", "edge"}, map[string]string{"SLUICE_STORE": store}, nil, &out, &errs)
	}()
	for !strings.Contains(errs.String(), "trying again for 1m0s") {
		select {
		case code := <-joined:
			t.Fatalf("ended with %d: %s", code, errs.String())
		case <-time.After(10 * time.Millisecond): // until the first try has failed
		}
	}
	server.Restart()
	if code := <-joined; code != 0 || strings.Contains(errs.String(), "p%40ss") {
		t.Fatalf("ended with %d: %s", code, errs.String())
	}
	cfg, err := config.Load(file, nil)
	if err != nil || cfg.Store != store || cfg.Node.Role != "edge" {
		t.Errorf("the file says %v, %v", cfg, err)
	}
	var refused output
	wrong := strings.Replace(store, "p%40ss", "wrong", 1)
	if code := run(t.Context(), []string{"join", wrong, "--config", file + "2"}, nil, nil, &out, &refused); code != exitFailed || strings.Contains(refused.String(), "wrong@") {
		t.Errorf("a wrong password: %d, %s", code, refused.String())
	}
}
