package sluice

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write pages that are made from the code")

const errorsPage = "docs/errors.md"

// TestErrorsPage: docs/errors.md is what internal/problem/codes.go says.
func TestErrorsPage(t *testing.T) {
	want, err := makeErrorsPage("internal/problem/codes.go")
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(errorsPage, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(errorsPage)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("%s is out of date: run make docs", errorsPage)
	}
}

// makeErrorsPage reads the Code{name, status, title} literals of a file, and the comment of
// those that have one.
func makeErrorsPage(path string) (string, error) {
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments)
	if err != nil {
		return "", err
	}
	var page strings.Builder
	page.WriteString("# Error codes\n\n" +
		"Made from `" + path + "` by `make docs`; a test compares.\n\n" +
		"An HTTP error is `application/problem+json` (RFC 9457). Programs switch on `code`, which is never\n" +
		"renamed; `detail` says what was wrong this time and what to do, for people.\n\n" +
		"| code | status | meaning |\n|---|---|---|\n")
	seen := map[string]bool{}
	var bad error
	ast.Inspect(file, func(n ast.Node) bool {
		lit, ok := n.(*ast.CompositeLit)
		if !ok || len(lit.Elts) != 3 {
			return true
		}
		var cells []string
		for _, e := range lit.Elts {
			if b, ok := e.(*ast.BasicLit); ok {
				if s, err := strconv.Unquote(b.Value); err == nil && b.Kind == token.STRING {
					cells = append(cells, s)
				} else {
					cells = append(cells, b.Value)
				}
			}
		}
		if len(cells) != 3 || seen[cells[0]] {
			bad = fmt.Errorf("%s: %q is not a new Code{name, status, title}", path, cells)
			return false
		}
		seen[cells[0]] = true
		fmt.Fprintf(&page, "| `%s` | %s | %s |\n", cells[0], cells[1], cells[2])
		return true
	})
	if bad == nil && len(seen) == 0 {
		bad = fmt.Errorf("%s: no codes found", path)
	}
	return page.String(), bad
}

// TestDependenciesPage: each direct module of go.mod has a row with reason, licence and replacement; no other has.
func TestDependenciesPage(t *testing.T) {
	mod, err := os.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("docs/dependencies.md")
	if err != nil {
		t.Fatal(err)
	}
	var modules, rows []string
	for _, m := range regexp.MustCompile(`(?m)^\t(\S+\.\S+/\S+) v\S+$`).FindAllStringSubmatch(string(mod), -1) { // without "// indirect"
		modules = append(modules, m[1])
	}
	for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\|(.*)$").FindAllStringSubmatch(string(page), -1) {
		if !strings.Contains(m[1], "/") || strings.HasPrefix(m[1], "@") {
			continue // a tool
		}
		rows = append(rows, m[1])
		cells := strings.Split(strings.Trim(m[2], " |"), "|")
		if len(cells) != 3 || slices.ContainsFunc(cells, func(c string) bool { return strings.TrimSpace(c) == "" }) {
			t.Errorf("docs/dependencies.md: the row of %s needs reason, licence and replacement", m[1])
		}
	}
	slices.Sort(modules)
	slices.Sort(rows)
	if len(modules) == 0 || !slices.Equal(modules, rows) {
		for _, m := range modules {
			if !slices.Contains(rows, m) {
				t.Errorf("docs/dependencies.md lacks %s", m)
			}
		}
		for _, r := range rows {
			if !slices.Contains(modules, r) {
				t.Errorf("docs/dependencies.md has %s, which go.mod does not use directly", r)
			}
		}
	}
}

// TestLinks: what a page of ours points to in the tree is there.
func TestLinks(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#:]+)(#[^)]*)?\)`)
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "node_modules" || strings.HasPrefix(d.Name(), ".") && path != ".") {
			return fs.SkipDir
		}
		if !strings.HasSuffix(path, ".md") {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, m := range link.FindAllStringSubmatch(string(text), -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(path), m[1])); err != nil {
				t.Errorf("%s points to %s, which is not there", path, m[1])
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
