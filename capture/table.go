package capture

import (
	"slices"
	"strings"
)

// A TableID names a table. Schema is the namespace that holds it: PostgreSQL's
// schema, MySQL's database, Oracle's owner.
type TableID struct {
	Schema, Name string
}

func (id TableID) String() string { return id.Schema + "." + id.Name }

// Compare orders table ids by schema and name, bytewise.
func (id TableID) Compare(o TableID) int {
	if c := strings.Compare(id.Schema, o.Schema); c != 0 {
		return c
	}
	return strings.Compare(id.Name, o.Name)
}

// A Table is a table definition: columns, types and key at one moment. It is never
// changed after it was made. Encoders cache by the pointer, so equal definitions
// share one, in snapshot and stream alike; a new pointer on a change is the news
// that the definition changed.
type Table struct {
	ID TableID
	// PartOf names the tables that this one is a partition of, the nearest first.
	PartOf  []TableID
	Columns []Column
	// Key lists the columns of the record key, in key order: the primary key, else
	// the first unique index. Empty for a table without either.
	Key []int
	// KeyIndex names the unique index whose columns Key lists. It is empty when they
	// are the primary key, or when there is no key.
	KeyIndex string
	// RowKey lists columns that identify one row: the primary key, else a unique
	// index over NOT NULL columns without a condition. Snapshots cut and merge by
	// it. Empty when there is none: the table is then read as one piece.
	RowKey []int
	Origin *Origin
}

// Column returns the index of the named column, or -1.
func (t *Table) Column(name string) int {
	return slices.IndexFunc(t.Columns, func(c Column) bool { return c.Name == name })
}

// Equal reports whether two definitions say the same.
func (t *Table) Equal(o *Table) bool {
	return t.ID == o.ID && slices.Equal(t.PartOf, o.PartOf) && t.Origin == o.Origin && t.KeyIndex == o.KeyIndex && slices.Equal(t.Key, o.Key) && slices.Equal(t.RowKey, o.RowKey) &&
		slices.EqualFunc(t.Columns, o.Columns, func(a, b Column) bool { return a.equal(&b) })
}

// A Column is one column of a table definition.
type Column struct {
	Name     string
	Type     Type
	Nullable bool
	Default  Default
	Comment  string
}

func (c *Column) equal(o *Column) bool {
	return c.Name == o.Name && c.Type.Equal(&o.Type) && c.Nullable == o.Nullable && c.Comment == o.Comment &&
		c.Default.Kind == o.Default.Kind && string(c.Default.Value.AppendKey(nil)) == string(o.Default.Value.AppendKey(nil))
}

// A Default is what the record schema says about a column's default.
type Default struct {
	Kind DefaultKind
	// Value is the literal of DefaultLiteral. It owns its memory.
	Value Value
}

// A DefaultKind says how a column's default is known.
type DefaultKind uint8

const (
	// NoDefault: none, or one that a record schema does not show.
	NoDefault DefaultKind = iota
	// DefaultLiteral: the literal in Value.
	DefaultLiteral
	// DefaultZero: the server computes it for each row; the record schema shows the
	// zero of the type.
	DefaultZero
)

// A TypeKind is the family of a column type. The package comment shows which values
// each carries.
type TypeKind uint8

const (
	// TypeText is every type without a mapping of its own; Type.Unmapped is set.
	TypeText TypeKind = iota
	TypeBool
	TypeInt8
	TypeInt16
	TypeInt32
	TypeInt64
	TypeUint64
	TypeFloat32
	TypeFloat64
	// TypeDecimal has Precision and Scale digits.
	TypeDecimal
	// TypeVarDecimal is a decimal whose scale is each value's own.
	TypeVarDecimal
	// TypeMoney is a decimal whose scale the configuration gives.
	TypeMoney
	TypeString
	TypeBytes
	// TypeBits has Length bits; 0 means unlimited.
	TypeBits
	TypeDate
	// TypeTime, TypeTimeTZ, TypeTimestamp and TypeTimestampTZ keep Scale digits of a second.
	TypeTime
	TypeTimeTZ
	TypeTimestamp
	TypeTimestampTZ
	TypeInterval
	TypeYear
	TypeJSON
	TypeXML
	TypeUUID
	// TypeEnum and TypeSet have Labels.
	TypeEnum
	TypeSet
	TypeLtree
	TypeTsvector
	TypePoint
	TypeGeometry
	TypeGeography
	TypeVector
	TypeHalfVector
	TypeSparseVector
	// TypeMap maps text to text that may be null.
	TypeMap
	// TypeArray has Elem.
	TypeArray
)

// A Type is a column's type.
type Type struct {
	Kind      TypeKind
	Length    int      // declared bits or characters, 0 when none
	Precision int      // digits of TypeDecimal
	Scale     int      // digits after the point of TypeDecimal; digits of a second
	Labels    []string // of TypeEnum and TypeSet, in declaration order
	Elem      *Type    // of TypeArray
	// Unmapped marks a type that the wire contract has no mapping for: the value is
	// the text that the server prints, and unknown.types decides what becomes of it.
	Unmapped bool
	// Name is the type as the server writes it, such as "numeric(10,2)".
	Name string
}

// Equal reports whether two types say the same.
func (t *Type) Equal(o *Type) bool {
	if t.Kind != o.Kind || t.Length != o.Length || t.Precision != o.Precision || t.Scale != o.Scale ||
		t.Unmapped != o.Unmapped || t.Name != o.Name || !slices.Equal(t.Labels, o.Labels) || (t.Elem == nil) != (o.Elem == nil) {
		return false
	}
	return t.Elem == nil || t.Elem.Equal(o.Elem)
}

// An Origin describes the source block: what a reader says about where a change
// comes from, beside the fields that all readers share.
type Origin struct {
	// Connector is the name that consumers know the reader by, such as "postgresql".
	Connector string
	// Database is the name of the database, or "".
	Database string
	// Fields are the block's own fields, after the shared ones, in order.
	Fields []OriginField
}

// An OriginField is one field of the source block. The values of the fields whose
// From is FromEvent stand in [Event.Origin], in order.
type OriginField struct {
	Name     string
	Type     TypeKind // TypeString, TypeInt32 or TypeInt64
	Optional bool
	From     OriginFrom
}

// An OriginFrom says where a field's value is found.
type OriginFrom uint8

const (
	// FromEvent: the next value of Event.Origin.
	FromEvent OriginFrom = iota
	// FromSchema and FromTable: the parts of the table's name.
	FromSchema
	FromTable
)
