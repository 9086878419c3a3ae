package postgres

import (
	"bytes"
	"math/big"
	"slices"
	"strings"

	"github.com/headwaterdb/headwater/capture"
)

// columnDefault is what a record schema says of the column's default: a literal, or
// that the server computes it. It keeps silent about identities, operators, NULL, and
// the types that Debezium shows no default of.
func (a *attribute) columnDefault(r *resolved) capture.Default {
	switch {
	case !showsDefault(r), a.identity:
		return capture.Default{}
	case a.generated:
		return capture.Default{Kind: capture.DefaultZero}
	case a.expression == "":
		return capture.Default{}
	}
	p := expressionParser{rest: a.expression}
	e := p.expression()
	if p.rest != "" {
		return capture.Default{}
	}
	switch e.kind {
	case exprCall:
		return capture.Default{Kind: capture.DefaultZero}
	case exprLiteral:
		if v, ok := literalValue(e.text, r); ok {
			return capture.Default{Kind: capture.DefaultLiteral, Value: v}
		}
	}
	return capture.Default{}
}

// showsDefault says whether defaults of the type are shown at all.
func showsDefault(r *resolved) bool {
	if r.domain {
		return false
	}
	switch r.Type.Kind {
	case capture.TypeInt64:
		return r.oid == oidInt8
	case capture.TypeString:
		return r.oid == oidText || r.oid == oidVarchar || r.oid == oidBPChar
	case capture.TypeBool, capture.TypeInt16, capture.TypeInt32, capture.TypeFloat32, capture.TypeFloat64, capture.TypeDecimal,
		capture.TypeBits, capture.TypeJSON, capture.TypeXML, capture.TypeUUID, capture.TypeEnum,
		capture.TypeDate, capture.TypeTime, capture.TypeTimestamp, capture.TypeTimestampTZ, capture.TypeInterval:
		return true
	}
	return false
}

// literalValue turns a literal into the value that the server would store, in memory of
// its own. It fails for what needs a conversion that only the server can make.
func literalValue(text string, r *resolved) (capture.Value, bool) {
	dec := r.dec
	switch r.Type.Kind {
	case capture.TypeInt16, capture.TypeInt32, capture.TypeInt64:
		text = round(text, 0)
	case capture.TypeDecimal:
		text = round(text, declaredScale(r.mod))
	case capture.TypeBool:
		switch {
		case dec.op == opBit:
			if len(text) != 1 && r.oid == oidBit {
				return capture.Value{}, false
			}
		case text == "true":
			text = "t"
		case text == "false":
			text = "f"
		}
	case capture.TypeBits:
		// The server would pad or cut it, or refuse it.
		if n := r.Type.Length; n > 0 && len(text) != n && (r.oid == oidBit || len(text) > n) {
			return capture.Value{}, false
		}
	}
	b := capture.NewBatch()
	defer b.Release()
	v, err := dec.decode(b, []byte(text))
	if err != nil {
		return capture.Value{}, false
	}
	switch v.Kind() {
	case capture.Interval:
		months, days, micros := v.Interval()
		v = capture.IntervalValue(make([]byte, 8), months, days, micros)
	case capture.Bytes:
		v = capture.BytesValue(slices.Clone(v.Bytes()))
	case capture.Float:
		return v, v.Float()-v.Float() == 0 // neither NaN nor infinite
	case capture.Decimal:
		return v, v.Bytes()[len(v.Bytes())-1] <= '9'
	}
	return v, true
}

// round rounds decimal text to scale digits behind the point, half away from zero as
// numeric does. Text that is no decimal stays as it is.
func round(text string, scale int) string {
	if !isDecimal([]byte(text)) {
		return text
	}
	_, fraction, _ := strings.Cut(text, ".")
	if scale >= 0 && len(fraction) <= scale {
		return text
	}
	r, ok := new(big.Rat).SetString(text)
	if !ok {
		return text // NaN, Infinity
	}
	if scale >= 0 {
		return r.FloatString(scale)
	}
	unit := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(-scale)), nil)
	units := new(big.Rat).Quo(r, new(big.Rat).SetInt(unit)).FloatString(0)
	n, _ := new(big.Int).SetString(units, 10)
	return n.Mul(n, unit).String()
}

// An exprKind says what an expression is.
type exprKind uint8

const (
	exprOther exprKind = iota
	exprNull
	exprLiteral
	exprCall // a function call, or a keyword such as CURRENT_DATE
)

type expression struct {
	kind exprKind
	text string // of exprLiteral, without its quotes
}

// An expressionParser reads what pg_get_expr prints, as far as record schemas show it:
// literals and calls, in parentheses and with casts. The server puts every operator in
// parentheses.
type expressionParser struct{ rest string }

// expression reads one expression. What it does not know it leaves in rest.
func (p *expressionParser) expression() expression {
	e := p.primary()
	for p.accept("::") {
		if !p.typeName() {
			return expression{}
		}
	}
	return e
}

func (p *expressionParser) primary() expression {
	switch {
	case p.accept("("):
		e := p.expression()
		if e.kind == exprCall && strings.HasPrefix(p.rest, " AT TIME ZONE ") {
			// The function timezone in another dress: until PostgreSQL 13 it is printed
			// as a call.
			p.accept(" AT TIME ZONE ")
			p.expression()
		}
		if !p.accept(")") {
			return expression{}
		}
		return e
	case p.accept("'"), p.accept("B'"), p.accept("b'"):
		return p.quoted(false)
	case p.accept("E'"), p.accept("e'"):
		return p.quoted(true)
	}
	if n := len(p.rest) - len(strings.TrimLeft(p.rest, "-+.0123456789eE")); n > 0 && strings.ContainsRune("-+.0123456789", rune(p.rest[0])) {
		e := expression{exprLiteral, p.rest[:n]}
		p.rest = p.rest[n:]
		return e
	}
	return p.named()
}

// named reads NULL, true, false, a call, or a keyword that is one.
func (p *expressionParser) named() expression {
	name := p.identifiers()
	switch {
	case name == "":
		return expression{}
	case name == "NULL":
		return expression{kind: exprNull}
	case name == "true", name == "false":
		return expression{exprLiteral, name}
	case p.arguments(), valueFunctions[name]:
		return expression{kind: exprCall}
	}
	return expression{}
}

// valueFunctions are the functions that SQL calls without parentheses.
// https://www.postgresql.org/docs/current/functions-info.html
var valueFunctions = map[string]bool{
	"CURRENT_DATE": true, "CURRENT_TIME": true, "CURRENT_TIMESTAMP": true, "LOCALTIME": true, "LOCALTIMESTAMP": true,
	"CURRENT_USER": true, "SESSION_USER": true, "USER": true, "CURRENT_ROLE": true, "CURRENT_CATALOG": true, "CURRENT_SCHEMA": true,
	"SYSTEM_USER": true,
}

func (p *expressionParser) accept(want string) bool {
	rest, ok := strings.CutPrefix(p.rest, want)
	p.rest = rest
	return ok
}

// quoted reads on behind a quote. A quote inside is doubled; with escapes a backslash begins
// an escape.
// https://www.postgresql.org/docs/current/sql-syntax-lexical.html#SQL-SYNTAX-STRINGS
func (p *expressionParser) quoted(escapes bool) expression {
	var text []byte
	for i := 0; i < len(p.rest); i++ {
		switch c := p.rest[i]; {
		case c == '\'' && i+1 < len(p.rest) && p.rest[i+1] == '\'':
			text = append(text, c)
			i++
		case c == '\'':
			p.rest = p.rest[i+1:]
			return expression{exprLiteral, string(text)}
		case c == '\\' && escapes && i+1 < len(p.rest):
			i++
			e := p.rest[i]
			if k := strings.IndexByte("bfnrt", e); k >= 0 {
				e = "\b\f\n\r\t"[k]
			} else if bytes.IndexByte([]byte("xuU01234567"), e) >= 0 {
				return expression{} // the server prints none of these
			}
			text = append(text, e)
		default:
			text = append(text, c)
		}
	}
	return expression{}
}

// identifiers reads a name, with schemas in front of it.
func (p *expressionParser) identifiers() string {
	all := p.rest
	for {
		switch {
		case p.accept(`"`):
			for {
				i := strings.IndexByte(p.rest, '"')
				if i < 0 {
					return ""
				}
				p.rest = p.rest[i+1:]
				if !p.accept(`"`) {
					break
				}
			}
		default:
			n := 0
			for n < len(p.rest) && isNameByte(p.rest[n]) {
				n++
			}
			if n == 0 {
				return ""
			}
			p.rest = p.rest[n:]
		}
		if !p.accept(".") {
			return all[:len(all)-len(p.rest)]
		}
	}
}

func isNameByte(c byte) bool {
	return c == '_' || c == '$' || c >= 0x80 || '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

// arguments reads (…) whatever is in it.
func (p *expressionParser) arguments() bool {
	if !strings.HasPrefix(p.rest, "(") {
		return false
	}
	depth := 0
	var quote byte
	for i := 0; i < len(p.rest); i++ {
		switch c := p.rest[i]; {
		case quote != 0:
			// A doubled quote ends the text and begins it again.
			if c == quote {
				quote = 0
			}
		case c == '\'' || c == '"':
			quote = c
		case c == '(':
			depth++
		case c == ')':
			if depth--; depth == 0 {
				p.rest = p.rest[i+1:]
				return true
			}
		}
	}
	return false
}

// typeName reads the type of a cast, such as timestamp(3) without time zone: words, of
// which one may have arguments, and brackets.
func (p *expressionParser) typeName() bool {
	for {
		if p.identifiers() == "" {
			return false
		}
		p.arguments()
		for p.accept("[]") {
		}
		if !p.accept(" ") {
			return true
		}
	}
}
