package schema

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Format holds the settings that shape records. Names, values and defaults are
// Debezium's, so that a migration copies them; those that Debezium does not have say
// so. A value that headwater does not carry out is refused by Validate.
type Format struct {
	// Decimals says how exact numbers are written: precise (Avro decimal), double
	// (loses digits), string. Default precise.
	Decimals string `yaml:"decimal.handling.mode"`
	// TimePrecision chooses the unit of dates and times without zone: adaptive,
	// adaptive_time_microseconds, connect (milliseconds), isostring, microseconds,
	// nanoseconds. The default is the database's: the wiring sets it before
	// SetDefaults, which else takes adaptive.
	TimePrecision string `yaml:"time.precision.mode"`
	// Binary is bytes, base64, base64-url-safe or hex. Default bytes.
	Binary string `yaml:"binary.handling.mode"`
	// Intervals is numeric (microseconds; a month counts 30.4375 days) or string
	// (ISO 8601). Default numeric.
	Intervals string `yaml:"interval.handling.mode"`
	// UnsignedBigint is long (values of 2^63 and more turn negative) or precise.
	// Default long.
	UnsignedBigint string `yaml:"bigint.unsigned.handling.mode"`
	// HStore is json (one text) or map. Default json.
	HStore string `yaml:"hstore.handling.mode"`
	// MoneyDigits is the scale of money columns. Default 2.
	MoneyDigits *int `yaml:"money.fraction.digits"`

	// SchemaNames and FieldNames make names legal in Avro: none, avro (an underscore
	// for each illegal character) or avro_unicode (an escape for each, and for the
	// underscore). Default avro; Debezium's is none, with which illegal names fail.
	SchemaNames string `yaml:"schema.name.adjustment.mode"`
	FieldNames  string `yaml:"field.name.adjustment.mode"`

	// Tombstones writes a record without value after each delete, so that compaction
	// can forget the key. Default true.
	Tombstones *bool `yaml:"tombstones.on.delete"`
	// Skipped lists operations that are not published: c, u, d, t, comma separated, or
	// none. Default t: truncates are counted and warned of, not published.
	Skipped string `yaml:"skipped.operations"`
	// UnknownTypes says what becomes of columns whose type has no mapping: text (the
	// text that the server prints), omit (no field), bytes (that text as bytes), fail.
	// All but fail are reported. Default text. A setting of headwater's own.
	UnknownTypes string `yaml:"unknown.types"`
	// NumericSpecial says what becomes of NaN and infinite numerics where a record can
	// hold neither them nor null: fail, or zero with a record header. Default fail. A
	// setting of headwater's own.
	NumericSpecial string `yaml:"numeric.special"`
	// TemporalInfinity says what becomes of infinite dates and timestamps: sentinel
	// (Debezium's largest and smallest values), null, fail. Default sentinel. A
	// setting of headwater's own.
	TemporalInfinity string `yaml:"temporal.infinity"`
	// KeyColumns replaces the record keys of tables: entries "table regex:column,column"
	// separated by semicolons. Default none.
	KeyColumns string `yaml:"message.key.columns"`
	// KeyFallback is the record key of a table without primary key: unique_index (the
	// first one, as Debezium has it, even where it is no row identity),
	// unique_not_null_index, none. Default unique_index. A setting of headwater's own.
	KeyFallback string `yaml:"key.fallback"`

	// NullAsDefault writes a column's default in place of NULL, as Debezium with a
	// stock Avro converter does by mistake. Default false.
	NullAsDefault bool `yaml:"avro.null.as.default"`
	// LogicalTypes is none, or annotate: dates, times, timestamps and UUIDs also carry
	// Avro's logicalType. The bytes stay as they are. Default none. A setting of
	// headwater's own.
	LogicalTypes string `yaml:"avro.logical.types"`
	// Compat is the Debezium version whose shapes are written. Only 3.6, the default.
	Compat string `yaml:"debezium.compat"`
	// Placeholder stands for a value that the log did not repeat; "hex:" before it
	// gives the bytes of binary columns. Default __debezium_unavailable_value.
	Placeholder string `yaml:"unavailable.value.placeholder"`
	// Comments adds column comments to record schemas. Default false.
	Comments bool `yaml:"include.schema.comments"`
	// ContextHeaders adds headers that name the pipeline to every data record. Default true.
	ContextHeaders *bool `yaml:"extended.headers.enabled"`
	// Positions adds the record header "headwater.pos" to what a source transaction holds:
	// <place of its commit>/<number of the change>, the same whenever the log is read
	// again. Consumers of a pipeline that may repeat records drop by it what they have
	// seen. Default false; the wiring sets it for delivery at-least-once. A setting of
	// headwater's own.
	Positions *bool `yaml:"position.header.enabled" json:",omitempty"`

	// EscapeLabels writes a comma within an enum label as "\," in the record schema's
	// list of labels. It is a property of the connector that records are compatible
	// with, so the wiring sets it.
	EscapeLabels bool `yaml:"-"`
}

// SetDefaults fills in what was not set.
func (f *Format) SetDefaults() {
	for _, o := range f.options() {
		if *o.value == "" {
			*o.value = o.allowed[0]
		}
	}
	if f.MoneyDigits == nil {
		f.MoneyDigits = new(int)
		*f.MoneyDigits = 2
	}
	for _, p := range []**bool{&f.Tombstones, &f.ContextHeaders} {
		if *p == nil {
			*p = new(bool)
			**p = true
		}
	}
	if f.Positions == nil {
		f.Positions = new(bool)
	}
	if f.Skipped == "" {
		f.Skipped = "t"
	}
	if f.Placeholder == "" {
		f.Placeholder = "__debezium_unavailable_value"
	}
}

// Values of the settings, as far as the code decides on them.
const (
	modeNone        = "none"
	modeAvro        = "avro"
	modeAvroUnicode = "avro_unicode"
	modePrecise     = "precise"
	modeDouble      = "double"
	modeString      = "string"
	modeMap         = "map"
	modeText        = "text"
	modeOmit        = "omit"
	modeBytes       = "bytes"
	modeFail        = "fail"
	modeNull        = "null"
	modeZero        = "zero"
	modeAnnotate    = "annotate"

	keyUniqueIndex   = "unique_index"
	keyUniqueNotNull = "unique_not_null_index"

	timeAdaptive       = "adaptive"
	timeAdaptiveMicros = "adaptive_time_microseconds"
	timeConnect        = "connect"
	timeISO            = "isostring"
	timeMicros         = "microseconds"
	timeNanos          = "nanoseconds"
)

// An option is a setting with a closed list of values, the default first. refused
// holds values that exist elsewhere, and why they are not taken here.
type option struct {
	name    string
	value   *string
	allowed []string
	refused map[string]string
}

func (f *Format) options() []option {
	return []option{
		{"decimal.handling.mode", &f.Decimals, []string{modePrecise, modeDouble, modeString}, nil},
		{
			"time.precision.mode", &f.TimePrecision,
			[]string{timeAdaptive, timeAdaptiveMicros, timeConnect, timeISO, timeMicros, timeNanos},
			map[string]string{"structured": "it belongs to Debezium 3.7, and this version writes the shapes of 3.6; isostring and nanoseconds keep all digits too"},
		},
		{"binary.handling.mode", &f.Binary, []string{modeBytes, "base64", "base64-url-safe", "hex"}, nil},
		{"interval.handling.mode", &f.Intervals, []string{"numeric", modeString}, nil},
		{"bigint.unsigned.handling.mode", &f.UnsignedBigint, []string{"long", modePrecise}, nil},
		{"hstore.handling.mode", &f.HStore, []string{"json", modeMap}, nil},
		{"schema.name.adjustment.mode", &f.SchemaNames, []string{modeAvro, modeAvroUnicode, modeNone}, nil},
		{"field.name.adjustment.mode", &f.FieldNames, []string{modeAvro, modeAvroUnicode, modeNone}, nil},
		{"unknown.types", &f.UnknownTypes, []string{modeText, modeOmit, modeBytes, modeFail}, nil},
		{"numeric.special", &f.NumericSpecial, []string{modeFail, modeZero}, nil},
		{"temporal.infinity", &f.TemporalInfinity, []string{"sentinel", modeNull, modeFail}, nil},
		{"key.fallback", &f.KeyFallback, []string{keyUniqueIndex, keyUniqueNotNull, modeNone}, nil},
		{"avro.logical.types", &f.LogicalTypes, []string{modeNone, modeAnnotate}, nil},
		{
			"debezium.compat", &f.Compat,
			[]string{"3.6"},
			map[string]string{"3.7": "the shapes that are new in 3.7 are not written by this version"},
		},
	}
}

// Validate reports every setting that cannot be carried out, by its name.
func (f *Format) Validate() error {
	var errs []error
	for _, o := range f.options() {
		if why := o.refused[*o.value]; why != "" {
			errs = append(errs, fmt.Errorf("%s: %q is not supported: %s", o.name, *o.value, why))
		} else if !slices.Contains(o.allowed, *o.value) {
			errs = append(errs, fmt.Errorf("%s: %q is not one of %s", o.name, *o.value, strings.Join(o.allowed, ", ")))
		}
	}
	if f.MoneyDigits != nil && (*f.MoneyDigits < 0 || *f.MoneyDigits > 18) {
		errs = append(errs, fmt.Errorf("money.fraction.digits: %d is not between 0 and 18", *f.MoneyDigits))
	}
	if _, err := f.SkippedOps(); err != nil {
		errs = append(errs, err)
	}
	if _, err := parseKeyColumns(f.KeyColumns); err != nil {
		errs = append(errs, err)
	}
	if _, err := f.placeholderBytes(); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// SkippedOps returns the operation codes that are not published.
func (f *Format) SkippedOps() (map[byte]bool, error) {
	skip := make(map[byte]bool)
	parts := strings.Split(f.Skipped, ",")
	for _, p := range parts {
		switch p = strings.TrimSpace(p); {
		case p == modeNone && len(parts) == 1:
		case len(p) == 1 && strings.Contains("cudt", p):
			skip[p[0]] = true
		default:
			return nil, fmt.Errorf("skipped.operations: %q is not one of c, u, d, t, and none stands alone", p)
		}
	}
	return skip, nil
}

// placeholderText is the placeholder as text columns show it.
func (f *Format) placeholderText() string { return f.Placeholder }

// placeholderBytes is the placeholder as binary columns show it.
func (f *Format) placeholderBytes() ([]byte, error) {
	digits, ok := strings.CutPrefix(f.Placeholder, "hex:")
	if !ok {
		return []byte(f.Placeholder), nil
	}
	b, err := hex.DecodeString(digits)
	if err != nil {
		return nil, fmt.Errorf("unavailable.value.placeholder: what follows hex: is not hexadecimal: %w", err)
	}
	return b, nil
}

// Fingerprint is a hash of the settings. Two formats with the same fingerprint turn
// equal changes into equal records.
func (f *Format) Fingerprint() string {
	set := *f
	if set.Positions != nil && !*set.Positions {
		set.Positions = nil // as before there was such a setting
	}
	b, err := json.Marshal(&set)
	if err != nil {
		panic("schema: format has no JSON form: " + err.Error())
	}
	return fmt.Sprintf("sha256:%x", sha256.Sum256(b))
}

// A keyRule is one entry of message.key.columns.
type keyRule struct {
	columns []*regexp.Regexp // each matches "schema.table.column"
}

var keyRuleSyntax = regexp.MustCompile(`^\s*([^:]+):([^:,]+(,[^:,]+)*)\s*$`)

func parseKeyColumns(s string) ([]keyRule, error) {
	var rules []keyRule
	for entry := range strings.SplitSeq(s, ";") {
		if strings.TrimSpace(entry) == "" {
			continue
		}
		m := keyRuleSyntax.FindStringSubmatch(entry)
		if m == nil {
			return nil, fmt.Errorf("message.key.columns: %q is not of the form table:column,column", entry)
		}
		var r keyRule
		for col := range strings.SplitSeq(m[2], ",") {
			re, err := regexp.Compile(`(?i)^(?:` + strings.TrimSpace(m[1]) + `)\.(?:` + strings.TrimSpace(col) + `)$`)
			if err != nil {
				return nil, fmt.Errorf("message.key.columns: %q: %w", entry, err)
			}
			r.columns = append(r.columns, re)
		}
		rules = append(rules, r)
	}
	return rules, nil
}
