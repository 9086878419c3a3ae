package schema

import (
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
)

func TestFormat_HasDebeziumsNamesAndDefaults(t *testing.T) {
	t.Parallel()
	var f Format
	text := `
decimal.handling.mode: string
time.precision.mode: connect
money.fraction.digits: 0
tombstones.on.delete: false
skipped.operations: none
avro.null.as.default: true
message.key.columns: "own.t:a,b;own.u:c"
`
	if err := yaml.UnmarshalWithOptions([]byte(text), &f, yaml.Strict()); err != nil {
		t.Fatal(err)
	}
	f.SetDefaults()
	if err := f.Validate(); err != nil {
		t.Fatal(err)
	}
	if f.Decimals != "string" || f.TimePrecision != "connect" || *f.MoneyDigits != 0 || *f.Tombstones || f.Skipped != "none" || !f.NullAsDefault {
		t.Errorf("what was set is lost: %+v", f)
	}
	if f.Binary != "bytes" || f.FieldNames != "avro" || f.UnknownTypes != "text" || !*f.ContextHeaders || f.Placeholder != "__debezium_unavailable_value" {
		t.Errorf("defaults: %+v", f)
	}
}

func TestValidate_NamesEveryProblemAsItWasTyped(t *testing.T) {
	t.Parallel()
	n := 99
	f := Format{
		Decimals: "exact", TimePrecision: "structured", Binary: "x", Intervals: "x", UnsignedBigint: "x", HStore: "x", MoneyDigits: &n,
		SchemaNames: "x", FieldNames: "x", Skipped: "c,x", UnknownTypes: "x", NumericSpecial: "x", TemporalInfinity: "x", KeyColumns: "nocolon",
		KeyFallback: "x", LogicalTypes: "x", Compat: "3.7", Placeholder: "hex:zz",
	}
	f.SetDefaults()
	err := f.Validate()
	if err == nil {
		t.Fatal("nothing is reported")
	}
	for _, name := range []string{
		"decimal.handling.mode", "time.precision.mode", "binary.handling.mode", "interval.handling.mode", "bigint.unsigned.handling.mode",
		"hstore.handling.mode", "money.fraction.digits", "schema.name.adjustment.mode", "field.name.adjustment.mode", "skipped.operations",
		"unknown.types", "numeric.special", "temporal.infinity", "message.key.columns", "key.fallback", "avro.logical.types", "debezium.compat",
		"unavailable.value.placeholder",
	} {
		if !strings.Contains(err.Error(), name+":") {
			t.Errorf("%s is not reported", name)
		}
	}
	if strings.Count(err.Error(), "\n") != 17 {
		t.Errorf("18 problems give %q", err)
	}
}
