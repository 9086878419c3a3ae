package capture

import (
	"fmt"
	"regexp"
	"slices"
)

// Columns selects columns of captured tables by globs over schema.table.column, which match
// as those of [Tables] do. A partition's columns are selected by its own name and by the
// names of what it is a part of.
type Columns struct {
	// Include lists what records carry. Empty means every column.
	Include []string `yaml:"include"`
	// Exclude lists what they do not, and wins over Include.
	Exclude []string `yaml:"exclude"`
}

// All says that no column is left out.
func (c *Columns) All() bool { return len(c.Include)+len(c.Exclude) == 0 }

// Validate reports every glob that cannot match a column.
func (c *Columns) Validate() error {
	return wantDots(2, `has not two dots; want schema.table.column, such as "public.users.password*"`, c.lists()...)
}

// Unmatched returns a finding for every glob that matches no column of the tables: one that
// was misspelt leaves nothing out.
func (c *Columns) Unmatched(tables []*Table) []*Finding {
	var out []*Finding
	for _, l := range c.lists() {
		for i, g := range compileGlobs(l.globs) {
			one := []*regexp.Regexp{g}
			if !slices.ContainsFunc(tables, func(t *Table) bool {
				return slices.ContainsFunc(t.Columns, func(c Column) bool { return matchesColumn(one, t, c.Name) })
			}) {
				out = append(out, &Finding{What: fmt.Sprintf("%s: %q matches no column of a captured table", l.name, l.globs[i]), Warning: true})
			}
		}
	}
	return out
}

func (c *Columns) lists() []globList {
	return []globList{{"columns.include", c.Include}, {"columns.exclude", c.Exclude}}
}

// A ColumnFilter is Columns, compiled.
type ColumnFilter struct{ include, exclude []*regexp.Regexp }

// Filter compiles the globs.
func (c *Columns) Filter() *ColumnFilter {
	return &ColumnFilter{include: compileGlobs(c.Include), exclude: compileGlobs(c.Exclude)}
}

// Selects says whether records carry the column.
func (f *ColumnFilter) Selects(t *Table, column string) bool {
	return (len(f.include) == 0 || matchesColumn(f.include, t, column)) && !matchesColumn(f.exclude, t, column)
}

func matchesColumn(globs []*regexp.Regexp, t *Table, column string) bool {
	matches := func(id TableID) bool { return matchesAny(globs, id.String()+"."+column) }
	return matches(t.ID) || slices.ContainsFunc(t.PartOf, matches)
}
