package capture

import (
	"slices"
	"strings"
	"testing"
)

func TestTables_SelectByGlobs(t *testing.T) {
	f := (&Tables{Include: []string{"shop.*", "a?.t"}, Exclude: []string{"*.tmp_*", "shop.x+"}}).Filter()
	for name, want := range map[string]bool{
		"shop.orders": true, "shop.tmp_1": false, "Shop.orders": false, "ab.t": true, "a.t": false, "abc.t": false,
		"shop.x+": false, "shop.xx": true, "other.shop.orders": false, "shop.a.b": false, "shop.a\nb": true,
	} {
		schema, table, _ := strings.Cut(name, ".")
		if got := f.Selects(TableID{schema, table}); got != want {
			t.Errorf("%q: got %v, want %v", name, got, want)
		}
	}
	if !(&Tables{}).Filter().Selects(TableID{"any", "thing"}) {
		t.Error("without Include every table is selected")
	}
	if got := f.Included([]TableID{{"ab", "t"}}); !slices.Equal(got, []bool{false, true}) {
		t.Errorf("included are %v", got)
	}
	err := (&Tables{Include: []string{"shop"}, Exclude: []string{"x"}}).Validate()
	if err == nil || !strings.Contains(err.Error(), `tables.include: "shop"`) || !strings.Contains(err.Error(), `tables.exclude: "x"`) {
		t.Errorf("got %v", err)
	}
}
