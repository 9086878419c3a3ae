package avro

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	hamba "github.com/hamba/avro/v2"

	"github.com/headwaterdb/headwater/capture"
	"github.com/headwaterdb/headwater/publish"
	"github.com/headwaterdb/headwater/schema"
)

func without(globs ...string) func(*Config) {
	return func(c *Config) { c.Columns.Exclude = globs }
}

// users has two columns that nobody is to see, one of a type that has no mapping.
func users() *capture.Table {
	return makeTable("users", []int{0}, required("id", kind(capture.TypeInt32)), nullable("password", kind(capture.TypeString)),
		required("name", kind(capture.TypeString)), nullable("password_hint", capture.Type{Kind: capture.TypeText, Unmapped: true, Name: "xid8"}))
}

func user(id int64, name string) capture.Row {
	return capture.Row{num(id), str("s3cr3t"), str(name), str("s3cr3t")}
}

func TestColumns_LeftOutAppearNowhere(t *testing.T) {
	t.Parallel()
	table := users()
	old, now := user(1, "Ada"), user(1, "Ada L.")
	onlyPassword := capture.Row{old[0], str("s3cr3t two"), old[2], old[3]}
	toast := capture.Row{now[0], capture.UnchangedValue, now[2], capture.UnchangedValue}
	notText := capture.Row{now[0], str("s3cr3t\xff"), now[2], now[3]}
	for name, ev := range map[string]capture.Event{
		"insert": event(capture.Insert, table, nil, now), "read": event(capture.Read, table, nil, now),
		"update": event(capture.Update, table, old, now), "update of what is left out alone": event(capture.Update, table, old, onlyPassword),
		"delete": event(capture.Delete, table, old, nil), "key change": event(capture.Update, table, user(2, "Ada"), now),
		"value that the log does not repeat": event(capture.Update, table, nil, toast), "value that no record can hold": event(capture.Insert, table, nil, notText),
	} {
		h := newHarness(t, func(c *Config) {
			without("public.users.password*")(c)
			c.Format.UnknownTypes = "fail" // which concerns records
		})
		out := h.mustEncode(t, ev)
		if len(out.Records) == 0 {
			t.Errorf("%s: no record", name)
		}
		for i := range out.Records {
			r := &out.Records[i]
			if len(r.Headers) != 3 && name != "key change" {
				t.Errorf("%s: headers %s", name, headerNames(r))
			}
			if r.Value == nil {
				continue
			}
			v := h.decode(t, r.Value)
			for _, image := range []any{v["before"], v["after"]} {
				if image, ok := image.(map[string]any); ok && (len(image) != 2 || image["id"] == nil || image["name"] == nil) {
					t.Errorf("%s: image %v", name, image)
				}
			}
		}
		if all := strings.Join(h.registry.texts, "") + string(out.Buf); strings.Contains(all, "s3cr3t") || strings.Contains(all, "password") {
			t.Errorf("%s: what is left out stands in %q", name, all)
		}
		if len(h.notices) > 0 {
			t.Errorf("%s: notices %v", name, h.notices)
		}
	}
}

func TestColumns_OthersStandInErrorsWithoutThoseLeftOut(t *testing.T) {
	t.Parallel()
	h := newHarness(t, func(c *Config) { without("public.users.password*")(c); c.MaxRecordBytes = 300 })
	table := users()
	for _, row := range []capture.Row{
		{num(1), str("s3cr3t"), str("A\xff"), str("s3cr3t")}, {num(1), str("s3cr3t"), str(strings.Repeat("A", 300)), str("s3cr3t")},
	} {
		_, err := h.encode(event(capture.Insert, table, nil, row))
		if !errors.Is(err, capture.ErrUnreadable) || !strings.Contains(err.Error(), `key {"id":1}`) || strings.Contains(err.Error(), "s3cr3t") {
			t.Errorf("got %v", err)
		}
	}
}

func TestColumns_IncludeListsAllThatIsCarried(t *testing.T) {
	t.Parallel()
	h := newHarness(t, func(c *Config) {
		c.Columns.Include = []string{"public.users.id", "public.users.name", "public.people.*"}
	})
	after := h.decode(t, h.mustEncode(t, event(capture.Insert, users(), nil, user(1, "Ada"))).Records[0].Value)["after"].(map[string]any)
	if len(after) != 2 || after["name"] != "Ada" {
		t.Errorf("users: %v", after)
	}
	after = h.decode(t, h.mustEncode(t, event(capture.Insert, people(), nil, person(7, "Ada"))).Records[0].Value)["after"].(map[string]any)
	if len(after) != 3 {
		t.Errorf("people: %v", after)
	}
}

func TestColumns_OfKeysCannotBeLeftOut(t *testing.T) {
	t.Parallel()
	for name, adapt := range map[string]func(*Config){
		"belongs to the record key": without("public.users.?d"),
		`"id", which belongs`:       func(c *Config) { c.Columns.Include = []string{"public.users.name"} },
		`"name", which belongs to the record key; remedy: `: func(c *Config) {
			without("*.*.name")(c)
			c.Format.KeyColumns = "public.users:name"
		},
		"the checkpoint holds some of its values; remedy: ": func(c *Config) {
			without("*.*.id")(c)
			c.Format.KeyColumns = "public.users:name"
		},
	} {
		h := newHarness(t, adapt)
		_, err := h.encode(event(capture.Insert, users(), nil, user(1, "Ada")))
		if !errors.Is(err, capture.ErrMisconfigured) || !strings.Contains(err.Error(), "table public.users: the setting columns leaves out ") || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: got %v", name, err)
		}
		if checked := h.Check(users()); checked == nil || checked.Error() != err.Error() {
			t.Errorf("%s: Check says %v", name, checked)
		}
		if len(h.registry.texts) > 0 {
			t.Errorf("%s: %d record schemas were registered", name, len(h.registry.texts))
		}
	}
}

// That a nullable column is absent says that the log holds a row's identity alone, also where
// records do not carry it.
func TestColumns_LeftOutStillTellAPartialImage(t *testing.T) {
	t.Parallel()
	table := makeTable("t", []int{0}, required("id", kind(capture.TypeInt32)), required("email", kind(capture.TypeString)),
		required("name", kind(capture.TypeString)), nullable("ssn", kind(capture.TypeString)))
	h := newHarness(t, without("*.*.ssn"))
	before := capture.Row{num(1), str("a@b.example"), capture.AbsentValue, capture.AbsentValue}
	v := h.decode(t, h.mustEncode(t, event(capture.Update, table, before, capture.Row{num(1), str("c@d.example"), str("Ada"), str("x")})).Records[0].Value)
	if v["before"] != nil {
		t.Errorf("before is %v, want none", v["before"])
	}
}

func TestColumns_LeftOutCostNothing(t *testing.T) {
	table, row := wideTable()
	size := func(adapt func(*Config)) int {
		h := newHarness(t, adapt)
		batch, out := batchOf(10, event(capture.Update, table, row, row)), new(publish.Encoded)
		encode := func() {
			reset(out)
			if err := h.Encode(context.Background(), batch, out); err != nil {
				t.Fatal(err)
			}
		}
		encode()
		if n := testing.AllocsPerRun(20, encode); n != 0 {
			t.Errorf("%v allocations for 10 changes, want none", n)
		}
		if p := h.plans[table]; len(p.row) == 0 || bytes.Contains(out.Buf, []byte("acme.example")) != (adapt == nil) {
			t.Errorf("a plan of %d columns: %q", len(p.row), out.Buf)
		}
		return len(h.plans[table].row)
	}
	if all, some := size(nil), size(without("public.orders.email", "public.orders.c*")); all != 20 || some != 15 {
		t.Errorf("plans of %d and %d columns, want 20 and 15", all, some)
	}
}

// What registries make of a column that is left out, and of one that comes back.
func TestColumns_ChangesFollowTheRegistrysRules(t *testing.T) {
	t.Parallel()
	table := users()
	all, nullableOut, requiredOut := newHarness(t, nil), newHarness(t, without("*.*.password")), newHarness(t, without("*.*.name"))
	parse := func(h *harness) hamba.Schema {
		h.mustEncode(t, event(capture.Insert, table, nil, user(1, "Ada")))
		s, err := hamba.ParseWithCache(h.registry.texts[1], "", &hamba.SchemaCache{})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	whole, noPassword, noName := parse(all), parse(nullableOut), parse(requiredOut)
	for _, c := range []struct {
		what            string
		reader, written hamba.Schema
		compatible      bool
	}{
		{"a nullable column is left out", noPassword, whole, true},
		{"a nullable column comes back", whole, noPassword, true},
		{"a NOT NULL column is left out", noName, whole, true},
		{"a NOT NULL column comes back", whole, noName, false},
	} {
		if err := hamba.NewSchemaCompatibility().Compatible(c.reader, c.written); (err == nil) != c.compatible {
			t.Errorf("%s: %v", c.what, err)
		}
	}
	back := newHarness(t, nil)
	back.registry.texts, back.registry.subjects = requiredOut.registry.texts, requiredOut.registry.subjects
	back.registry.refuse = func(subject, _ string) error {
		if strings.HasSuffix(subject, "-value") {
			return &schema.IncompatibleError{Subject: subject}
		}
		return nil
	}
	_, err := back.encode(event(capture.Insert, table, nil, user(1, "Ada")))
	for _, want := range []string{"field name is new, NOT NULL and without default", "or the change of columns in the configuration"} {
		if !errors.Is(err, schema.ErrIncompatible) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
}
