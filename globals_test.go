package sluice

import (
	"go/ast"
	"go/token"
	"slices"
	"strings"
)

// globals finds package-level variables that can change. Allowed are sentinels, compiled
// patterns, pools, embedded files, checks of interfaces, what the linker sets, and tables, if nothing
// in the package writes to them. Two nodes must fit in one process.
func (in *inspector) globals(files []source) {
	tables := map[*ast.Object]bool{}
	names := map[string]bool{}
	for _, f := range files {
		if f.test {
			continue
		}
		for _, d := range f.ast.Decls {
			decl, ok := d.(*ast.GenDecl)
			if !ok || decl.Tok != token.VAR {
				continue
			}
			for _, s := range decl.Specs {
				spec := s.(*ast.ValueSpec)
				if embedded(decl.Doc) || embedded(spec.Doc) {
					continue
				}
				for i, name := range spec.Names {
					if name.Name == "_" || constant(spec, i) || fromLinker(f, name.Name) {
						continue
					}
					if !table(spec, i) {
						in.add(name.Pos(), "%s can change and is shared by all nodes of a process: put it into a struct, or make it a const", name.Name)
						continue
					}
					tables[name.Obj] = true
					names[name.Name] = true
				}
			}
		}
	}
	for _, f := range files {
		if !f.test {
			in.writes(f, tables, names)
		}
	}
}

func embedded(doc *ast.CommentGroup) bool {
	return doc != nil && slices.ContainsFunc(doc.List, func(c *ast.Comment) bool { return strings.HasPrefix(c.Text, "//go:embed ") })
}

func fromLinker(f source, name string) bool {
	return f.ast.Name.Name == "main" && (name == "version" || name == "commit")
}

// constant reports a value that can't change, made by one of these.
func constant(spec *ast.ValueSpec, i int) bool {
	if i >= len(spec.Values) {
		return false
	}
	switch v := spec.Values[i].(type) {
	case *ast.CallExpr:
		return slices.Contains([]string{"errors.New", "fmt.Errorf", "regexp.MustCompile", "netip.MustParseAddr", "netip.MustParsePrefix"}, dotted(v.Fun))
	case *ast.CompositeLit:
		return dotted(v.Type) == "sync.Pool"
	}
	return false
}

// table reports a literal: of a struct, slice, array or map, or []byte("…").
func table(spec *ast.ValueSpec, i int) bool {
	if i >= len(spec.Values) {
		return false
	}
	switch v := spec.Values[i].(type) {
	case *ast.CompositeLit:
		return true
	case *ast.CallExpr:
		_, ok := v.Fun.(*ast.ArrayType)
		return ok
	}
	return false
}

func dotted(e ast.Expr) string {
	if sel, ok := e.(*ast.SelectorExpr); ok {
		if x, ok := sel.X.(*ast.Ident); ok {
			return x.Name + "." + sel.Sel.Name
		}
	}
	return ""
}

// writes finds assignments to tables, their elements and fields, and pointers to them. The
// parser resolves names within a file; what it leaves open is a name of another file of the package.
func (in *inspector) writes(f source, tables map[*ast.Object]bool, names map[string]bool) {
	check := func(e ast.Expr) {
		id := root(e)
		if id == nil {
			return
		}
		if id.Obj != nil && tables[id.Obj] || id.Obj == nil && names[id.Name] {
			in.add(e.Pos(), "%s is written here and is shared by all nodes of a process: put it into a struct", id.Name)
		}
	}
	ast.Inspect(f.ast, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.AssignStmt:
			if n.Tok != token.DEFINE {
				for _, e := range n.Lhs {
					check(e)
				}
			}
		case *ast.IncDecStmt:
			check(n.X)
		case *ast.UnaryExpr:
			if n.Op == token.AND {
				check(n.X)
			}
		case *ast.CallExpr:
			if fn, ok := n.Fun.(*ast.Ident); ok && slices.Contains([]string{"delete", "clear", "copy"}, fn.Name) && len(n.Args) > 0 {
				check(n.Args[0])
			}
		}
		return true
	})
}

// root returns the variable at the bottom of x[i].f, nil when there is none.
func root(e ast.Expr) *ast.Ident {
	for {
		switch x := e.(type) {
		case *ast.Ident:
			return x
		case *ast.IndexExpr:
			e = x.X
		case *ast.SelectorExpr:
			e = x.X
		case *ast.ParenExpr:
			e = x.X
		case *ast.SliceExpr:
			e = x.X
		default:
			return nil
		}
	}
}
