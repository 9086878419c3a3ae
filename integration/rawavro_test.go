package integration

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// rawType is an Avro schema without logical types and attributes: what decides about
// bytes and nothing else. It shares no code with the encoder that it checks, nor with
// the library that the other tests read with.
type rawType struct {
	kind   string // primitive name, "record", "array", "map" or "union"
	fields []rawField
	items  *rawType   // of array and map
	union  []*rawType // branches
}

type rawField struct {
	name string
	typ  *rawType
}

// rawRecord is a decoded record: its fields in order, each with the bytes it had.
type rawRecord []rawValue

type rawValue struct {
	name  string
	value any
	bytes string
}

// get returns the named field's value, nil when there is none.
func (r rawRecord) get(name string) any {
	if i := slices.IndexFunc(r, func(v rawValue) bool { return v.name == name }); i >= 0 {
		return r[i].value
	}
	return nil
}

// parseRaw reads the text of a schema.
func parseRaw(text string) (*rawType, error) {
	var node any
	if err := json.Unmarshal([]byte(text), &node); err != nil {
		return nil, err
	}
	return compileRaw(node, "", map[string]*rawType{})
}

func compileRaw(node any, namespace string, named map[string]*rawType) (*rawType, error) {
	switch n := node.(type) {
	case string:
		switch n {
		case "null", "boolean", "int", "long", "float", "double", "string", "bytes":
			return &rawType{kind: n}, nil
		}
		if !strings.Contains(n, ".") {
			n = namespace + "." + n
		}
		if t := named[n]; t != nil {
			return t, nil
		}
		return nil, fmt.Errorf("type %q is not defined", n)
	case []any:
		t := &rawType{kind: "union"}
		for _, b := range n {
			branch, err := compileRaw(b, namespace, named)
			if err != nil {
				return nil, err
			}
			t.union = append(t.union, branch)
		}
		return t, nil
	case map[string]any:
		kind, ok := n["type"].(string)
		if !ok {
			return compileRaw(n["type"], namespace, named)
		}
		switch kind {
		case "record":
			return compileRecord(n, namespace, named)
		case "array", "map":
			items, err := compileRaw(n[map[string]string{"array": "items", "map": "values"}[kind]], namespace, named)
			return &rawType{kind: kind, items: items}, err
		}
		return compileRaw(kind, namespace, named)
	}
	return nil, fmt.Errorf("%v is no schema", node)
}

func compileRecord(n map[string]any, namespace string, named map[string]*rawType) (*rawType, error) {
	name, _ := n["name"].(string)
	if ns, ok := n["namespace"].(string); ok {
		namespace = ns
	}
	t := &rawType{kind: "record"}
	if named[namespace+"."+name] != nil {
		return nil, fmt.Errorf("record %s.%s is defined twice", namespace, name)
	}
	named[namespace+"."+name] = t
	fields, _ := n["fields"].([]any)
	for _, f := range fields {
		f, _ := f.(map[string]any)
		typ, err := compileRaw(f["type"], namespace, named)
		if err != nil {
			return nil, fmt.Errorf("field %v of %s: %w", f["name"], name, err)
		}
		name, _ := f["name"].(string)
		t.fields = append(t.fields, rawField{name, typ})
	}
	return t, nil
}

var errShort = errors.New("the datum ends too early")

// decodeRaw reads a whole datum into the golden form: integers as json.Number, floats as
// float64, NaN, infinities and bytes as text, records as rawRecord.
func decodeRaw(t *rawType, b []byte) (any, error) {
	v, rest, err := t.decode(b)
	if err == nil && len(rest) > 0 {
		err = fmt.Errorf("%d bytes behind the datum", len(rest))
	}
	return v, err
}

func (t *rawType) decode(b []byte) (v any, rest []byte, err error) {
	switch t.kind {
	case "null":
		return nil, b, nil
	case "boolean":
		if len(b) == 0 || b[0] > 1 {
			return nil, b, errShort
		}
		return b[0] == 1, b[1:], nil
	case "int", "long":
		i, rest, err := rawLong(b)
		if t.kind == "int" && int64(int32(i)) != i {
			return nil, b, fmt.Errorf("%d is no int", i)
		}
		return json.Number(strconv.FormatInt(i, 10)), rest, err
	case "float":
		if len(b) < 4 {
			return nil, b, errShort
		}
		return rawFloat(float64(math.Float32frombits(binary.LittleEndian.Uint32(b)))), b[4:], nil
	case "double":
		if len(b) < 8 {
			return nil, b, errShort
		}
		return rawFloat(math.Float64frombits(binary.LittleEndian.Uint64(b))), b[8:], nil
	case "bytes", "string":
		n, rest, err := rawLong(b)
		if err != nil || n < 0 || n > int64(len(rest)) {
			return nil, b, errors.Join(errShort, err)
		}
		if t.kind == "bytes" {
			return fmt.Sprintf("0x%x", rest[:n]), rest[n:], nil
		}
		return string(rest[:n]), rest[n:], nil
	case "union":
		i, rest, err := rawLong(b)
		if err != nil || i < 0 || i >= int64(len(t.union)) {
			return nil, b, fmt.Errorf("no branch %d in a union of %d", i, len(t.union))
		}
		return t.union[i].decode(rest)
	case "record":
		r := rawRecord{}
		for _, f := range t.fields {
			v, rest, err := f.typ.decode(b)
			if err != nil {
				return nil, b, fmt.Errorf("%s: %w", f.name, err)
			}
			r = append(r, rawValue{f.name, v, string(b[:len(b)-len(rest)])})
			b = rest
		}
		return r, b, nil
	}
	return t.decodeBlocks(b)
}

// decodeBlocks reads an array, or a map in the order in which it was written.
func (t *rawType) decodeBlocks(b []byte) (any, []byte, error) {
	list, pairs := []any{}, rawRecord{}
	for {
		n, rest, err := rawLong(b)
		if err != nil {
			return nil, b, err
		}
		b = rest
		if n == 0 && t.kind == "map" {
			return pairs, b, nil
		} else if n == 0 {
			return list, b, nil
		}
		if n < 0 { // a block that also says how many bytes it has
			n = -n
			if _, b, err = rawLong(b); err != nil {
				return nil, b, err
			}
		}
		for range n {
			var key any
			if t.kind == "map" {
				if key, b, err = (&rawType{kind: "string"}).decode(b); err != nil {
					return nil, b, err
				}
			}
			v, rest, err := t.items.decode(b)
			if err != nil {
				return nil, b, err
			}
			if t.kind == "map" {
				pairs = append(pairs, rawValue{key.(string), v, string(b[:len(b)-len(rest)])})
			}
			list, b = append(list, v), rest
		}
	}
}

func rawLong(b []byte) (int64, []byte, error) {
	v, n := binary.Varint(b)
	if n <= 0 {
		return 0, b, errShort
	}
	return v, b[n:], nil
}

func rawFloat(f float64) any {
	switch {
	case math.IsNaN(f):
		return "NaN"
	case math.IsInf(f, 1):
		return "Infinity"
	case math.IsInf(f, -1):
		return "-Infinity"
	}
	return f
}

func TestRawAvro_ReadsWhatTheSpecificationShows(t *testing.T) {
	for _, c := range []struct {
		schema, datum, want string
	}{
		// The examples of the Avro 1.12 specification, section Binary Encoding.
		{`{"type":"record","name":"test","fields":[{"name":"a","type":"long"},{"name":"b","type":"string"}]}`, "\x36\x06foo", `{"a":27,"b":"foo"}`},
		{`{"type":"array","items":"long"}`, "\x04\x06\x36\x00", `[3,27]`},
		{`{"type":"array","items":"long"}`, "\x03\x04\x06\x36\x00", `[3,27]`},
		{`["null","string"]`, "\x02\x02a", `"a"`},
		{`["null","string"]`, "\x00", `null`},
		{`{"type":"bytes","logicalType":"decimal","precision":4,"scale":2}`, "\x04\x01\xff", `"0x01ff"`},
		{`["double","null"]`, "\x00\x00\x00\x00\x00\x00\x00\x00\x80", `-0.0`},
		{`"float"`, "\x00\x00\xc0\x7f", `"NaN"`},
		{`{"type":"map","values":"int"}`, "\x02\x02k\x01\x00", `{"k":-1}`},
		{
			`{"type":"record","name":"Out","namespace":"n","fields":[{"name":"a","type":["null",{"type":"record","name":"In","fields":[{"name":"x","type":"boolean"}]}]},{"name":"b","type":"In"}]}`,
			"\x02\x01\x00", `{"a":{"x":true},"b":{"x":false}}`,
		},
	} {
		typ, err := parseRaw(c.schema)
		if err != nil {
			t.Errorf("%s: %v", c.schema, err)
			continue
		}
		v, err := decodeRaw(typ, []byte(c.datum))
		if got := goldenText(v); err != nil || got != c.want {
			t.Errorf("%s: got %s, want %s (%v)", c.schema, got, c.want, err)
		}
		if _, err := decodeRaw(typ, append([]byte(c.datum), 0)); err == nil {
			t.Errorf("%s: a byte too many is not seen", c.schema)
		}
		if _, err := decodeRaw(typ, []byte(c.datum[:len(c.datum)-1])); err == nil {
			t.Errorf("%s: a missing byte is not seen", c.schema)
		}
	}
}
