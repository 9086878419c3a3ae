package capture

import (
	"strings"
	"testing"
)

func TestColumns_GlobsStopAtTheDotAndExcludeWins(t *testing.T) {
	t.Parallel()
	c := Columns{Include: []string{"public.*.*", "a.b.c?"}, Exclude: []string{"public.users.password*", "*.*.ssn"}}
	f := c.Filter()
	for name, want := range map[string]bool{
		"public.users.name": true, "public.users.password": false, "public.users.password_old": false, "public.users.Password": true,
		"public.orders.password": true, "public.orders.ssn": false, "a.b.c1": true, "a.b.c": false, "other.t.name": false,
	} {
		parts := strings.Split(name, ".")
		if got := f.Selects(&Table{ID: TableID{parts[0], parts[1]}}, parts[2]); got != want {
			t.Errorf("%s: %v", name, got)
		}
	}
	none := Columns{}
	if !none.All() || c.All() || !none.Filter().Selects(&Table{}, "x") {
		t.Error("without globs some column is left out")
	}
}

func TestColumns_OfAPartAreSelectedByTheNamesOfTheWhole(t *testing.T) {
	t.Parallel()
	part := &Table{ID: TableID{"parts", "p1"}, PartOf: []TableID{{"parts", "p"}, {"public", "orders"}}, Columns: []Column{{Name: "id"}, {Name: "card"}}}
	for glob, want := range map[string]bool{"public.orders.card": false, "parts.p.card": false, "parts.p1.card": false, "public.p1.card": true} {
		c := Columns{Exclude: []string{glob}}
		if got := c.Filter().Selects(part, "card"); got != want {
			t.Errorf("%s: %v", glob, got)
		}
		if unmatched := len(c.Unmatched([]*Table{part})) > 0; unmatched != want {
			t.Errorf("%s: unmatched %v", glob, unmatched)
		}
	}
}

func TestColumns_GlobsThatMatchNothingAreNamed(t *testing.T) {
	t.Parallel()
	c := Columns{Include: []string{"public.users.*"}, Exclude: []string{"public.users.pasword", "public.users.password"}}
	users := &Table{ID: TableID{"public", "users"}, Columns: []Column{{Name: "id"}, {Name: "password"}}}
	got := c.Unmatched([]*Table{users})
	if len(got) != 1 || got[0].What != `columns.exclude: "public.users.pasword" matches no column of a captured table` || !got[0].Warning {
		t.Errorf("got %v", got)
	}
	bad := Columns{Include: []string{"password"}, Exclude: []string{"users.password", "a.b.c"}}
	if err := bad.Validate(); err == nil || strings.Count(err.Error(), "has not two dots") != 2 {
		t.Errorf("globs without schema or table: %v", err)
	}
}
