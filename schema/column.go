package schema

import (
	"strconv"
	"strings"

	"github.com/headwaterdb/headwater/capture"
)

// Semantic types: what Connect calls the schema's name.
const (
	nameDecimal = "org.apache.kafka.connect.data.Decimal"

	nameDate           = "io.debezium.time.Date"
	nameTime           = "io.debezium.time.Time"
	nameMicroTime      = "io.debezium.time.MicroTime"
	nameNanoTime       = "io.debezium.time.NanoTime"
	nameTimestamp      = "io.debezium.time.Timestamp"
	nameMicroTimestamp = "io.debezium.time.MicroTimestamp"
	nameNanoTimestamp  = "io.debezium.time.NanoTimestamp"
	nameJSON           = "io.debezium.data.Json"
	nameUUID           = "io.debezium.data.Uuid"
	nameEnum           = "io.debezium.data.Enum"
)

// logicalTypes are Avro's names for what avro.logical.types=annotate annotates.
var logicalTypes = map[string]string{
	nameDate: "date", nameTime: "time-millis", nameMicroTime: "time-micros",
	nameTimestamp: "timestamp-millis", nameMicroTimestamp: "timestamp-micros", nameNanoTimestamp: "timestamp-nanos",
	nameUUID: "uuid",
}

// unboundedBits is the length parameter of a bit string without one.
const unboundedBits = 1<<31 - 1

// columnType returns the record type of a column type that is mapped.
func (b *Builder) columnType(c *capture.Type) *Type {
	t := b.baseType(c)
	t.noInfinity = b.format.TemporalInfinity != "sentinel"
	t.Zero = zeroFill(t)
	if b.format.LogicalTypes == modeAnnotate && t.Logical == "" {
		t.Logical = logicalTypes[t.Name]
	}
	return t
}

func (b *Builder) baseType(c *capture.Type) *Type {
	switch c.Kind {
	case capture.TypeBool:
		return &Type{Kind: Boolean, Form: FormBool}
	case capture.TypeInt8, capture.TypeInt16:
		// Debezium 3.6 has no 8-bit integers.
		return &Type{Kind: Int16, Form: FormInt}
	case capture.TypeInt32:
		return &Type{Kind: Int32, Form: FormInt}
	case capture.TypeInt64:
		return &Type{Kind: Int64, Form: FormInt}
	case capture.TypeUint64:
		if b.format.UnsignedBigint == modePrecise {
			return decimalType(FormUintDecimal, 20, 0)
		}
		return &Type{Kind: Int64, Form: FormUint}
	case capture.TypeFloat32:
		return &Type{Kind: Float32, Form: FormFloat}
	case capture.TypeFloat64:
		return &Type{Kind: Float64, Form: FormFloat}
	case capture.TypeDecimal, capture.TypeVarDecimal, capture.TypeMoney:
		return b.numericType(c)
	case capture.TypeBytes:
		return b.binaryType()
	case capture.TypeBits:
		return bitsType(c.Length)
	case capture.TypeDate, capture.TypeTime, capture.TypeTimestamp:
		return b.temporalType(c)
	case capture.TypeTimeTZ:
		return semantic(String, FormZonedTime, "io.debezium.time.ZonedTime")
	case capture.TypeTimestampTZ:
		t := semantic(String, FormZonedTimestamp, "io.debezium.time.ZonedTimestamp")
		t.Digits = c.Scale
		return t
	case capture.TypeInterval:
		if b.format.Intervals == modeString {
			return semantic(String, FormInterval, "io.debezium.time.Interval")
		}
		return semantic(Int64, FormDuration, "io.debezium.time.MicroDuration")
	case capture.TypeYear:
		return semantic(Int32, FormInt, "io.debezium.time.Year")
	case capture.TypeJSON:
		return semantic(String, FormString, nameJSON)
	case capture.TypeXML:
		return semantic(String, FormString, "io.debezium.data.Xml")
	case capture.TypeUUID:
		return semantic(String, FormString, nameUUID)
	case capture.TypeEnum:
		return b.labelsType(nameEnum, c.Labels)
	case capture.TypeSet:
		return b.labelsType("io.debezium.data.EnumSet", c.Labels)
	case capture.TypeLtree:
		return semantic(String, FormString, "io.debezium.data.Ltree")
	case capture.TypeTsvector:
		return semantic(String, FormString, "io.debezium.data.Tsvector")
	case capture.TypePoint:
		return pointType()
	case capture.TypeGeometry:
		return geometryType("io.debezium.data.geometry.Geometry", "Geometry")
	case capture.TypeGeography:
		return geometryType("io.debezium.data.geometry.Geography", "Geography")
	case capture.TypeVector:
		t := semantic(Array, FormArray, "io.debezium.data.DoubleVector")
		t.Items = &Type{Kind: Float64, Form: FormFloat}
		return t
	case capture.TypeHalfVector:
		t := semantic(Array, FormArray, "io.debezium.data.FloatVector")
		t.Items = &Type{Kind: Float32, Form: FormFloat}
		return t
	case capture.TypeSparseVector:
		return sparseVectorType()
	case capture.TypeMap:
		if b.format.HStore == modeMap {
			return &Type{Kind: Map, Form: FormMap, Items: &Type{Kind: String, Form: FormString, Optional: true}}
		}
		return semantic(String, FormMapJSON, nameJSON)
	case capture.TypeArray:
		// Items may be null whatever the element type says: arrays have no NOT NULL.
		return &Type{Kind: Array, Form: FormArray, Items: optional(b.columnType(c.Elem))}
	}
	return &Type{Kind: String, Form: FormString}
}

// unmappedType is the type of a column without a mapping of its own: the server's text.
func (b *Builder) unmappedType() *Type {
	t := &Type{Kind: String, Form: FormString}
	if b.format.UnknownTypes == modeBytes {
		t = b.binaryType()
	}
	t.Zero = capture.TextValue("")
	return t
}

func (b *Builder) numericType(c *capture.Type) *Type {
	switch b.format.Decimals {
	case modeDouble:
		return &Type{Kind: Float64, Form: FormDecimalFloat}
	case modeString:
		return &Type{Kind: String, Form: FormDecimalText}
	}
	switch {
	case c.Kind == capture.TypeVarDecimal:
		return &Type{
			Kind: Struct, Form: FormVarDecimal, Name: "io.debezium.data.VariableScaleDecimal", Version: 1, Doc: "Variable scaled decimal",
			Fields: []Field{plain("scale", &Type{Kind: Int32}), plain("value", &Type{Kind: Bytes})},
		}
	case c.Kind == capture.TypeMoney:
		return decimalType(FormDecimal, 0, *b.format.MoneyDigits)
	case c.Scale < 0: // digits before the point that are always zero
		return decimalType(FormDecimal, c.Precision-c.Scale, 0)
	}
	return decimalType(FormDecimal, c.Precision, c.Scale)
}

// decimalType returns Connect's decimal. Precision 0 is an unknown one.
func decimalType(f Form, precision, scale int) *Type {
	t := semantic(Bytes, f, nameDecimal)
	t.Logical, t.Scale, t.Precision = "decimal", scale, precision
	t.Params = []Param{{"scale", strconv.Itoa(scale)}}
	if precision == 0 {
		t.Precision = 64
	} else {
		t.Params = append(t.Params, Param{"connect.decimal.precision", strconv.Itoa(precision)})
	}
	return t
}

func (b *Builder) binaryType() *Type {
	switch b.format.Binary {
	case "base64":
		return &Type{Kind: String, Form: FormBase64}
	case "base64-url-safe":
		return &Type{Kind: String, Form: FormBase64URL}
	case "hex":
		return &Type{Kind: String, Form: FormHex}
	}
	return &Type{Kind: Bytes, Form: FormBytes}
}

func bitsType(length int) *Type {
	if length == 1 {
		return &Type{Kind: Boolean, Form: FormBit}
	}
	if length == 0 {
		length = unboundedBits
	}
	t := semantic(Bytes, FormBytes, "io.debezium.data.Bits")
	t.Params = []Param{{"length", strconv.Itoa(length)}}
	return t
}

// labelsType is a text that is one, or several, of a list of labels.
func (b *Builder) labelsType(name string, labels []string) *Type {
	if b.format.EscapeLabels {
		escaped := make([]string, len(labels))
		for i, l := range labels {
			escaped[i] = strings.ReplaceAll(l, ",", `\,`)
		}
		labels = escaped
	}
	t := semantic(String, FormString, name)
	t.Params = []Param{{"allowed", strings.Join(labels, ",")}}
	return t
}

// temporalType returns the type of a date, time or timestamp without zone.
func (b *Builder) temporalType(c *capture.Type) *Type {
	mode := b.format.TimePrecision
	if c.Kind == capture.TypeDate {
		switch mode {
		case timeConnect:
			return connectType(Int32, FormDays, "Date", "date")
		case timeISO:
			return semantic(String, FormISODate, "io.debezium.time.IsoDate")
		}
		return semantic(Int32, FormDays, nameDate)
	}
	digits := c.Scale
	switch {
	case mode == timeMicros || mode == timeAdaptiveMicros && c.Kind == capture.TypeTime:
		digits = 6
	case mode == timeNanos:
		digits = 9
	}
	if c.Kind == capture.TypeTime {
		switch {
		case mode == timeConnect:
			return connectType(Int32, FormDayMillis, "Time", "time-millis")
		case mode == timeISO:
			return semantic(String, FormISOTime, "io.debezium.time.IsoTime")
		case digits <= 3:
			return semantic(Int32, FormMillis, nameTime)
		case digits <= 6:
			return semantic(Int64, FormMicros, nameMicroTime)
		}
		return semantic(Int64, FormNanos, nameNanoTime)
	}
	switch {
	case mode == timeConnect:
		return connectType(Int64, FormMillis, "Timestamp", "timestamp-millis")
	case mode == timeISO:
		return semantic(String, FormISOTimestamp, "io.debezium.time.IsoTimestamp")
	case digits <= 3:
		return semantic(Int64, FormMillis, nameTimestamp)
	case digits <= 6:
		return semantic(Int64, FormMicros, nameMicroTimestamp)
	}
	return semantic(Int64, FormNanos, nameNanoTimestamp)
}

// connectType is one of Connect's own temporal types.
func connectType(k Kind, f Form, name, logical string) *Type {
	t := semantic(k, f, "org.apache.kafka.connect.data."+name)
	t.Logical = logical
	return t
}

func pointType() *Type {
	return &Type{
		Kind: Struct, Form: FormPoint, Name: "io.debezium.data.geometry.Point", Version: 1, Doc: "Geometry (POINT)",
		Fields: []Field{
			plain("x", &Type{Kind: Float64}), plain("y", &Type{Kind: Float64}),
			plain("wkb", &Type{Kind: Bytes, Optional: true}), plain("srid", &Type{Kind: Int32, Optional: true}),
		},
	}
}

func geometryType(name, doc string) *Type {
	return &Type{
		Kind: Struct, Form: FormGeometry, Name: name, Version: 1, Doc: doc,
		Fields: []Field{plain("wkb", &Type{Kind: Bytes}), plain("srid", &Type{Kind: Int32, Optional: true})},
	}
}

// sparseVectorType has a map with integer keys, which Avro can only write as an array
// of entries.
func sparseVectorType() *Type {
	entry := &Type{
		Kind: Struct, Name: "io.confluent.connect.avro.MapEntry", Unnamed: true,
		Fields: []Field{plain("key", &Type{Kind: Int16}), plain("value", &Type{Kind: Float64})},
	}
	return &Type{
		Kind: Struct, Form: FormSparseVector, Name: "io.debezium.data.SparseDoubleVector", Version: 1, Doc: "Sparse double vector",
		Fields: []Field{plain("dimensions", &Type{Kind: Int16}), plain("vector", &Type{Kind: Array, Items: entry})},
	}
}
