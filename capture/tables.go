package capture

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Tables selects tables by globs over schema.table: "*" is any text without a dot, "?"
// one character that is not a dot. Quoting is not needed, case counts.
type Tables struct {
	// Include lists what is captured. Empty means every table.
	Include []string `yaml:"include"`
	// Exclude lists what is not, and wins over Include.
	Exclude []string `yaml:"exclude"`
}

// Validate reports every glob that cannot match a table.
func (t *Tables) Validate() error {
	return wantDots(1, `has no dot; want schema.table, such as "public.*"`, globList{"tables.include", t.Include}, globList{"tables.exclude", t.Exclude})
}

type globList struct {
	name  string // in the configuration
	globs []string
}

// wantDots complains of every glob that has fewer dots.
func wantDots(n int, complaint string, lists ...globList) error {
	var errs []error
	for _, l := range lists {
		for _, g := range l.globs {
			if strings.Count(g, ".") < n {
				errs = append(errs, fmt.Errorf("%s: %q %s", l.name, g, complaint))
			}
		}
	}
	return errors.Join(errs...)
}

// A TableFilter is Tables, compiled.
type TableFilter struct{ include, exclude []*regexp.Regexp }

// Filter compiles the globs.
func (t *Tables) Filter() *TableFilter {
	return &TableFilter{include: compileGlobs(t.Include), exclude: compileGlobs(t.Exclude)}
}

func compileGlobs(globs []string) []*regexp.Regexp {
	var out []*regexp.Regexp
	for _, g := range globs {
		p := regexp.QuoteMeta(g)
		p = strings.ReplaceAll(p, `\*`, `[^.]*`)
		p = strings.ReplaceAll(p, `\?`, `[^.]`)
		out = append(out, regexp.MustCompile(`(?s)^`+p+`$`))
	}
	return out
}

// Selects says whether the table is captured, by its own name or by that of a table that
// it is a part of.
func (f *TableFilter) Selects(id TableID, ancestors ...TableID) bool {
	excluded := func(id TableID) bool { return matchesAny(f.exclude, id.String()) }
	if excluded(id) || slices.ContainsFunc(ancestors, excluded) {
		return false
	}
	return f.includes(id) || slices.ContainsFunc(ancestors, f.includes)
}

// SelectsAny says that the table is captured whatever it is a part of.
func (f *TableFilter) SelectsAny(id TableID) bool { return len(f.exclude) == 0 && f.includes(id) }

func (f *TableFilter) includes(id TableID) bool {
	return len(f.include) == 0 || matchesAny(f.include, id.String())
}

// Included returns, for each glob of Include, whether it matches one of the tables.
func (f *TableFilter) Included(tables []TableID) []bool {
	out := make([]bool, len(f.include))
	for i, g := range f.include {
		out[i] = slices.ContainsFunc(tables, func(id TableID) bool { return g.MatchString(id.String()) })
	}
	return out
}

func matchesAny(globs []*regexp.Regexp, name string) bool {
	return slices.ContainsFunc(globs, func(g *regexp.Regexp) bool { return g.MatchString(name) })
}
