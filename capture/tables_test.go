package capture

import (
	"strings"
	"testing"
)

func TestTables_GlobsStopAtTheDot(t *testing.T) {
	f := (&Tables{Include: []string{"public.*", "a.b?"}, Exclude: []string{"*.secret*"}}).Filter()
	for name, want := range map[string]bool{
		"public.t": true, "public.t.x": false, "xpublic.t": false, "a.bc": true, "a.b": false, "a.b.": false, "public.secrets": false, "public.T\n": true,
	} {
		schema, table, _ := strings.Cut(name, ".")
		if got := f.Selects(TableID{Schema: schema, Name: table}); got != want {
			t.Errorf("%q: %v", name, got)
		}
	}
}

func TestTables_APartIsSelectedWithItsWhole(t *testing.T) {
	f := (&Tables{Include: []string{"public.orders", "parts.p*"}, Exclude: []string{"public.audit"}}).Filter()
	part, other := TableID{"x", "orders_1"}, TableID{"parts", "p1"}
	for _, c := range []struct {
		id        TableID
		ancestors []TableID
		want      bool
	}{
		{part, nil, false},
		{part, []TableID{{"public", "orders"}}, true},
		{other, []TableID{{"public", "elsewhere"}}, true},
		{other, []TableID{{"public", "elsewhere"}, {"public", "audit"}}, false},
	} {
		if got := f.Selects(c.id, c.ancestors...); got != c.want {
			t.Errorf("%v in %v: %v", c.id, c.ancestors, got)
		}
	}
	if f.SelectsAny(other) {
		t.Error("an excluded ancestor was forgotten")
	}
	if all := (&Tables{}).Filter(); !all.SelectsAny(part) {
		t.Error("without globs not every table is captured")
	}
}
