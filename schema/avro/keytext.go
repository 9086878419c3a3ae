package avro

import (
	"encoding/base64"
	"strconv"
	"strings"
	"time"

	"github.com/headwaterdb/headwater/capture"
	"github.com/headwaterdb/headwater/schema"
)

// appendKeyText appends a key as Connect's simple header converter prints a struct:
// {"id":1004}. A value that cannot be printed is null.
func appendKeyText(b []byte, key []column, row, fallback capture.Row) []byte {
	b = append(b, '{')
	for i := range key {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendQuoted(b, key[i].name)
		b = append(b, ':')
		b = appendText(b, key[i].typ, keyValue(&key[i], row, fallback))
	}
	return append(b, '}')
}

// appendText appends a value as Connect prints it inside a struct.
func appendText(b []byte, t *schema.Type, v *capture.Value) []byte {
	if v.Kind() <= capture.Unchanged {
		return append(b, "null"...)
	}
	at := len(b)
	b, err := appendValueText(b, t, v)
	if err != nil {
		return append(b[:at], "null"...)
	}
	return b
}

func appendValueText(b []byte, t *schema.Type, v *capture.Value) ([]byte, error) {
	switch t.Form {
	case schema.FormDecimal:
		return schema.AppendDecimalText(b, v.Bytes(), t.Scale)
	case schema.FormUintDecimal:
		return strconv.AppendUint(b, v.Uint(), 10), nil
	case schema.FormVarDecimal:
		digits, scale, err := schema.AppendVariable(nil, v.Bytes())
		b = strconv.AppendInt(append(b, `{"scale":`...), int64(scale), 10)
		b = appendBase64(append(b, `,"value":`...), digits)
		return append(b, '}'), err
	case schema.FormPoint:
		p, err := schema.Point(v)
		if p.WKB == nil {
			p.WKB = schema.AppendPointWKB(nil, p.X, p.Y)
		}
		b = schema.AppendFloatText(append(b, `{"x":`...), p.X, schema.Float64)
		b = schema.AppendFloatText(append(b, `,"y":`...), p.Y, schema.Float64)
		b = appendBase64(append(b, `,"wkb":`...), p.WKB)
		return appendSRIDText(b, p.SRID, p.HasSRID), err
	case schema.FormGeometry:
		srid, hasSRID := v.SRID()
		b = appendBase64(append(b, `{"wkb":`...), v.Bytes())
		return appendSRIDText(b, srid, hasSRID), nil
	case schema.FormArray:
		for i := range v.Elems() {
			b = appendText(append(b, "[,"[min(i, 1)]), t.Items, &v.Elems()[i])
		}
		if len(v.Elems()) == 0 {
			b = append(b, '[')
		}
		return append(b, ']'), nil
	}
	switch t.Kind {
	case schema.Boolean:
		p, err := t.Bool(v)
		return strconv.AppendBool(b, p), err
	case schema.Float32, schema.Float64:
		f, err := t.Float(v)
		return schema.AppendFloatText(b, f, t.Kind), err
	case schema.String:
		s, err := t.AppendText(nil, v)
		return appendQuoted(b, string(s)), err
	case schema.Bytes:
		s, err := t.AppendBytes(nil, v)
		return appendBase64(b, s), err
	case schema.Map, schema.Struct:
		return append(b, "null"...), nil // neither can be a key
	}
	i, err := t.Integer(v)
	switch t.Logical {
	case "date":
		if strings.HasPrefix(t.Name, "org.apache.kafka.") {
			return appendJavaDate(b, i*24*3600*1000), err
		}
	case "time-millis", "timestamp-millis":
		if strings.HasPrefix(t.Name, "org.apache.kafka.") {
			return appendJavaDate(b, i), err
		}
	}
	return strconv.AppendInt(b, i, 10), err
}

func appendSRIDText(b []byte, srid uint32, ok bool) []byte {
	b = append(b, `,"srid":`...)
	if !ok {
		return append(b, "null}"...)
	}
	return append(strconv.AppendInt(b, int64(int32(srid)), 10), '}')
}

func appendBase64(b, data []byte) []byte {
	b = base64.StdEncoding.AppendEncode(append(b, '"'), data)
	return append(b, '"')
}

// appendQuoted escapes as Connect does: the backslash and the double quote.
func appendQuoted(b []byte, s string) []byte {
	b = append(b, '"')
	for i := range len(s) {
		if s[i] == '"' || s[i] == '\\' {
			b = append(b, '\\')
		}
		b = append(b, s[i])
	}
	return append(b, '"')
}

// appendJavaDate appends one of Connect's own dates, times and timestamps, which it
// tells apart by their value.
func appendJavaDate(b []byte, ms int64) []byte {
	const day = 24 * 3600 * 1000
	layout := "2006-01-02T15:04:05.000Z"
	switch {
	case ms < day:
		layout = "15:04:05.000Z"
	case ms%day == 0:
		layout = "2006-01-02"
	}
	return time.UnixMilli(ms).UTC().AppendFormat(b, layout)
}
