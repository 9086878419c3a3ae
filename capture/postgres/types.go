package postgres

import (
	"strconv"
	"strings"

	"github.com/headwaterdb/headwater/capture"
)

// OIDs of the types that have a mapping of their own and come with every server.
// https://www.postgresql.org/docs/current/catalog-pg-type.html
const (
	oidBool        = 16
	oidBytea       = 17
	oidChar        = 18 // "char", one byte
	oidName        = 19
	oidInt8        = 20
	oidInt2        = 21
	oidInt4        = 23
	oidText        = 25
	oidOID         = 26
	oidJSON        = 114
	oidXML         = 142
	oidPoint       = 600
	oidCIDR        = 650
	oidFloat4      = 700
	oidFloat8      = 701
	oidMacaddr8    = 774
	oidMoney       = 790
	oidMacaddr     = 829
	oidInet        = 869
	oidBPChar      = 1042 // char(n)
	oidVarchar     = 1043
	oidDate        = 1082
	oidTime        = 1083
	oidTimestamp   = 1114
	oidTimestampTZ = 1184
	oidInterval    = 1186
	oidTimeTZ      = 1266
	oidBit         = 1560
	oidVarbit      = 1562
	oidNumeric     = 1700
	oidUUID        = 2950
	oidTsvector    = 3614
	oidJSONB       = 3802
	oidInt4Range   = 3904
	oidNumRange    = 3906
	oidTsRange     = 3908
	oidTstzRange   = 3910
	oidDateRange   = 3912
	oidInt8Range   = 3926
)

// builtin are the mapped types whose OID is the same on every server.
var builtin = map[uint32]capture.TypeKind{
	oidBool: capture.TypeBool, oidBytea: capture.TypeBytes,
	oidInt2: capture.TypeInt16, oidInt4: capture.TypeInt32, oidInt8: capture.TypeInt64, oidOID: capture.TypeInt64,
	oidFloat4: capture.TypeFloat32, oidFloat8: capture.TypeFloat64, oidMoney: capture.TypeMoney,
	oidText: capture.TypeString, oidVarchar: capture.TypeString, oidBPChar: capture.TypeString, oidChar: capture.TypeString, oidName: capture.TypeString,
	oidJSON: capture.TypeJSON, oidJSONB: capture.TypeJSON, oidXML: capture.TypeXML, oidUUID: capture.TypeUUID,
	oidInet: capture.TypeString, oidCIDR: capture.TypeString, oidMacaddr: capture.TypeString, oidMacaddr8: capture.TypeString,
	oidInt4Range: capture.TypeString, oidInt8Range: capture.TypeString, oidNumRange: capture.TypeString,
	oidTsRange: capture.TypeString, oidTstzRange: capture.TypeString, oidDateRange: capture.TypeString,
	oidDate: capture.TypeDate, oidTime: capture.TypeTime, oidTimeTZ: capture.TypeTimeTZ,
	oidTimestamp: capture.TypeTimestamp, oidTimestampTZ: capture.TypeTimestampTZ, oidInterval: capture.TypeInterval,
	oidTsvector: capture.TypeTsvector, oidPoint: capture.TypePoint,
	// These depend on the type modifier.
	oidNumeric: capture.TypeDecimal, oidBit: capture.TypeBits, oidVarbit: capture.TypeBits,
}

// extensions are the mapped base types that extensions bring, by name: their OIDs
// differ from database to database.
var extensions = map[string]capture.TypeKind{
	"citext": capture.TypeString, "isbn": capture.TypeString, "ltree": capture.TypeLtree, "hstore": capture.TypeMap,
	"geometry": capture.TypeGeometry, "geography": capture.TypeGeography,
	"vector": capture.TypeVector, "halfvec": capture.TypeHalfVector, "sparsevec": capture.TypeSparseVector,
}

// A pgType is what pg_type and pg_enum say about a type.
type pgType struct {
	oid       uint32
	name      string // without schema
	format    string // as format_type prints it without a modifier
	typtype   byte   // 'b'ase, 'c'omposite, 'd'omain, 'e'num, 'p'seudo, 'r'ange or 'm'ultirange
	elem      uint32 // of an array, else 0
	base      uint32 // of a domain, else 0
	baseMod   int32  // type modifier that the domain gives its base
	delimiter byte   // between the elements of an array of this type
	labels    []string
}

// A typeMap holds the types that a table uses, with those that they are made of.
type typeMap map[uint32]*pgType

// resolved is what a column's type comes to.
type resolved struct {
	Type capture.Type
	// oid and mod are those of the root base type; domain says that there was a domain
	// above it.
	oid    uint32
	mod    int32
	domain bool
	dec    columnDecoder
}

// resolve maps a type and its modifier. name is how format_type prints them. A type
// that the catalog no longer knows is text.
func (m typeMap) resolve(oid uint32, mod int32, name string) resolved {
	r := resolved{oid: oid, mod: mod}
	t := m[oid]
	// A domain is its base type, under the domain's modifier. The bound is for a
	// catalog that is read while it changes.
	for depth := 0; t != nil && t.typtype == 'd' && depth < 100; depth++ {
		r.domain, r.oid, r.mod = true, t.base, t.baseMod
		t = m[r.oid]
	}
	r.Type, r.dec = m.mapped(t, r.mod)
	r.Type.Name = name
	if name == "" {
		r.Type.Name = "type " + strconv.FormatUint(uint64(oid), 10)
	}
	if e := r.Type.Elem; e != nil && !r.domain {
		e.Name = strings.TrimSuffix(name, "[]")
	}
	return r
}

// mapped maps a type that is no domain.
func (m typeMap) mapped(t *pgType, mod int32) (capture.Type, columnDecoder) {
	if t == nil {
		return unmapped()
	}
	if t.elem == 0 {
		return scalar(t, mod)
	}
	elem := m[t.elem]
	if elem == nil || elem.elem != 0 || !arrayOf(elem) {
		return unmapped()
	}
	et, ed := scalar(elem, mod)
	if et.Unmapped {
		return unmapped()
	}
	et.Name = elem.format
	return capture.Type{Kind: capture.TypeArray, Elem: &et}, columnDecoder{op: opArray, delimiter: elem.delimiter, elem: &ed, enum: ed.enum}
}

// arrayOf reports whether arrays of the mapped type are mapped too: Debezium leaves
// some out, and arrays of vectors would look like arrays of two dimensions.
func arrayOf(elem *pgType) bool {
	switch elem.oid {
	case oidMoney, oidName, oidInterval, oidVarbit, oidXML, oidPoint:
		return false
	}
	switch kindOf(elem) {
	case capture.TypeVector, capture.TypeHalfVector, capture.TypeSparseVector:
		return false
	}
	return elem.typtype != 'd'
}

// kindOf is TypeText for what has no mapping.
func kindOf(t *pgType) capture.TypeKind {
	if k, ok := builtin[t.oid]; ok {
		return k
	}
	switch t.typtype {
	case 'e':
		return capture.TypeEnum
	case 'b':
		if k, ok := extensions[t.name]; ok && t.oid >= firstNormalOID {
			return k
		}
	}
	return capture.TypeText
}

// firstNormalOID is the first OID that the server gives to what users create.
const firstNormalOID = 16384

func unmapped() (capture.Type, columnDecoder) {
	return capture.Type{Kind: capture.TypeText, Unmapped: true}, columnDecoder{op: opText}
}

// scalar maps a type that is neither an array nor a domain.
func scalar(t *pgType, mod int32) (capture.Type, columnDecoder) {
	out := capture.Type{Kind: kindOf(t)}
	dec := columnDecoder{op: operations[out.Kind]}
	switch out.Kind {
	case capture.TypeText:
		return unmapped()
	case capture.TypeInt64:
		if t.oid == oidOID {
			dec.op = opOID
		}
	case capture.TypeString:
		if mod >= 4 && (t.oid == oidVarchar || t.oid == oidBPChar) {
			out.Length = int(mod) - 4
		}
	case capture.TypeBits:
		switch {
		case mod == 1:
			out.Kind, dec.op = capture.TypeBool, opBit
		case mod > 1:
			out.Length = int(mod)
		}
	case capture.TypeDecimal:
		out.Kind, out.Precision, out.Scale = numeric(mod)
	case capture.TypeTime, capture.TypeTimeTZ, capture.TypeTimestamp, capture.TypeTimestampTZ:
		out.Scale = 6
		if mod >= 0 {
			out.Scale = int(mod)
		}
	case capture.TypeEnum:
		out.Labels = t.labels
		dec.enum, dec.labels = t.oid, newLabelSet(t.labels)
	}
	return out, dec
}

// numeric reads the type modifier of numeric: 4 + (precision << 16 | scale), where the
// scale has 11 bits and a sign since PostgreSQL 15 and was 0 to 1000 before. Digits
// before the point that a negative scale rounds off are zeros, and count.
// https://www.postgresql.org/docs/current/datatype-numeric.html#DATATYPE-NUMERIC-DECIMAL
func numeric(mod int32) (kind capture.TypeKind, precision, scale int) {
	if mod < 4 {
		return capture.TypeVarDecimal, 0, 0
	}
	precision, scale = int((mod-4)>>16&0xffff), declaredScale(mod)
	return capture.TypeDecimal, precision - min(scale, 0), max(scale, 0)
}

// declaredScale is the scale in the type modifier of numeric(p,s).
func declaredScale(mod int32) int { return int((mod-4)&0x7ff^0x400) - 0x400 }
