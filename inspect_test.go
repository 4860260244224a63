package sluice

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

const module = "sluice/"

// inspector collects what is wrong in a tree.
type inspector struct {
	files *token.FileSet
	found []string
}

// source is one Go file.
type source struct {
	path string // from the root
	dir  string
	test bool
	ast  *ast.File
}

// inspect checks every Go file of a tree and returns what is wrong, each as "file:line: what: what to do".
func inspect(tree fs.FS) ([]string, error) {
	in := &inspector{files: token.NewFileSet()}
	packages := map[string][]source{}
	err := fs.WalkDir(tree, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if n := d.Name(); n == "node_modules" || n == "testdata" || n == "dist" || strings.HasPrefix(n, ".") && n != "." {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(p, ".go") {
			return nil
		}
		text, err := fs.ReadFile(tree, p)
		if err != nil {
			return err
		}
		parsed, err := parser.ParseFile(in.files, p, text, parser.ParseComments)
		if err != nil {
			return err
		}
		s := source{path: p, dir: path.Dir(p), test: strings.HasSuffix(p, "_test.go"), ast: parsed}
		packages[s.dir] = append(packages[s.dir], s)
		if n := strings.Count(string(text), "\n"); n > maxFile {
			in.add(parsed.Package, "has %d lines, more than %d: find what wants to leave", n, maxFile)
		}
		return nil
	})
	for _, dir := range sortedKeys(packages) {
		in.pack(dir, packages[dir])
	}
	return in.found, err
}

func sortedKeys(m map[string][]source) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func (in *inspector) add(at token.Pos, format string, args ...any) {
	p := in.files.Position(at)
	in.found = append(in.found, fmt.Sprintf("%s:%d: %s", p.Filename, p.Line, fmt.Sprintf(format, args...)))
}

func (in *inspector) pack(dir string, files []source) {
	if dir != "." && rankOf(dir) < 0 {
		in.add(files[0].ast.Package, "%s has no rank: give it a line in arch_test.go and ARCHITECTURE.md, or put it where it belongs", dir)
		return
	}
	in.comment(dir, files)
	in.globals(files)
	for _, f := range files {
		in.imports(f)
		if f.test {
			in.testFile(f)
		} else {
			in.codeFile(f)
		}
	}
}

// rankOf returns -1 for a folder without a rank. The longest name that fits counts.
func rankOf(dir string) int {
	rank, longest := -1, 0
	for _, r := range ranks {
		for name := range strings.FieldsSeq(r.folders) {
			if within(dir, name) && len(name) > longest {
				rank, longest = r.rank, len(name)
			}
		}
	}
	return rank
}

// within reports whether a path is a folder (or module) or below it.
func within(p, folder string) bool { return p == folder || strings.HasPrefix(p, folder+"/") }

func withinAny(p, folders string) bool {
	return slices.ContainsFunc(strings.Fields(folders), func(f string) bool { return within(p, f) })
}

// own returns the folder of ours that an import names.
func own(spec *ast.ImportSpec) (string, bool) { return strings.CutPrefix(pathOf(spec), module) }

func pathOf(spec *ast.ImportSpec) string {
	p, err := strconv.Unquote(spec.Path.Value)
	if err != nil {
		return spec.Path.Value
	}
	return p
}

func (in *inspector) imports(f source) {
	from := rankOf(f.dir)
	for _, spec := range f.ast.Imports {
		if to, ok := own(spec); ok && f.dir != "." && to != f.dir {
			rank := rankOf(to)
			allowed := rank < from || !f.test && within(f.dir, to) && rank == from || f.test && rank == from
			if !allowed || rank < 0 {
				in.add(spec.Pos(), "%s (rank %d) must not import %s (rank %d): move the code down, or take what you need as an interface", f.dir, from, to, rank)
			}
		}
		for _, fence := range fences {
			if within(pathOf(spec), fence.module) && !f.test && !withinAny(f.dir, fence.folders) {
				in.add(spec.Pos(), "%s is only for %s: %s", pathOf(spec), nobodyOr(fence.folders), fence.why)
			}
		}
	}
}

func nobodyOr(folders string) string {
	if folders == "" {
		return "nobody"
	}
	return strings.Join(strings.Fields(folders), ", ")
}

// comment wants one package comment, whose "Imports:" line tells the truth.
func (in *inspector) comment(dir string, files []source) {
	var imports []string
	var text string
	var at, first token.Pos
	for _, f := range files {
		if f.ast.Doc != nil && (text == "" || !f.test) {
			text, at = f.ast.Doc.Text(), f.ast.Doc.Pos()
			if i := strings.Index(text, "\nImports:"); i >= 0 {
				at = in.files.File(at).LineStart(in.files.Position(at).Line + strings.Count(text[:i+1], "\n"))
			}
		}
		if f.test && dir != "." {
			continue
		}
		if first == token.NoPos {
			first = f.ast.Package
		}
		for _, spec := range f.ast.Imports {
			if name, ok := own(spec); ok && !slices.Contains(imports, name) {
				imports = append(imports, name)
			}
		}
	}
	if first == token.NoPos {
		return // nothing but tests
	}
	if text == "" {
		in.add(first, "package %s has no comment: say in a sentence what it does", files[0].ast.Name.Name)
		return
	}
	_, list, ok := strings.Cut(text, "\nImports:")
	if !ok {
		in.add(at, `the package comment has no "Imports:" line: list the packages of ours that it imports, or "nothing"`)
		return
	}
	list, _, _ = strings.Cut(list, "\n\n")
	list = strings.Join(strings.Fields(list), " ")
	said := strings.FieldsFunc(strings.TrimSuffix(strings.TrimPrefix(list, "nothing"), "."), func(r rune) bool { return r == ',' || r == ' ' })
	if strings.HasPrefix(list, "nothing") {
		said = nil
	}
	slices.Sort(said)
	slices.Sort(imports)
	if !slices.Equal(said, imports) {
		in.add(at, "the comment says %q but the package imports %s: say so", "Imports: "+list, nothingOr(imports))
	}
}

func nothingOr(list []string) string {
	if len(list) == 0 {
		return "nothing"
	}
	return strings.Join(list, ", ")
}

// codeFile checks what holds for code only.
func (in *inspector) codeFile(f source) {
	names := map[string]string{} // of imports in this file, to their last element
	for _, spec := range f.ast.Imports {
		last := path.Base(pathOf(spec))
		if spec.Name != nil {
			names[spec.Name.Name] = last
		} else {
			names[last] = last
		}
	}
	for _, d := range f.ast.Decls {
		fn, ok := d.(*ast.FuncDecl)
		if !ok {
			continue
		}
		if fn.Name.Name == "init" && fn.Recv == nil {
			in.add(fn.Pos(), "init runs before anybody asked: do it in New, or make it a table")
		}
		if n := in.files.Position(fn.End()).Line - in.files.Position(fn.Pos()).Line + 1; n > maxFunction {
			in.add(fn.Pos(), "%s has %d lines, more than %d: find what wants to leave", fn.Name.Name, n, maxFunction)
		}
	}
	ast.Inspect(f.ast, func(n ast.Node) bool {
		sel, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		pkg, ok := sel.X.(*ast.Ident)
		if !ok || names[pkg.Name] == "" {
			return true
		}
		name := names[pkg.Name] + "." + sel.Sel.Name
		for _, o := range onlyIn {
			if slices.Contains(strings.Fields(o.names), name) && !withinAny(f.dir, o.folders) {
				in.add(sel.Pos(), "%s is only for %s: %s", name, nobodyOr(o.folders), o.why)
			}
		}
		return true
	})
}

var fixedPort = regexp.MustCompile(`^(127\.0\.0\.1|localhost|0\.0\.0\.0|\[::1?\])?:[1-9][0-9]*$`)

// testFile checks what holds for tests only.
func (in *inspector) testFile(f source) {
	port := func(e ast.Expr) {
		if lit, ok := e.(*ast.BasicLit); ok && lit.Kind == token.STRING && fixedPort.MatchString(strings.Trim(lit.Value, "`\"")) {
			in.add(lit.Pos(), "port of %s may be taken: listen on port 0 and ask for the address", lit.Value)
		}
	}
	ast.Inspect(f.ast, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.KeyValueExpr:
			if key, ok := n.Key.(*ast.Ident); ok && strings.HasSuffix(key.Name, "Listen") {
				port(n.Value)
			}
		case *ast.CallExpr:
			sel, ok := n.Fun.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			if pkg, ok := sel.X.(*ast.Ident); ok && pkg.Name == "time" && sel.Sel.Name == "Sleep" {
				in.add(n.Pos(), "a test must not sleep: use a channel, synctest with time.After, or a poll that says why it is not yet true")
			}
			if strings.HasPrefix(sel.Sel.Name, "Listen") {
				for _, arg := range n.Args {
					port(arg)
				}
			}
		}
		return true
	})
}
