// Package azure_test holds the templates to what docs/deploy/azure.md promises of them. make azure-validate asks the real tools, too.
//
// Imports: internal/config.
package azure_test

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclparse"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
	"github.com/zclconf/go-cty/cty/function/stdlib"
)

// module is a folder of templates; the root is ".".
type module struct {
	dir    string
	blocks []*hclsyntax.Block
	src    []byte // all files
}

func readModule(t *testing.T, dir string) module {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.tf"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no templates in %s: %v", dir, err)
	}
	m := module{dir: dir}
	for _, name := range files {
		f, diags := hclparse.NewParser().ParseHCLFile(name)
		if diags.HasErrors() {
			t.Fatal(diags)
		}
		m.blocks = append(m.blocks, f.Body.(*hclsyntax.Body).Blocks...)
		m.src = append(m.src, f.Bytes...)
	}
	return m
}

// readModules reads the root and all modules, by folder.
func readModules(t *testing.T) map[string]module {
	t.Helper()
	dirs, err := filepath.Glob("modules/*")
	if err != nil || len(dirs) == 0 {
		t.Fatalf("no modules: %v", err)
	}
	all := map[string]module{}
	for _, dir := range append(dirs, ".") {
		all[dir] = readModule(t, dir)
	}
	return all
}

// of returns the blocks of a kind, and of a first label unless that is "".
func (m module) of(kind, label string) (list []*hclsyntax.Block) {
	for _, b := range m.blocks {
		if b.Type == kind && (label == "" || b.Labels[0] == label) {
			list = append(list, b)
		}
	}
	return list
}

// one is the only resource of a type.
func (m module) one(t *testing.T, resource string) *hclsyntax.Block {
	t.Helper()
	list := m.of("resource", resource)
	if len(list) != 1 {
		t.Fatalf("%s has %d resources %s, want 1", m.dir, len(list), resource)
	}
	return list[0]
}

// variables are the defaults of a module's variables, and over them what was given.
func (m module) variables(t *testing.T, given map[string]cty.Value) map[string]cty.Value {
	t.Helper()
	vars := map[string]cty.Value{}
	for _, b := range m.of("variable", "") {
		vars[b.Labels[0]] = cty.DynamicVal
		if a := b.Body.Attributes["default"]; a != nil {
			v, diags := a.Expr.Value(nil)
			if diags.HasErrors() {
				t.Fatal(diags)
			}
			vars[b.Labels[0]] = v
		}
	}
	for name, v := range given {
		vars[name] = v
	}
	return vars
}

// scope evaluates the module's locals with variables. Those that need more than that are left out.
func (m module) scope(t *testing.T, given map[string]cty.Value) *hcl.EvalContext {
	t.Helper()
	ctx := &hcl.EvalContext{Functions: functions(), Variables: map[string]cty.Value{"var": cty.ObjectVal(m.variables(t, given))}}
	known := map[string]cty.Value{}
	for again := true; again; {
		again = false
		for _, b := range m.of("locals", "") {
			for name, a := range b.Body.Attributes {
				if _, ok := known[name]; ok {
					continue
				}
				if v, diags := a.Expr.Value(ctx); !diags.HasErrors() {
					known[name], again = v, true
					ctx.Variables["local"] = cty.ObjectVal(known)
				}
			}
		}
	}
	return ctx
}

// functions are those of the real tools that the templates use.
func functions() map[string]function.Function {
	text := function.Parameter{Type: cty.String}
	number := function.Parameter{Type: cty.Number}
	return map[string]function.Function{
		"merge": stdlib.MergeFunc, "concat": stdlib.ConcatFunc, "join": stdlib.JoinFunc, "length": stdlib.LengthFunc,
		"tonumber": stdlib.MakeToFunc(cty.Number), "tostring": stdlib.MakeToFunc(cty.String), "toset": stdlib.MakeToFunc(cty.Set(cty.DynamicPseudoType)),
		"replace": stdlib.ReplaceFunc,
		"cidrsubnet": function.New(&function.Spec{
			Params: []function.Parameter{text, number, number}, Type: function.StaticReturnType(cty.String),
			Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
				bits, _ := args[1].AsBigFloat().Int64()
				index, _ := args[2].AsBigFloat().Int64()
				p, err := subnet(args[0].AsString(), int(bits), uint32(index))
				return cty.StringVal(p), err
			},
		}),
	}
}

func subnet(network string, bits int, index uint32) (string, error) {
	p, err := netip.ParsePrefix(network)
	if err != nil {
		return "", err
	}
	a := p.Masked().Addr().As4()
	n := uint32(a[0])<<24 | uint32(a[1])<<16 | uint32(a[2])<<8 | uint32(a[3])
	n |= index << (32 - p.Bits() - bits)
	return fmt.Sprintf("%d.%d.%d.%d/%d", n>>24, n>>16&255, n>>8&255, n&255, p.Bits()+bits), nil
}

// text evaluates an attribute to text; "" if it is not there.
func text(t *testing.T, body *hclsyntax.Body, name string, ctx *hcl.EvalContext) string {
	t.Helper()
	a := body.Attributes[name]
	if a == nil {
		return ""
	}
	v, diags := a.Expr.Value(ctx)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	s, err := stdlib.MakeToFunc(cty.String).Call([]cty.Value{v})
	if err != nil || s.IsNull() || !s.IsKnown() {
		t.Fatalf("%s is no text: %#v (%v)", name, v, err)
	}
	return s.AsString()
}

// nested are the blocks of a type in a body, those that are made by dynamic blocks too; each with a context in which it can be evaluated.
func nested(t *testing.T, body *hclsyntax.Body, kind string, ctx *hcl.EvalContext) (list []evaluated) {
	t.Helper()
	for _, b := range body.Blocks {
		if b.Type == kind {
			list = append(list, evaluated{b.Body, ctx})
		}
		if b.Type != "dynamic" || b.Labels[0] != kind {
			continue
		}
		each, diags := b.Body.Attributes["for_each"].Expr.Value(ctx)
		if diags.HasErrors() {
			t.Fatal(diags)
		}
		for key, value := range each.AsValueMap() {
			inner := ctx.NewChild()
			inner.Variables = map[string]cty.Value{kind: cty.ObjectVal(map[string]cty.Value{"key": cty.StringVal(key), "value": value})}
			list = append(list, evaluated{b.Body.Blocks[0].Body, inner})
		}
	}
	return list
}

type evaluated struct {
	body *hclsyntax.Body
	ctx  *hcl.EvalContext
}

// TestTidy: what a reader and the module system need.
func TestTidy(t *testing.T) {
	modules := readModules(t)
	for dir, m := range modules {
		if n := strings.Count(string(m.src), "\n"); n > 500 {
			t.Errorf("%s has %d lines: part it", dir, n)
		}
		declared := map[string]bool{}
		for _, b := range slices.Concat(m.of("variable", ""), m.of("output", "")) {
			if text(t, b.Body, "description", nil) == "" {
				t.Errorf("%s: %s %s has no description", dir, b.Type, b.Labels[0])
			}
			if b.Type == "variable" {
				declared[b.Labels[0]] = b.Body.Attributes["default"] != nil
				if b.Body.Attributes["type"] == nil {
					t.Errorf("%s: variable %s has no type", dir, b.Labels[0])
				}
				if !strings.Contains(string(m.src), "var."+b.Labels[0]) {
					t.Errorf("%s: variable %s is not used", dir, b.Labels[0])
				}
			}
		}
		for _, call := range modules["."].of("module", "") {
			if source := text(t, call.Body, "source", nil); filepath.Clean(source) == dir {
				checkCall(t, call, declared)
			}
		}
	}
}

func checkCall(t *testing.T, call *hclsyntax.Block, declared map[string]bool) {
	t.Helper()
	for name := range call.Body.Attributes {
		if _, ok := declared[name]; !ok && !slices.Contains([]string{"source", "count", "for_each", "depends_on"}, name) {
			t.Errorf("module %s is given %s, which it does not know", call.Labels[0], name)
		}
	}
	for name, optional := range declared {
		if call.Body.Attributes[name] == nil && !optional {
			t.Errorf("module %s is not given %s", call.Labels[0], name)
		}
	}
}

// read is a file of this folder, or from it.
func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
