package main

import (
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
)

// String is the table that a terminal shows.
func (r *result) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, %d cores, %s; ", r.Machine.Processor, r.Machine.Cores, r.Machine.System)
	if r.Repeat > 1 {
		fmt.Fprintf(&b, "medians of %d runs of %g s, with the least and the most\n\n", r.Repeat, r.Seconds)
	} else {
		fmt.Fprintf(&b, "one run of %g s each\n\n", r.Seconds)
	}
	w := tabwriter.NewWriter(&b, 0, 0, 3, ' ', 0)
	head := []string{"", floorName, oursName, "Janus", "must"}
	if v := r.Versions[janusName]; v != "" {
		head[3] += " " + v
	}
	fmt.Fprintln(w, strings.Join(head, "\t"))
	for _, x := range r.Rows {
		cells := []string{x.Name}
		for _, server := range []string{floorName, oursName, janusName} {
			cells = append(cells, x.cell(server, r.Repeat > 1))
		}
		fmt.Fprintln(w, strings.Join(append(cells, x.must()), "\t"))
	}
	w.Flush() // into memory: can't fail
	if len(r.Notes) > 0 {
		fmt.Fprintf(&b, "\n%s\n", strings.Join(r.Notes, "\n"))
	}
	return b.String()
}

// cell is a server's value, with how many times the floor it is.
func (x *row) cell(server string, spreads bool) string {
	values := x.Values[server]
	if values == nil {
		return "–"
	}
	var parts []string
	for _, v := range values {
		text := number(v.Median)
		if spreads {
			text += fmt.Sprintf(" [%s–%s]", number(v.Min), number(v.Max))
		}
		parts = append(parts, text)
	}
	text := strings.Join(parts, " / ")
	if floor := x.Values[floorName]; floor != nil && server != floorName && floor[0].Median > 0 {
		text += fmt.Sprintf(" (%.1f × floor)", values[0].Median/floor[0].Median)
	}
	return text
}

// must is what ours must keep, and whether it does.
func (x *row) must() string {
	if len(x.Limits) == 0 && x.Plain == nil {
		return ""
	}
	var parts []string
	for _, l := range x.Limits {
		parts = append(parts, fmt.Sprint(l))
	}
	if x.Plain != nil {
		parts = append(parts, fmt.Sprintf("%g × %s", x.Times, number(x.Plain.Median)))
	}
	text := "≤ " + strings.Join(parts, " / ")
	if x.Floor > 0 {
		text += fmt.Sprintf(", ≤ %g × floor", x.Floor)
	}
	if x.Met == nil {
		return text
	}
	return text + map[bool]string{true: "  met", false: "  MISSED"}[*x.Met]
}

// number has three digits that count.
func number(v float64) string {
	for _, d := range []struct {
		below  float64
		digits int
	}{{10, 2}, {100, 1}} {
		if v < d.below {
			return fmt.Sprintf("%.*f", d.digits, v)
		}
	}
	text := fmt.Sprintf("%.0f", v)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = string(slices.Insert([]byte(text), i, ','))
	}
	return text
}
