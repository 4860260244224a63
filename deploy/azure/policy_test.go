package azure_test

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/zclconf/go-cty/cty"

	"sluice/internal/config"
)

// port of an address that is listened on.
func port(t *testing.T, listen string) string {
	t.Helper()
	_, p, err := net.SplitHostPort(listen)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// rule is who may speak to a subnet: "udp 50000 from Internet".
func rules(t *testing.T, azureGateway bool) map[string][]string {
	t.Helper()
	m := readModule(t, "modules/network")
	ctx := m.scope(t, map[string]cty.Value{"network": cty.StringVal("10.0.0.0/16"), "application_gateway": cty.BoolVal(azureGateway)})
	names := map[string]string{}
	local := ctx.Variables["local"].AsValueMap()
	for name, v := range local["subnets"].AsValueMap() {
		names[v.AsString()] = name
	}
	got := map[string][]string{}
	for subnet, list := range local["rules"].AsValueMap() {
		for _, r := range list.AsValueMap() {
			fields := r.AsValueMap()
			for _, from := range fields["from"].AsValueSlice() {
				for _, p := range fields["ports"].AsValueSlice() {
					source := from.AsString()
					if name := names[source]; name != "" {
						source = name
					}
					got[subnet] = append(got[subnet], fmt.Sprintf("%s %s from %s", strings.ToLower(fields["protocol"].AsString()), p.AsString(), source))
				}
			}
		}
		slices.Sort(got[subnet])
	}
	return got
}

// TestWhoMaySpeak: the ports are those of the binary's defaults, and nothing else is open.
func TestWhoMaySpeak(t *testing.T) {
	d := config.Default()
	media, relay, http := port(t, d.Node.Media), port(t, d.Node.Relay), port(t, d.Node.HTTP)
	node := []string{"tcp " + http + " from gateway", "tcp " + media + " from Internet", "udp " + media + " from Internet", "udp " + relay + " from edge", "udp " + relay + " from origin"}
	var gateway []string
	for _, listen := range []string{d.Gateway.Publish, d.Gateway.Play, d.Gateway.Redirect} {
		gateway = append(gateway, "tcp "+port(t, listen)+" from Internet", "tcp "+port(t, listen)+" from AzureLoadBalancer")
	}
	for _, azureGateway := range []bool{false, true} {
		want := map[string][]string{"origin": node, "edge": node, "gateway": slices.Clone(gateway),
			"registry": {"tcp 27017 from edge", "tcp 27017 from gateway", "tcp 27017 from origin"}}
		if azureGateway {
			want["gateway"] = append(want["gateway"], "tcp 65200-65535 from GatewayManager")
		}
		got := rules(t, azureGateway)
		for _, subnet := range slices.Sorted(maps.Keys(want)) {
			slices.Sort(want[subnet])
			if !slices.Equal(got[subnet], want[subnet]) {
				t.Errorf("Application Gateway %v: into %s may\n\t%s\nwant\n\t%s", azureGateway, subnet, strings.Join(got[subnet], "\n\t"), strings.Join(want[subnet], "\n\t"))
			}
			delete(got, subnet)
		}
		if len(got) > 0 {
			t.Errorf("subnets that nobody asked for: %v", got)
		}
	}
	group := readModule(t, "modules/network").one(t, "azurerm_network_security_group")
	deny := group.Body.Blocks[len(group.Body.Blocks)-1]
	for name, want := range map[string]string{"access": "Deny", "direction": "Inbound", "priority": "4096", "protocol": "*", "source_address_prefix": "*",
		"source_port_range": "*", "destination_address_prefix": "*", "destination_port_range": "*"} {
		if got := text(t, deny.Body, name, nil); got != want {
			t.Errorf("the last rule of each group must refuse all: %s is %q, want %q", name, got, want)
		}
	}
}

func TestSubnets(t *testing.T) {
	m := readModule(t, "modules/network")
	for _, network := range []string{"10.0.0.0/16", "172.16.16.0/20"} {
		whole := netip.MustParsePrefix(network)
		var all []netip.Prefix
		for name, v := range m.scope(t, map[string]cty.Value{"network": cty.StringVal(network), "application_gateway": cty.False}).Variables["local"].AsValueMap()["subnets"].AsValueMap() {
			p := netip.MustParsePrefix(v.AsString())
			if p != p.Masked() || !whole.Contains(p.Addr()) || p.Bits() > 28 {
				t.Errorf("subnet %s is %s in %s", name, p, network)
			}
			for _, other := range all {
				if p.Overlaps(other) {
					t.Errorf("subnet %s, %s, overlaps %s", name, p, other)
				}
			}
			all = append(all, p)
		}
		if len(all) != 4 {
			t.Errorf("%d subnets, want gateway, origin, edge and registry", len(all))
		}
	}
}

func TestNoPublicRegistry(t *testing.T) {
	registry := readModule(t, "modules/registry")
	if strings.Contains(string(registry.src), "public_ip") {
		t.Error("the registry's machine has a public address")
	}
	if got := text(t, readModule(t, "modules/cosmos").one(t, "azurerm_mongo_cluster").Body, "public_network_access", nil); got != "Disabled" {
		t.Errorf("Cosmos DB's public_network_access is %q", got)
	}
	script := read(t, "cloud-init/registry.sh")
	for _, want := range []string{"authorization: enabled", "mode: requireTLS", "bindIp: 127.0.0.1,$ADDRESS"} {
		if !strings.Contains(script, want) {
			t.Errorf("MongoDB is not told %q", want)
		}
	}
	for _, want := range []string{"azurerm_backup_protected_vm", "azurerm_managed_disk"} {
		registry.one(t, want)
	}
}

// TestNoSecrets: none is written down, none is in what machines are told, and vault and storage are closed.
func TestNoSecrets(t *testing.T) {
	told := regexp.MustCompile(`(?i)password|secret_value|connection_string|access_key|sas_token`)
	literal := regexp.MustCompile(`(?i)(password|secret|token)\s*=\s*"[^"$]{4,}"|mongodb(\+srv)?://[^/:"]+:[^$"%][^"]*@|BEGIN [A-Z ]*PRIVATE KEY`)
	sensitive := regexp.MustCompile(`(?i)password`)
	for dir, m := range readModules(t) {
		if s := literal.Find(m.src); s != nil {
			t.Errorf("%s has a secret: %.20s…", dir, s)
		}
		for _, b := range m.of("variable", "") {
			if !sensitive.MatchString(b.Labels[0]) {
				continue
			}
			if text(t, b.Body, "sensitive", nil) != "true" {
				t.Errorf("%s: variable %s must be sensitive", dir, b.Labels[0])
			}
			if a := b.Body.Attributes["default"]; a != nil {
				if v, _ := a.Expr.Value(nil); !v.IsNull() {
					t.Errorf("%s: variable %s has a default", dir, b.Labels[0])
				}
			}
		}
		for _, b := range m.of("resource", "") {
			if a := b.Body.Attributes["custom_data"]; a != nil {
				r := a.Expr.Range()
				if s := m.src[r.Start.Byte:r.End.Byte]; told.Match(s) {
					t.Errorf("%s: custom_data of %s has %s: anybody on the machine may read it", dir, b.Labels[0], told.Find(s))
				}
			}
		}
	}
	vault := readModule(t, "modules/vault").one(t, "azurerm_key_vault").Body
	storage := readModule(t, "modules/package").one(t, "azurerm_storage_account").Body
	for name, got := range map[string]string{
		"vault's network_acls":    text(t, nested(t, vault, "network_acls", nil)[0].body, "default_action", nil),
		"storage's network_rules": text(t, nested(t, storage, "network_rules", nil)[0].body, "default_action", nil),
	} {
		if got != "Deny" {
			t.Errorf("%s: default_action is %q, want Deny", name, got)
		}
	}
	if text(t, storage, "shared_access_key_enabled", nil) != "false" || text(t, storage, "allow_nested_items_to_be_public", nil) != "false" {
		t.Error("the storage account can be read without an identity")
	}
}

// TestScaling: each scale set grows and shrinks by CPU over five minutes and by the cluster's own signal.
func TestScaling(t *testing.T) {
	root := readModule(t, ".")
	defaults := root.variables(t, nil)
	m := readModule(t, "modules/autoscale")
	ctx := m.scope(t, map[string]cty.Value{"scale_set_id": cty.StringVal("set"), "min": cty.NumberIntVal(2), "max": cty.NumberIntVal(9),
		"out_cpu": defaults["scale_out_cpu"], "in_cpu": defaults["scale_in_cpu"]})
	setting := m.one(t, "azurerm_monitor_autoscale_setting")
	profile := nested(t, setting.Body, "profile", ctx)[0]
	got := map[string]int{}
	for _, r := range nested(t, profile.body, "rule", ctx) {
		trigger := nested(t, r.body, "metric_trigger", r.ctx)[0]
		action := nested(t, r.body, "scale_action", r.ctx)[0]
		get := func(e evaluated, name string) string { return text(t, e.body, name, e.ctx) }
		got[strings.Join([]string{get(action, "direction"), get(trigger, "metric_namespace"), get(trigger, "metric_name"), get(trigger, "time_aggregation"), get(trigger, "time_window"),
			get(trigger, "operator"), get(trigger, "threshold"), get(action, "value")}, " ")]++
		if get(trigger, "metric_resource_id") != "set" {
			t.Error("a rule looks at another scale set")
		}
	}
	want := map[string]int{
		"Increase  Percentage CPU Average PT5M GreaterThan 60 1":     1,
		"Increase Sluice Missing Last PT5M GreaterThanOrEqual 1 1":   1,
		"Increase Sluice Missing Last PT5M GreaterThanOrEqual 4 4":   1,
		"Increase Sluice Missing Last PT5M GreaterThanOrEqual 10 10": 1,
		"Decrease  Percentage CPU Average PT5M LessThan 30 1":        1,
		"Decrease Sluice Missing Last PT5M LessThan 0 1":             1,
	}
	if !maps.Equal(got, want) {
		t.Errorf("rules are\n%v\nwant\n%v", got, want)
	}
	if calls := root.of("module", "autoscale"); len(calls) != 1 || !strings.Contains(string(root.src), "edge   = { id = module.edges.id") || !strings.Contains(string(root.src), "origin = { id = module.origins.id") {
		t.Error("autoscale must be given both scale sets")
	}
	for _, role := range []string{"origins", "edges"} {
		if r := "principal_id         = module.vault.identities.node.principal_id"; !strings.Contains(string(root.src), r) || !strings.Contains(string(root.src), "module."+role+".id") {
			t.Errorf("the identity of the machines may not tell the signal of %s", role)
		}
	}
}

// TestDrain: a machine that goes is told, and listens.
func TestDrain(t *testing.T) {
	set := readModule(t, "modules/scale-set").one(t, "azurerm_linux_virtual_machine_scale_set")
	ctx := readModule(t, "modules/scale-set").scope(t, map[string]cty.Value{"drain_minutes": cty.NumberIntVal(10)})
	notice := nested(t, set.Body, "termination_notification", ctx)
	if len(notice) != 1 || text(t, notice[0].body, "enabled", ctx) != "true" || text(t, notice[0].body, "timeout", ctx) != "PT10M" {
		t.Error("no termination notification")
	}
	if text(t, set.Body, "overprovision", ctx) != "false" {
		t.Error("Azure would take machines away that have just got viewers")
	}
	if !regexp.MustCompile(`CLOUD_NOTICE\s+= "azure"`).Match(readModule(t, ".").src) {
		t.Error("nodes don't listen to Azure's notices")
	}
	gateway := readModule(t, "modules/application-gateway").one(t, "azurerm_application_gateway").Body
	probe := nested(t, gateway, "probe", nil)[0].body
	settings := nested(t, gateway, "backend_http_settings", nil)[0].body
	draining := nested(t, settings, "connection_draining", nil)[0].body
	if text(t, probe, "path", nil) != "/readyz" || text(t, draining, "enabled", nil) != "true" || text(t, settings, "port", nil) != port(t, config.Default().Node.HTTP) {
		t.Error("the Application Gateway must probe /readyz of a node's HTTP port, and drain connections")
	}
}

// TestSettingsExist: what machines are told to set can be set.
func TestSettingsExist(t *testing.T) {
	found := 0
	for _, src := range []string{string(readModule(t, ".").src), read(t, "cloud-init/node.sh")} {
		for _, kv := range regexp.MustCompile(`((?:node|gateway)(?:\.[a-z-]+)+)=([^" \\]*)`).FindAllStringSubmatch(src, -1) {
			value := kv[2]
			switch {
			case strings.HasSuffix(kv[1], ".cpu"):
				value = "0.6"
			case strings.HasSuffix(kv[1], ".endpoint"):
				value = "https://westeurope.monitoring.azure.com"
			}
			if err := config.Default().Set(kv[1], value); err != nil {
				t.Errorf("%s: %v", kv[0], err)
			}
			found++
		}
	}
	if found < 8 {
		t.Errorf("found %d settings only", found)
	}
}

// seed are the steps of the guide that this replaces.
func seed() []string {
	return []string{"resource group", "virtual network", "gateway subnet", "origin subnet", "edge subnet", "MongoDB machine", "MongoDB's security group", "MongoDB's custom data",
		"application gateway", "public address", "backend pools", "rule: edges", "backend settings", "rule: origins", "certificate, port 443", "port 5443",
		"origin scale set", "image", "origin's network and pool", "scaling at 60 % CPU", "custom data: cluster mode", "edge scale set", "test: edge and origin URLs", "test: Cluster menu", "test: publish and play"}
}

// TestSteps: the page has a row for each step, what it names is there, and all that is there is named.
func TestSteps(t *testing.T) {
	page := read(t, "../../docs/deploy/azure.md")
	resources := map[string]bool{}
	for dir, m := range readModules(t) {
		for _, b := range m.of("resource", "") {
			name := b.Labels[0] + "." + b.Labels[1]
			if dir != "." {
				name = strings.TrimPrefix(dir, "modules/") + ": " + name
			}
			resources[name] = true
		}
		for _, b := range m.of("output", "") {
			if dir == "." {
				resources["output."+b.Labels[0]] = true
			}
		}
	}
	steps := map[string]string{}
	for _, row := range regexp.MustCompile(`(?m)^\| ([^|]+) \| ([^|]+) \|`).FindAllStringSubmatch(page, -1) {
		steps[row[1]] = row[2]
	}
	for _, step := range seed() {
		named := regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(steps[step], -1)
		if len(named) == 0 {
			t.Errorf("docs/deploy/azure.md says no resource for the step %q", step)
		}
		for _, n := range named {
			if !resources[n[1]] {
				t.Errorf("step %q: there is no %s", step, n[1])
			}
		}
	}
	for name := range resources {
		if !strings.Contains(page, "`"+name+"`") {
			t.Errorf("docs/deploy/azure.md does not say what %s is for", name)
		}
	}
}
