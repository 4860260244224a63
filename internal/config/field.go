package config

import (
	"encoding"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// field is one setting: a leaf of Config, with the place where its value is kept.
type field struct {
	path  string // such as "node.limits.cpu"
	value reflect.Value
	tag   reflect.StructTag
}

// fields lists the settings of a struct with yaml tags, in the order of the source. ptr
// points to a Config or, with its path as prefix, to a section of one.
func fields(prefix string, ptr any) []field {
	return walk(prefix, reflect.ValueOf(ptr).Elem())
}

func walk(prefix string, v reflect.Value) []field {
	var list []field
	for i := range v.NumField() {
		sf := v.Type().Field(i)
		key := sf.Tag.Get("yaml")
		if sf.Anonymous && key == "" {
			list = append(list, walk(prefix, v.Field(i))...)
			continue
		}
		if key == "" {
			continue
		}
		path := strings.TrimPrefix(prefix+"."+key, ".")
		if sf.Type.Kind() == reflect.Struct {
			list = append(list, walk(path, v.Field(i))...)
			continue
		}
		list = append(list, field{path: path, value: v.Field(i), tag: sf.Tag})
	}
	return list
}

// env returns the name of the field's environment variable.
func (f field) env() string {
	return "SLUICE_" + strings.ToUpper(strings.NewReplacer(".", "_", "-", "_").Replace(f.path))
}

func (f field) isList() bool { return f.value.Kind() == reflect.Slice }

// fallback returns the default as set takes it.
func (f field) fallback() []string { return f.split(f.tag.Get("default")) }

// split makes what set takes from text of a variable or a tag: lists have commas.
func (f field) split(text string) []string {
	if !f.isList() {
		return []string{text}
	}
	var list []string
	for s := range strings.SplitSeq(text, ",") {
		if s = strings.TrimSpace(s); s != "" {
			list = append(list, s)
		}
	}
	return list
}

// text returns the value in the form that split takes.
func (f field) text() string {
	if f.isList() {
		return strings.Join(f.value.Interface().([]string), ",")
	}
	if f.value.Kind() == reflect.String {
		return f.value.String() // not by fmt: a Secret must survive
	}
	return fmt.Sprint(f.value.Interface())
}

// set checks and stores a value: one text, or those of a list.
func (f field) set(texts []string) error {
	for _, s := range texts {
		if err := f.check(s); err != nil {
			return err
		}
	}
	if f.isList() {
		f.value.Set(reflect.ValueOf(append([]string{}, texts...)))
		return nil
	}
	return f.setOne(texts[0])
}

func (f field) setOne(s string) error {
	if u, ok := f.value.Addr().Interface().(encoding.TextUnmarshaler); ok {
		return u.UnmarshalText([]byte(s))
	}
	switch f.value.Interface().(type) {
	case string, Secret:
		f.value.SetString(s)
	case time.Duration:
		d, err := time.ParseDuration(s)
		if err != nil {
			return fmt.Errorf("%q is not a duration with its unit, such as 300ms, 5s or 2m", s)
		}
		f.value.SetInt(int64(d))
	case int:
		n, err := strconv.Atoi(s)
		if err != nil {
			return fmt.Errorf("%q is not a whole number", s)
		}
		f.value.SetInt(int64(n))
	case bool:
		b, err := strconv.ParseBool(s)
		if err != nil {
			return fmt.Errorf("%q is not true or false", s)
		}
		f.value.SetBool(b)
	case float64:
		x, err := strconv.ParseFloat(s, 64)
		if err != nil {
			return fmt.Errorf("%q is not a number", s)
		}
		f.value.SetFloat(x)
	default:
		return fmt.Errorf("settings of type %s are not known", f.value.Type())
	}
	return nil
}
