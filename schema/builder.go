package schema

import (
	"errors"
	"fmt"
	"slices"

	"github.com/headwaterdb/headwater/capture"
)

// ErrTableRefused says that a table definition has no record schema. The other tables go on.
var ErrTableRefused = errors.New("the table cannot be captured")

// A Table is what the records of one table definition look like.
type Table struct {
	Topic string
	// Key is nil for a table without a record key.
	Key *Type
	// Row is a row image. Its fields name their columns by index.
	Row *Type
	// Envelope holds Row twice, and the source block.
	Envelope *Type
	// Notices are to be told once the table is taken up.
	Notices []Notice
}

// A Builder makes record types of table definitions.
type Builder struct {
	format  Format
	naming  Naming
	columns *capture.ColumnFilter
	keys    []keyRule
	schemas adjuster
	fields  adjuster
}

// NewBuilder returns a Builder whose records carry the selected columns. Format and Naming
// must have their defaults; all must be valid.
func NewBuilder(f Format, n Naming, c capture.Columns) (*Builder, error) {
	if err := errors.Join(f.Validate(), n.Validate(), c.Validate()); err != nil {
		return nil, err
	}
	keys, err := parseKeyColumns(f.KeyColumns)
	if err != nil {
		return nil, err
	}
	return &Builder{
		format: f, naming: n, columns: c.Filter(), keys: keys,
		schemas: adjuster{mode: f.SchemaNames, dots: true}, fields: adjuster{mode: f.FieldNames},
	}, nil
}

// Table returns the record types of a table. An error that matches ErrTableRefused
// concerns this table alone.
func (b *Builder) Table(t *capture.Table) (*Table, error) {
	out := &Table{Topic: b.naming.Topic(t.ID)}
	note := func(k NoticeKind, column, format string, args ...any) {
		out.Notices = append(out.Notices, Notice{Kind: k, Table: t.ID, Column: column, Text: fmt.Sprintf(format, args...)})
	}

	out.Row = &Type{Kind: Struct, Name: b.schemas.adjust(out.Topic + ".Value"), Optional: true}
	taken := make(map[string]string)
	for i := range t.Columns {
		c := &t.Columns[i]
		if !b.columns.Selects(t, c.Name) {
			continue
		}
		typ, err := b.field(t, c, note)
		if err != nil {
			return nil, err
		}
		if typ == nil {
			continue
		}
		name := b.fields.adjust(c.Name)
		if other, ok := taken[name]; ok {
			return nil, fmt.Errorf("%w: table %s: columns %q and %q both become the field %q; remedy: rename one, exclude one, or set field.name.adjustment.mode to avro_unicode",
				ErrTableRefused, t.ID, other, c.Name, name)
		}
		taken[name] = c.Name
		out.Row.Fields = append(out.Row.Fields, Field{Name: name, Type: typ, Column: i})
	}

	key := b.key(t, note)
	if err := b.carriesKeys(t, key); err != nil {
		return nil, err
	}
	for _, i := range key {
		at := slices.IndexFunc(out.Row.Fields, func(f Field) bool { return f.Column == i })
		if at < 0 || isUnmapped(&t.Columns[i].Type) && b.format.UnknownTypes != modeText {
			return nil, fmt.Errorf("%w: table %s: the key column %q has the type %s, which has no mapping; remedy: unknown.types text, or another key by message.key.columns",
				ErrTableRefused, t.ID, t.Columns[i].Name, t.Columns[i].Type.Name)
		}
		f := out.Row.Fields[at]
		typ := *f.Type // nullability is that of the key's own subject
		if out.Key == nil {
			out.Key = &Type{Kind: Struct, Name: b.schemas.adjust(out.Topic + ".Key")}
		}
		out.Key.Fields = append(out.Key.Fields, Field{Name: f.Name, Type: &typ, Column: i})
	}
	out.Envelope = b.envelope(out, t.Origin)
	return out, nil
}

// carriesKeys refuses settings that leave out what records or the checkpoint must hold. It
// is an error of the whole pipeline: changes of a table that is merely left out would be
// missing after the settings are corrected.
func (b *Builder) carriesKeys(t *capture.Table, key []int) error {
	for _, i := range key {
		if name := t.Columns[i].Name; !b.columns.Selects(t, name) {
			return fmt.Errorf("%w: table %s: the setting columns leaves out %q, which belongs to the record key; remedy: let columns.include and columns.exclude keep it, exclude the table (tables.exclude), or choose another key by message.key.columns",
				capture.ErrMisconfigured, t.ID, name)
		}
	}
	for _, i := range t.RowKey {
		if name := t.Columns[i].Name; !b.columns.Selects(t, name) {
			return fmt.Errorf("%w: table %s: the setting columns leaves out %q, by which the table is read in parts, so that the checkpoint holds some of its values; remedy: let columns.include and columns.exclude keep it, or exclude the table (tables.exclude)",
				capture.ErrMisconfigured, t.ID, name)
		}
	}
	return nil
}

// field returns a column's type with its nullability and default, nil for a column
// that is left out.
func (b *Builder) field(t *capture.Table, c *capture.Column, note func(NoticeKind, string, string, ...any)) (*Type, error) {
	if isUnmapped(&c.Type) {
		mode := b.format.UnknownTypes
		switch mode {
		case modeFail:
			return nil, fmt.Errorf("%w: table %s: column %q has the type %s, which has no mapping, and unknown.types is fail; remedy: unknown.types text, or exclude the column",
				capture.ErrMisconfigured, t.ID, c.Name, c.Type.Name)
		case modeOmit:
			note(NoticeUnmapped, c.Name, "type %s has no mapping: the column is left out (unknown.types omit)", c.Type.Name)
			return nil, nil
		}
		note(NoticeUnmapped, c.Name, "type %s has no mapping: the column carries the server's text (unknown.types %s)", c.Type.Name, mode)
		typ := b.unmappedType()
		typ.Optional = c.Nullable || mode == modeText
		if c.Type.Kind == capture.TypeArray {
			typ = &Type{Kind: Array, Form: FormArray, Items: optional(typ), Optional: typ.Optional, Zero: capture.ArrayValue(nil)}
		}
		b.comment(typ, c)
		return typ, nil
	}
	typ := b.columnType(&c.Type)
	// Debezium has every geometry nullable.
	typ.Optional = c.Nullable || c.Type.Kind == capture.TypeGeometry
	var err error
	if typ.Default, err = columnDefault(typ, c.Default); err != nil {
		note(NoticeDefault, c.Name, "the record schema cannot show the default %s: %v", c.Default.Value, err)
	}
	b.comment(typ, c)
	return typ, nil
}

func (b *Builder) comment(t *Type, c *capture.Column) {
	// A struct type is shared by columns and keeps its own text.
	if b.format.Comments && t.Kind != Struct {
		t.Doc = c.Comment
	}
}

// isUnmapped reports whether a type, or its elements, have no mapping.
func isUnmapped(t *capture.Type) bool {
	return t.Unmapped || t.Elem != nil && isUnmapped(t.Elem)
}

// key returns the columns of the record key, in its order.
func (b *Builder) key(t *capture.Table, note func(NoticeKind, string, string, ...any)) []int {
	for _, r := range b.keys {
		var key []int
		for _, re := range r.columns {
			for i := range t.Columns {
				if re.MatchString(t.ID.String()+"."+t.Columns[i].Name) && !slices.Contains(key, i) {
					key = append(key, i)
				}
			}
		}
		if len(key) > 0 {
			return key
		}
	}
	if t.KeyIndex == "" {
		return t.Key
	}
	switch b.format.KeyFallback {
	case modeNone:
		return nil
	case keyUniqueNotNull:
		return t.RowKey
	}
	note(NoticeKeyFallback, "", "there is no primary key, so the record key is the unique index %q, which may not identify a row; "+
		"message.key.columns names other columns, key.fallback another rule", t.KeyIndex)
	return t.Key
}

// envelope returns what a table's values look like.
func (b *Builder) envelope(t *Table, o *capture.Origin) *Type {
	long := func() *Type { return &Type{Kind: Int64, Optional: true} }
	return &Type{
		Kind: Struct, Name: b.schemas.adjust(t.Topic + ".Envelope"), Version: 2,
		Fields: []Field{
			plain("before", t.Row), plain("after", t.Row), plain("source", sourceType(o)), plain("transaction", transactionType()),
			plain("op", &Type{Kind: String}), plain("ts_ms", long()), plain("ts_us", long()), plain("ts_ns", long()),
		},
	}
}

// Unavailable returns what stands for a value of the type that the log did not
// repeat: the placeholder in the type's own form. It reports false for a type that
// has none.
func (b *Builder) Unavailable(t *Type) (capture.Value, bool) {
	raw, err := b.format.placeholderBytes()
	if err != nil {
		panic("schema: the placeholder was not validated: " + err.Error())
	}
	text := capture.TextValue(b.format.placeholderText())
	switch t.Form {
	case FormString:
		return text, true
	case FormBase64, FormBase64URL, FormHex:
		// As text, not encoded: consumers look for it.
		return text, true
	case FormBytes:
		return capture.BytesValue(raw), t.Name == ""
	case FormMapJSON, FormMap:
		return capture.MapValue([]capture.Value{text, text}, 0), true
	case FormArray:
		if t.Name == "" {
			return b.unavailableArray(t.Items, raw)
		}
	}
	return capture.Value{}, false
}

// unavailableArray has one element, or a number per byte where elements are integers.
func (b *Builder) unavailableArray(items *Type, raw []byte) (capture.Value, bool) {
	if items.Name == nameUUID {
		id := nameUUIDOf(raw)
		return capture.ArrayValue([]capture.Value{capture.TextValue(id)}), true
	}
	var number func(int64) capture.Value
	switch {
	case items.Form == FormInt && items.Kind != Int16:
		number = capture.IntValue
	case items.Form == FormDays:
		number = capture.DateValue
	default:
		v, ok := b.Unavailable(items)
		return capture.ArrayValue([]capture.Value{v}), ok && items.Form != FormMapJSON && items.Form != FormMap
	}
	elems := make([]capture.Value, len(raw))
	for i, c := range raw {
		elems[i] = number(int64(c))
	}
	return capture.ArrayValue(elems), true
}
