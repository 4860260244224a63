package config

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// Mistake is one thing wrong with a configuration file, or, without a line, with a variable.
type Mistake struct {
	Line int // from 1; 0: not in the file
	Text string
}

// String returns "12: text".
func (m Mistake) String() string {
	if m.Line == 0 {
		return m.Text
	}
	return fmt.Sprintf("%d: %s", m.Line, m.Text)
}

// Parse reads a configuration file. Unknown keys, keys said twice and bad values are mistakes; all
// are returned, in the order of their lines. Settings that are absent or wrong have their default.
func Parse(src []byte) (*Config, []Mistake) {
	l := newLoad()
	l.parse(src)
	return l.cfg, l.mistakes
}

// load is one reading of the settings.
type load struct {
	cfg      *Config
	byPath   map[string]field
	sections map[string][]string // keys below a section's path, by that path
	seen     map[string]int      // line on which a path was set
	mistakes []Mistake
}

func newLoad() *load {
	l := &load{cfg: Default(), byPath: map[string]field{}, sections: map[string][]string{}, seen: map[string]int{}}
	for _, f := range fields("", l.cfg) {
		l.byPath[f.path] = f
		for path := f.path; path != ""; {
			parent, key := split(path)
			if !slices.Contains(l.sections[parent], key) {
				l.sections[parent] = append(l.sections[parent], key)
			}
			path = parent
		}
	}
	return l
}

// split parts "a.b.c" into "a.b" and "c".
func split(path string) (parent, key string) {
	i := strings.LastIndexByte(path, '.')
	return path[:max(i, 0)], path[i+1:]
}

func (l *load) fail(line int, format string, args ...any) {
	l.mistakes = append(l.mistakes, Mistake{Line: line, Text: fmt.Sprintf(format, args...)})
}

func (l *load) parse(src []byte) {
	file, err := parser.ParseBytes(src, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		line, text := 1, err.Error()
		var syntax *yaml.SyntaxError
		if errors.As(err, &syntax) {
			line, text = syntax.Token.Position.Line, syntax.Message
		}
		l.fail(line, "this is not YAML: %s", text)
		return
	}
	for i, doc := range file.Docs {
		switch {
		case doc.Body == nil:
		case i > 0:
			l.fail(lineOf(doc.Body), "a second document; there can be only one")
		default:
			l.section("", doc.Body)
		}
	}
	slices.SortStableFunc(l.mistakes, func(a, b Mistake) int { return a.Line - b.Line })
}

// section reads the keys of a mapping; path is "" for the whole file.
func (l *load) section(path string, n ast.Node) {
	var pairs []*ast.MappingValueNode
	switch n := n.(type) {
	case *ast.MappingNode:
		pairs = n.Values
	case *ast.NullNode, *ast.CommentGroupNode: // a section with nothing in it
	default:
		l.fail(lineOf(n), "%s must hold settings, one to a line, such as %q", orFile(path), l.sections[path][0]+": …")
	}
	for _, p := range pairs {
		key := p.Key.GetToken().Value
		full, line := strings.TrimPrefix(path+"."+key, "."), lineOf(p.Key)
		f, isField := l.byPath[full]
		_, isSection := l.sections[full]
		if !isField && !isSection || strings.Contains(key, ".") {
			l.unknown(path, key, line)
			continue
		}
		if before, ok := l.seen[full]; ok {
			l.fail(line, "%q is set twice, first in line %d", full, before)
			continue
		}
		l.seen[full] = line
		if isSection {
			l.section(full, p.Value)
		} else {
			l.value(f, p.Value, line)
		}
	}
}

func (l *load) value(f field, n ast.Node, line int) {
	seq, isSeq := n.(*ast.SequenceNode)
	switch {
	case isSeq && !f.isList():
		l.fail(line, "%s takes one value, not a list", f.path)
		return
	case f.isList() && !isSeq:
		l.fail(line, "%s takes a list, such as [a, b]", f.path)
		return
	}
	nodes := []ast.Node{n}
	if isSeq {
		nodes = seq.Values
	}
	texts, bad := []string{}, false
	for _, v := range nodes {
		text, err := scalar(v)
		if err == nil {
			err = f.check(text)
		}
		if err != nil {
			l.fail(max(line, lineOf(v)), "%s: %v", f.path, err)
			bad = true
		}
		texts = append(texts, text)
	}
	if bad {
		return
	}
	if err := f.set(texts); err != nil {
		l.fail(line, "%s: %v", f.path, err)
	}
}

// scalar returns a value's text as it was written; what it means is for its field to say.
func scalar(n ast.Node) (string, error) {
	switch n := n.(type) {
	case *ast.StringNode:
		return n.Value, nil
	case *ast.LiteralNode:
		return strings.TrimSpace(n.Value.Value), nil
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		return n.GetToken().Value, nil
	case *ast.NullNode:
		return "", errors.New(`has no value; write "" for none, or leave the line out for the default`)
	case *ast.MappingNode, *ast.MappingValueNode:
		return "", errors.New(`takes a plain value, not keys with values; a value with a colon may need quotes, such as "stun:host:3478"`)
	}
	return "", errors.New("takes a plain value")
}

// unknown reports a key with the one that was probably meant: the same in another section,
// or one spelt alike in this.
func (l *load) unknown(section, key string, line int) {
	meant := ""
	for _, other := range slices.Sorted(maps.Keys(l.sections)) {
		if slices.Contains(l.sections[other], key) {
			meant = strings.TrimPrefix(other+"."+key, ".")
		}
	}
	hint := ""
	if meant = cmp.Or(meant, nearest(key, l.sections[section])); meant != "" {
		hint = fmt.Sprintf("; did you mean %q?", meant)
	}
	l.fail(line, "%s has no key %q%s", orFile(section), key, hint)
}

func orFile(path string) string {
	if path == "" {
		return "the file"
	}
	return fmt.Sprintf("%q", path)
}

func lineOf(n ast.Node) int {
	if t := n.GetToken(); t != nil && t.Position != nil {
		return t.Position.Line
	}
	return 0
}
