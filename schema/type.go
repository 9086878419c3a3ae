package schema

import "github.com/headwaterdb/headwater/capture"

// A Kind is a type of Kafka Connect, whose converter defines how record schemas look.
type Kind uint8

const (
	Int8 Kind = iota
	Int16
	Int32
	Int64
	Float32
	Float64
	Boolean
	String
	Bytes
	Array  // of Items
	Map    // of String to Items
	Struct // with Fields
)

// A Form says how a [capture.Value] is written as its Kind.
type Form uint8

const (
	FormNone Form = iota
	// Boolean.
	FormBool
	FormBit // a Bits value of one bit
	// Int8 to Int64.
	FormInt
	FormUint // wraps beyond 2^63
	FormDays
	FormMillis
	FormMicros
	FormNanos
	FormDayMillis // milliseconds of a day, nothing beyond it
	FormDuration  // microseconds
	// Float32 and Float64.
	FormFloat
	FormDecimalFloat
	// String.
	FormString
	FormDecimalText
	FormBase64
	FormBase64URL
	FormHex
	FormISODate
	FormISOTime
	FormISOTimestamp
	FormZonedTime
	FormZonedTimestamp // with Digits of a second
	FormInterval
	FormMapJSON
	// Bytes.
	FormBytes // of Bytes and of String values
	FormDecimal
	FormUintDecimal
	// Struct, Array and Map.
	FormVarDecimal
	FormPoint
	FormGeometry
	FormSparseVector
	FormArray
	FormMap
)

// A Type is a node of a record schema.
type Type struct {
	Kind Kind
	// Optional makes it a union with null.
	Optional bool
	// Name is the semantic type, and the full name of a Struct.
	Name string
	// Unnamed leaves Name out of the attributes: the Struct has it in Avro only.
	Unnamed bool
	Version int
	Doc     string
	Params  []Param
	// Scale and Precision are those of FormDecimal.
	Scale, Precision int
	// Logical is Avro's logicalType.
	Logical string
	Items   *Type
	Fields  []Field

	Form   Form
	Digits int
	// Default is shown in the record schema, and stands for a column that the log did
	// not carry. Nil when there is none.
	Default *capture.Value
	// Zero stands for a NOT NULL column that the log did not carry and that has no
	// Default.
	Zero capture.Value

	noInfinity bool
}

// A Param is one of a Type's parameters.
type Param struct{ Key, Value string }

// A Field is a field of a Struct.
type Field struct {
	Name string
	*Type
	// Column is the index of the table's column, -1 where there is none.
	Column int
}

// semantic returns a type of version 1 with a name.
func semantic(k Kind, f Form, name string) *Type {
	return &Type{Kind: k, Form: f, Name: name, Version: 1}
}

// optional returns a copy of t that may be null.
func optional(t *Type) *Type {
	c := *t
	c.Optional = true
	return &c
}

// plain returns a field for a column-less part of a record.
func plain(name string, t *Type) Field { return Field{Name: name, Type: t, Column: -1} }
