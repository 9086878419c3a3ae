package schema

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// JSON is the type as Avro schema text: members, their order and their escapes are
// those of Confluent's converter.
func (t *Type) JSON() string {
	r := renderer{defined: make(map[string]bool)}
	r.typ(t, "")
	return string(r.b)
}

// A renderer remembers which records it has defined: the second use is a reference.
type renderer struct {
	b       []byte
	defined map[string]bool
}

func (r *renderer) str(s string) { r.b = append(r.b, s...) }

// union writes a field's type, with its null branch if it is optional. The branch
// that the default belongs to comes first.
func (r *renderer) union(t *Type, namespace string) {
	switch {
	case !t.Optional:
		r.typ(t, namespace)
	case t.Default == nil:
		r.str(`["null",`)
		r.typ(t, namespace)
		r.str(`]`)
	default:
		r.str(`[`)
		r.typ(t, namespace)
		r.str(`,"null"]`)
	}
}

var avroNames = [...]string{
	Int8: "int", Int16: "int", Int32: "int", Int64: "long", Float32: "float", Float64: "double",
	Boolean: "boolean", String: "string", Bytes: "bytes", Array: "array", Map: "map", Struct: "record",
}

func (r *renderer) typ(t *Type, namespace string) {
	if t.Kind == Struct && r.defined[t.Name] {
		ns, name := splitName(t.Name)
		if ns != namespace {
			name = t.Name
		}
		r.string(name)
		return
	}
	if t.bare() {
		r.string(avroNames[t.Kind])
		return
	}
	r.str(`{"type":`)
	r.string(avroNames[t.Kind])
	switch t.Kind {
	case Struct:
		r.record(t, namespace)
	case Array:
		r.str(`,"items":`)
		r.union(t.Items, namespace)
	case Map:
		r.str(`,"values":`)
		r.union(t.Items, namespace)
	}
	r.attributes(t)
	r.str(`}`)
}

func (r *renderer) record(t *Type, namespace string) {
	r.defined[t.Name] = true
	ns, name := splitName(t.Name)
	r.str(`,"name":`)
	r.string(name)
	if ns != namespace {
		r.str(`,"namespace":`)
		r.string(ns)
	}
	r.str(`,"fields":[`)
	for i, f := range t.Fields {
		if i > 0 {
			r.str(`,`)
		}
		r.str(`{"name":`)
		r.string(f.Name)
		r.str(`,"type":`)
		r.union(f.Type, ns)
		switch {
		case f.Default != nil:
			r.str(`,"default":`)
			r.literal(f.Type)
		case f.Optional:
			r.str(`,"default":null`)
		}
		r.str(`}`)
	}
	r.str(`]`)
}

// attributes writes what stands after the type proper. The order is fixed.
func (r *renderer) attributes(t *Type) {
	if t.decimal() {
		r.str(`,"scale":` + strconv.Itoa(t.Scale) + `,"precision":` + strconv.Itoa(t.Precision))
	}
	if t.Doc != "" {
		r.str(`,"connect.doc":`)
		r.string(t.Doc)
	}
	if t.Version != 0 {
		r.str(`,"connect.version":` + strconv.Itoa(t.Version))
	}
	if len(t.Params) > 0 {
		for i, p := range t.Params {
			r.str([]string{`,"connect.parameters":{`, `,`}[min(i, 1)])
			r.string(p.Key)
			r.str(`:`)
			r.string(p.Value)
		}
		r.str(`}`)
	}
	if t.Default != nil {
		r.str(`,"connect.default":`)
		r.literal(t)
	}
	if t.Name != "" && !t.Unnamed {
		r.str(`,"connect.name":`)
		r.string(t.Name)
	}
	switch t.Kind {
	case Int8:
		r.str(`,"connect.type":"int8"`)
	case Int16:
		r.str(`,"connect.type":"int16"`)
	}
	if t.Logical != "" {
		r.str(`,"logicalType":`)
		r.string(t.Logical)
	}
}

// literal writes the default. Bytes are text whose characters U+0000 to U+00FF are
// the bytes.
func (r *renderer) literal(t *Type) {
	v := t.Default
	switch t.Kind {
	case Boolean:
		r.b = strconv.AppendBool(r.b, must(t.Bool(v)))
	case Float32, Float64:
		r.b = appendJavaFloat(r.b, must(t.Float(v)), floatBits(t.Kind))
	case String:
		r.string(string(must(t.AppendText(nil, v))))
	case Bytes:
		var s strings.Builder
		for _, c := range must(t.AppendBytes(nil, v)) {
			s.WriteRune(rune(c))
		}
		r.string(s.String())
	default:
		r.b = strconv.AppendInt(r.b, must(t.Integer(v)), 10)
	}
}

// string writes a JSON string: only what must be escaped is.
func (r *renderer) string(s string) {
	const digits = "0123456789ABCDEF"
	r.b = append(r.b, '"')
	for _, c := range s {
		switch c {
		case '"', '\\':
			r.b = append(r.b, '\\', byte(c))
		case '\b':
			r.str(`\b`)
		case '\t':
			r.str(`\t`)
		case '\n':
			r.str(`\n`)
		case '\f':
			r.str(`\f`)
		case '\r':
			r.str(`\r`)
		default:
			if c < 0x20 {
				r.str(`\u00`)
				r.b = append(r.b, digits[c>>4], digits[c&15])
				continue
			}
			r.b = utf8.AppendRune(r.b, c)
		}
	}
	r.b = append(r.b, '"')
}

// bare reports whether the type is written as its name alone.
func (t *Type) bare() bool {
	switch t.Kind {
	case Int8, Int16, Array, Map, Struct:
		return false
	}
	return t.Name == "" && t.Doc == "" && t.Version == 0 && len(t.Params) == 0 && t.Default == nil && t.Logical == ""
}

// decimal reports whether the type is Connect's decimal.
func (t *Type) decimal() bool { return t.Form == FormDecimal || t.Form == FormUintDecimal }

// splitName splits a full name at its last dot.
func splitName(full string) (namespace, name string) {
	i := strings.LastIndexByte(full, '.')
	if i < 0 {
		return "", full
	}
	return full[:i], full[i+1:]
}
