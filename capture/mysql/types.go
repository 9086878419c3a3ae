package mysql

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/headwaterdb/headwater/capture"
)

// columnFacts is what information_schema.COLUMNS says about a column.
type columnFacts struct {
	name       string  // COLUMN_NAME
	columnType string  // COLUMN_TYPE, such as "int(10) unsigned"
	charset    string  // CHARACTER_SET_NAME, "" for none
	collation  string  // COLLATION_NAME, "" for none
	nullable   bool    // IS_NULLABLE
	generated  bool    // has a GENERATION_EXPRESSION, and is not of a period
	fallback   *string // COLUMN_DEFAULT, nil for SQL NULL
	stored     *string // the default itself, where COLUMN_DEFAULT is blurred and the server tells
	extra      string  // EXTRA
	comment    string  // COLUMN_COMMENT
}

// tableFacts is what the catalog says about a table at some moment.
type tableFacts struct {
	id      capture.TableID
	mariadb bool
	// unlogged says that the server leaves generated columns out of old and changed rows; see
	// [server.logsGenerated].
	unlogged bool
	// columns are in the order of ORDINAL_POSITION.
	columns []columnFacts
	// key names the columns of the record key in key order: the primary key, else those
	// of the unique index that keyIndex names; empty without either. rowKey names those
	// that identify a row, see [capture.Table].
	key      []string
	keyIndex string
	rowKey   []string
	// prefixes says that keyIndex is over prefixes of columns, or their hash: the log does not
	// show it as a key.
	prefixes bool
	// unordered says that the index over rowKey does not order rows by the whole values of its
	// columns, nor bounds how long those are; see Scanner.Tables.
	unordered bool
	// hashes is the number of unique indexes over hashes, for each of which MariaDB's engines
	// that have none keep a hidden column.
	hashes int
}

// newPlan makes the definition and the decoder of the rows that follow m. Names, types,
// nullability and primary key are the log's. f may be nil, or of another moment: it adds
// default, comment, and the little that the log does not tell to those columns that it
// describes as the log does.
//
// m must have names, see [tableMap.namedBy]: columns of one type that changed places since would
// be taken for each other otherwise.
func newPlan(origin *capture.Origin, m *tableMap, f *tableFacts) (*plan, error) {
	return planAfter(origin, m, f, nil)
}

// planAfter is newPlan behind an earlier definition of the table, which may be nil: what
// neither log nor catalog tell of a column, that may.
func planAfter(origin *capture.Origin, m *tableMap, f *tableFacts, earlier *plan) (*plan, error) {
	var known []logColumn
	if f != nil {
		for i := range f.columns {
			c, err := f.columns[i].describe(f.mariadb)
			if err != nil {
				// A type that we do not know equals none.
				c = logColumn{name: f.columns[i].name, values: c.values}
			}
			known = append(known, c)
		}
	}
	p := &plan{
		table: &capture.Table{ID: m.table, Origin: origin, Columns: make([]capture.Column, len(m.columns))},
		cells: make([]cell, len(m.columns)), columns: make([]logColumn, len(m.columns)),
	}
	for i := range m.columns {
		c := m.columns[i]
		var facts *columnFacts
		at := slices.IndexFunc(known, func(k logColumn) bool { return k.name == c.name })
		if at >= 0 {
			if c.losesFraction(&known[at]) {
				return nil, fmt.Errorf("%w: column %s of %s keeps its fraction of a second in the form that MariaDB had before 10.1, whose size the log does not tell; "+
					"remedy: SET GLOBAL mysql56_temporal_format = ON, ALTER TABLE %s FORCE, and start from a new snapshot", capture.ErrUnreadable, known[at].name, m.table, m.table)
			}
			if c.agrees(&known[at]) {
				facts = &f.columns[at]
				c.complete(&known[at])
			}
		}
		if facts == nil {
			p.inherit(&c, earlier)
		}
		switch {
		case at < 0 && c.isHash(m.mariadb):
			p.left = append(p.left, i)
		case at < 0 && c.isExpression(m.mariadb):
			p.left, p.unseen = append(p.left, i), append(p.unseen, i)
		case f != nil && f.unlogged && (c.values == computed || at >= 0 && known[at].values == computed):
			p.left = append(p.left, i)
		case facts == nil:
			p.drift = append(p.drift, i)
		}
		p.columns[i] = c
		if err := p.add(i, &c, facts, f); err != nil {
			return nil, err
		}
	}
	p.setKey(m, f)
	return p, nil
}

// scanPlan makes the plan for rows that a query returns: the one that the log's rows would
// get at the same moment.
func scanPlan(origin *capture.Origin, f *tableFacts) (*plan, error) {
	m, err := scanMap(f)
	if err != nil {
		return nil, err
	}
	return newPlan(origin, m, f)
}

// scanMap is what the log would say of the columns that are shown.
func scanMap(f *tableFacts) (*tableMap, error) {
	m := &tableMap{table: f.id, named: true, mariadb: f.mariadb}
	for i := range f.columns {
		if f.unlogged && f.columns[i].generated {
			continue
		}
		c, err := f.columns[i].describe(f.mariadb)
		if err != nil {
			return nil, fmt.Errorf("%w: column %s of %s: %w", capture.ErrUnreadable, f.columns[i].name, f.id, err)
		}
		m.columns = append(m.columns, c)
	}
	m.key = f.logKey(m.columns)
	return m, nil
}

// isHash says whether a column that the catalog lacks is the one that MariaDB keeps for a unique
// index over values of any length.
func (c *logColumn) isHash(mariadb bool) bool {
	number, ok := strings.CutPrefix(c.name, "DB_ROW_HASH_")
	return mariadb && ok && c.typ == typeLongLong && strings.Trim(number, "0123456789") == ""
}

// isExpression says whether a column that the catalog lacks may be the one that MySQL keeps for a
// functional index. 8.0.15 names it by 32 hexadecimal digits, and describes it without ever
// logging a value.
func (c *logColumn) isExpression(mariadb bool) bool {
	return !mariadb && len(c.name) == 32 && strings.Trim(c.name, "0123456789abcdef") == ""
}

// logKey is the key that the log has of a table with these columns.
func (f *tableFacts) logKey(columns []logColumn) []int {
	if f.prefixes {
		return nil
	}
	var key []int
	for _, n := range f.rowKey {
		if i := slices.IndexFunc(columns, func(c logColumn) bool { return c.name == n }); i >= 0 {
			key = append(key, i)
		}
	}
	return key
}

// agrees reports whether what the log and the catalog say about a column can be true of
// the same one.
func (c *logColumn) agrees(k *logColumn) bool {
	return c.sameForm(k) && c.nullable == k.nullable && (!c.isNumber() || c.typ == typeYear || c.unsigned == k.unsigned) &&
		(c.charset == nil || k.charset == nil || c.charset == k.charset) &&
		(c.labels == nil || k.labels == nil || slices.EqualFunc(c.labels, k.labels, printedAs)) && c.geometry == k.geometry
}

// printedAs reports whether the catalog prints a label so: characters of four bytes are question
// marks there.
func printedAs(label, printed string) bool {
	return label == printed || strings.Contains(printed, "?") && printed == strings.Map(func(r rune) rune {
		if r > 0xffff {
			return '?'
		}
		return r
	}, label)
}

// blursLabels says whether the catalog may have printed labels otherwise than they are.
func (c *logColumn) blursLabels() bool {
	return c.charset != nil && c.charset.most == 4 && slices.ContainsFunc(c.labels, func(l string) bool { return strings.Contains(l, "?") })
}

// sameForm reports whether values of both look the same in the log. The catalog does not
// tell the old forms of times from the new ones.
func (c *logColumn) sameForm(k *logColumn) bool {
	switch c.typ {
	case typeTime:
		return k.typ == typeTime2 && k.meta == 0
	case typeDatetime:
		return k.typ == typeDatetime2 && k.meta == 0
	case typeTimestamp:
		return k.typ == typeTimestamp2 && k.meta == 0
	}
	return c.typ == k.typ && c.meta == k.meta
}

// losesFraction reports whether a time has a fraction that its form in the log cannot
// show: MariaDB's old forms have one, but no metadata.
func (c *logColumn) losesFraction(k *logColumn) bool {
	plain := *k
	plain.meta = 0
	switch c.typ {
	case typeTime, typeDatetime, typeTimestamp:
		return k.meta > 0 && c.sameForm(&plain)
	}
	return false
}

// complete adds to what the log says about a column what only the catalog knows.
func (c *logColumn) complete(k *logColumn) {
	c.special, c.double, c.values = k.special, k.double, k.values
	if c.charset == nil {
		c.charset = k.charset
	}
	if c.typ == typeVector || k.special == specialVector {
		c.dimension = k.dimension
	}
}

// inherit takes from an earlier definition what only the catalog could say, and notes
// where that was silent, too.
func (p *plan) inherit(c *logColumn, earlier *plan) {
	if earlier != nil {
		if e := earlier.column(c.name); e != nil && c.sameForm(e) && c.charset == e.charset {
			c.special, c.double, c.dimension, c.values = e.special, e.double, e.dimension, e.values
			return
		}
	}
	c.values = untold
	if c.charset == binaryCharset && (c.typ == typeString || c.typ == typeVarchar) {
		p.unsure = append(p.unsure, *c)
	}
}

// column returns what is known of a column, nil if there is none with this name.
func (p *plan) column(name string) *logColumn {
	for i := range p.columns {
		if p.columns[i].name == name {
			return &p.columns[i]
		}
	}
	return nil
}

// refuseUnsure stops where a string of bytes could have been of a type that MariaDB's log
// does not show.
func (p *plan) refuseUnsure(srv *server) error {
	for _, c := range p.unsure {
		could := ""
		switch {
		case srv.flavour != mariaDB:
		case c.typ == typeString && c.meta == 16:
			could = "UUID or INET6"
		case c.typ == typeString && c.meta == 4:
			could = "INET4"
		case c.typ == typeVarchar && c.meta > 0 && c.meta%4 == 0 && srv.atLeast(11, 7):
			could = "VECTOR"
		}
		if could != "" {
			return fmt.Errorf("%w: column %s of %s was changed or dropped since its rows were logged, and whether it was %s or plain bytes then neither the log nor the catalog tells; remedy: %s",
				capture.ErrUnreadable, c.name, p.table.ID, could, readAnew)
		}
	}
	return nil
}

// setKey takes the key from the log: that of the primary key, or of the unique index over
// NOT NULL columns that the server uses like one. The catalog tells one from the other,
// and knows the indexes that the log does not show.
func (p *plan) setKey(m *tableMap, f *tableFacts) {
	t := p.table
	t.Key, t.RowKey = m.key, m.key
	if f == nil {
		return
	}
	key, rowKey := p.indexes(f.key), p.indexes(f.rowKey)
	nullable := func(i int) bool { return t.Columns[i].Nullable }
	switch {
	case len(m.key) > 0:
		// The log adds the end of a system-versioned row's period.
		if n := len(key); n > 0 && n <= len(m.key) && slices.Equal(key, m.key[:n]) {
			t.KeyIndex = f.keyIndex
		}
	case f.prefixes || slices.ContainsFunc(key, nullable):
		t.Key, t.KeyIndex = key, f.keyIndex
		if f.prefixes && !slices.ContainsFunc(rowKey, nullable) {
			t.RowKey = rowKey
		}
	}
	// Anything else would be an index that is newer than the rows: the log had no key.
}

// indexes turns names into indexes of columns; nil if one is missing.
func (p *plan) indexes(names []string) []int {
	var out []int
	for _, n := range names {
		i := p.table.Column(n)
		if i < 0 {
			return nil
		}
		out = append(out, i)
	}
	return out
}

// Types that MariaDB has and its log does not show: there they are strings of bytes.
const (
	specialNone byte = iota
	specialUUID
	specialInet4
	specialInet6
	specialVector
)

// add makes column i and its cell.
func (p *plan) add(i int, c *logColumn, facts *columnFacts, f *tableFacts) error {
	typ, cell, err := c.resolve()
	if err != nil {
		return fmt.Errorf("%w: column %s of %s: %w", capture.ErrUnreadable, c.name, p.table.ID, err)
	}
	p.cells[i] = cell
	if cell.op == opJSON {
		p.jsons++
	}
	col := &p.table.Columns[i]
	*col = capture.Column{Name: c.name, Type: typ, Nullable: c.nullable}
	if facts != nil {
		col.Comment = facts.comment
		col.Default = facts.defaultOf(&p.cells[i], &col.Type, f.mariadb)
	}
	return nil
}

// integers has the forms of whole numbers.
var integers = map[byte]struct {
	name             string
	least            uint8
	signed, unsigned op
	kind, wider      capture.TypeKind
}{
	typeTiny:     {"tinyint", 1, opInt8, opUint8, capture.TypeInt8, capture.TypeInt16},
	typeShort:    {"smallint", 2, opInt16, opUint16, capture.TypeInt16, capture.TypeInt32},
	typeInt24:    {"mediumint", 3, opInt24, opUint24, capture.TypeInt32, capture.TypeInt32},
	typeLong:     {"int", 4, opInt32, opUint32, capture.TypeInt32, capture.TypeInt64},
	typeLongLong: {"bigint", 8, opInt64, opUint64, capture.TypeInt64, capture.TypeUint64},
}

// resolve says what a column is to the rest of the program, and how its values are read.
func (c *logColumn) resolve() (t capture.Type, d cell, err error) {
	d.nullable = c.nullable
	named := func(k capture.TypeKind, name string) capture.Type { return capture.Type{Kind: k, Name: name} }
	sign := func(name string) string {
		if c.unsigned {
			return name + " unsigned"
		}
		return name
	}
	switch c.typ {
	case typeTiny, typeShort, typeInt24, typeLong, typeLongLong:
		i := integers[c.typ]
		d.least = i.least
		if c.unsigned {
			d.op = i.unsigned
			return named(i.wider, sign(i.name)), d, nil
		}
		d.op = i.signed
		return named(i.kind, i.name), d, nil
	case typeFloat:
		d.op, d.least = opFloat, 4
		if c.double {
			return named(capture.TypeFloat64, sign("float")), d, nil
		}
		return named(capture.TypeFloat32, sign("float")), d, nil
	case typeDouble:
		d.op, d.least = opDouble, 8
		return named(capture.TypeFloat64, sign("double")), d, nil
	case typeNewDecimal:
		return c.resolveDecimal(d)
	case typeYear:
		d.op, d.least = opYear, 1
		return named(capture.TypeYear, "year"), d, nil
	case typeBit:
		n := int(c.meta>>8)*8 + int(c.meta&0xff)
		if n < 1 || n > 64 {
			return t, d, fmt.Errorf("bit(%d) is impossible", n)
		}
		d.width = uint8((n + 7) / 8)
		d.op, d.least = opBits, d.width
		t = capture.Type{Kind: capture.TypeBits, Length: n, Name: fmt.Sprintf("bit(%d)", n)}
		if n == 1 {
			t.Kind, t.Length, d.op = capture.TypeBool, 0, opBit
		}
		return t, d, nil
	case typeDate, typeNewDate:
		d.op, d.least = opDate, 3
		return named(capture.TypeDate, "date"), d, nil
	case typeTime, typeTime2, typeDatetime, typeDatetime2, typeTimestamp, typeTimestamp2:
		return c.resolveTime(d)
	case typeEnum, typeSet:
		return c.resolveLabels(d)
	case typeString, typeVarchar, typeVarcharCompressed, typeBlob, typeBlobCompressed:
		return c.resolveString(d)
	case typeJSON:
		if err := d.setWidth(int(c.meta)); err != nil {
			return t, d, err
		}
		d.op = opJSON
		return named(capture.TypeJSON, "json"), d, nil
	case typeGeometry:
		if err := d.setWidth(int(c.meta)); err != nil {
			return t, d, err
		}
		d.op = opGeometry
		t = named(capture.TypeGeometry, "geometry")
		if int(c.geometry) < len(geometries) {
			t.Name = geometries[c.geometry]
		}
		if c.geometry == 1 {
			t.Kind = capture.TypePoint
		}
		return t, d, nil
	case typeVector:
		if err := d.setWidth(int(c.meta)); err != nil {
			return t, d, err
		}
		d.op = opVector
		return c.vector(), d, nil
	case typeNull:
		return capture.Type{Kind: capture.TypeText, Unmapped: true, Name: "null"}, d, nil
	}
	return t, d, fmt.Errorf("its type %d is unknown", c.typ)
}

// geometries are the declared subtypes, by the number that the log has for them.
var geometries = [...]string{"geometry", "point", "linestring", "polygon", "multipoint", "multilinestring", "multipolygon", "geometrycollection"}

func (c *logColumn) vector() capture.Type {
	name := "vector"
	if c.dimension > 0 {
		name = fmt.Sprintf("vector(%d)", c.dimension)
	}
	return capture.Type{Kind: capture.TypeHalfVector, Name: name}
}

// setWidth sets the bytes of the length before a value.
func (c *cell) setWidth(n int) error {
	if n < 1 || n > 4 {
		return fmt.Errorf("a length of %d bytes is impossible", n)
	}
	c.width, c.least = uint8(n), uint8(n)
	return nil
}

func (c *logColumn) resolveTime(d cell) (capture.Type, cell, error) {
	fsp := 0
	t := capture.Type{}
	switch c.typ {
	case typeTime:
		d.op, d.least, t.Kind, t.Name = opTime, 3, capture.TypeTime, "time"
	case typeTime2:
		fsp = int(c.meta)
		d.op, d.least, t.Kind, t.Name = opTime2, 3, capture.TypeTime, "time"
	case typeDatetime:
		d.op, d.least, t.Kind, t.Name = opDatetime, 8, capture.TypeTimestamp, "datetime"
	case typeDatetime2:
		fsp = int(c.meta)
		d.op, d.least, t.Kind, t.Name = opDatetime2, 5, capture.TypeTimestamp, "datetime"
	case typeTimestamp:
		d.op, d.least, t.Kind, t.Name = opTimestamp, 4, capture.TypeTimestampTZ, "timestamp"
	case typeTimestamp2:
		fsp = int(c.meta)
		d.op, d.least, t.Kind, t.Name = opTimestamp2, 4, capture.TypeTimestampTZ, "timestamp"
	}
	if fsp > 6 {
		return t, d, fmt.Errorf("%d digits of a second are impossible", fsp)
	}
	t.Scale = fsp
	if fsp > 0 {
		t.Name += "(" + strconv.Itoa(fsp) + ")"
	}
	d.width = uint8((fsp + 1) / 2)
	d.least += d.width
	return t, d, nil
}

func (c *logColumn) resolveLabels(d cell) (capture.Type, cell, error) {
	t := capture.Type{Kind: capture.TypeEnum, Labels: c.labels}
	word := "enum("
	d.op = opEnum
	if c.typ == typeSet {
		t.Kind, d.op, word = capture.TypeSet, opSet, "set("
	}
	if c.meta < 1 || c.meta > 8 || c.typ == typeSet && len(c.labels) > 64 {
		return t, d, fmt.Errorf("labels numbered by %d bytes are impossible", c.meta)
	}
	if len(c.labels) == 0 || c.charset == nil {
		return t, d, fmt.Errorf("its labels, or their character set, are not known to headwater; remedy: run a headwater that knows this server version")
	}
	d.width, d.least, d.charset = uint8(c.meta), uint8(c.meta), c.charset
	quoted := make([]string, len(c.labels))
	d.labels = make([]capture.Value, len(c.labels))
	for i, l := range c.labels {
		quoted[i] = "'" + strings.ReplaceAll(l, "'", "''") + "'"
		d.labels[i] = capture.TextValue(l)
	}
	t.Name = word + strings.Join(quoted, ",") + ")"
	return t, d, nil
}

// blobs and texts are the names of the four sizes.
var (
	blobs = [...]string{1: "tinyblob", 2: "blob", 3: "mediumblob", 4: "longblob"}
	texts = [...]string{1: "tinytext", 2: "text", 3: "mediumtext", 4: "longtext"}
)

func (c *logColumn) resolveString(d cell) (t capture.Type, _ cell, err error) {
	n := int(c.meta)
	width := 1
	if n > 255 {
		width = 2
	}
	if c.typ == typeBlob || c.typ == typeBlobCompressed {
		width = n
	}
	if err := d.setWidth(width); err != nil {
		return t, d, err
	}
	switch c.special {
	case specialUUID:
		d.op, d.size = opUUID, n
		return capture.Type{Kind: capture.TypeUUID, Name: "uuid"}, d, nil
	case specialInet4:
		d.op, d.size = opInet4, n
		return capture.Type{Kind: capture.TypeString, Name: "inet4"}, d, nil
	case specialInet6:
		d.op, d.size = opInet6, n
		return capture.Type{Kind: capture.TypeString, Name: "inet6"}, d, nil
	case specialVector:
		d.op = opVector
		return c.vector(), d, nil
	}
	if c.charset == nil {
		return t, d, fmt.Errorf("its character set is unknown to headwater; remedy: run a headwater that knows this server version")
	}
	binary := c.charset == binaryCharset
	d.charset = c.charset
	compressed := c.typ == typeVarcharCompressed || c.typ == typeBlobCompressed
	switch {
	case compressed && binary:
		d.op = opCompressedBytes
	case compressed:
		d.op = opCompressedText
	case !binary:
		d.op = opText
	case c.typ == typeString:
		d.op, d.size = opBinary, n
	default:
		d.op = opBytes
	}
	t.Kind = capture.TypeString
	if binary {
		t.Kind = capture.TypeBytes
	}
	switch c.typ {
	case typeBlob, typeBlobCompressed:
		t.Name = texts[n]
		if binary {
			t.Name = blobs[n]
		}
	default:
		if compressed {
			n-- // the byte that says how it is compressed
		}
		word := "char"
		if binary {
			word = "binary"
		}
		if c.typ != typeString {
			word = "var" + word
		}
		t.Length = n / c.charset.most
		t.Name = word + "(" + strconv.Itoa(t.Length) + ")"
	}
	return t, d, nil
}

// describe says in the log's words what the catalog says about a column.
func (f *columnFacts) describe(mariadb bool) (logColumn, error) {
	c := logColumn{name: f.name, nullable: f.nullable, invisible: strings.Contains(strings.ToUpper(f.extra), "INVISIBLE")}
	if mariadb && f.generated {
		c.values = computed
	}
	word, args, rest := splitType(f.columnType)
	c.unsigned = strings.Contains(rest, "unsigned") || strings.Contains(rest, "zerofill")
	compressed := strings.Contains(rest, "COMPRESSED")
	n, scale := 0, 0
	if word != "enum" && word != "set" && args != "" {
		first, second, _ := strings.Cut(args, ",")
		var err error
		if n, err = strconv.Atoi(first); err == nil && second != "" {
			scale, err = strconv.Atoi(second)
		}
		if err != nil || n < 0 || n > 1<<16 || scale < 0 || scale > 255 {
			return c, fmt.Errorf("its type %s is unknown", f.columnType)
		}
	}
	if f.charset != "" {
		if c.charset = charsetNamed(f.charset); c.charset == nil {
			return c, fmt.Errorf("its character set %s is unknown", f.charset)
		}
	}
	text := func(typ byte, meta int) {
		c.typ, c.meta = typ, uint16(meta)
		if c.charset == nil {
			c.charset = binaryCharset
		}
	}
	width := 1
	if c.charset != nil {
		width = c.charset.most
	}
	switch word {
	case "tinyint":
		c.typ = typeTiny
	case "smallint":
		c.typ = typeShort
	case "mediumint":
		c.typ = typeInt24
	case "int":
		c.typ = typeLong
	case "bigint":
		c.typ = typeLongLong
	case "float":
		c.typ, c.meta, c.double = typeFloat, 4, args != ""
	case "double":
		c.typ, c.meta = typeDouble, 8
	case "decimal":
		c.typ, c.meta = typeNewDecimal, uint16(n)<<8|uint16(scale)
	case "year":
		c.typ, c.unsigned = typeYear, true
	case "bit":
		c.typ, c.meta = typeBit, uint16(n/8)<<8|uint16(n%8)
	case "date":
		c.typ = typeDate
	case "time":
		c.typ, c.meta = typeTime2, uint16(n)
	case "datetime":
		c.typ, c.meta = typeDatetime2, uint16(n)
	case "timestamp":
		c.typ, c.meta = typeTimestamp2, uint16(n)
	case "char", "binary":
		text(typeString, n*width)
	case "varchar", "varbinary":
		text(typeVarchar, n*width)
	case "tinytext", "tinyblob":
		text(typeBlob, 1)
	case "text", "blob":
		text(typeBlob, 2)
	case "mediumtext", "mediumblob":
		text(typeBlob, 3)
	case "longtext", "longblob":
		text(typeBlob, 4)
	case "json":
		c.typ, c.meta, c.charset = typeJSON, 4, nil
	case "enum", "set":
		labels, ok := splitLabels(args)
		if !ok {
			return c, fmt.Errorf("its type %s is unknown", f.columnType)
		}
		c.labels = labels
		c.typ, c.meta = typeEnum, 1
		if len(labels) > 255 {
			c.meta = 2
		}
		if word == "set" {
			c.typ, c.meta = typeSet, uint16((len(labels)+7)/8)
			if c.meta > 4 {
				c.meta = 8
			}
		}
	case "vector":
		c.dimension = n
		c.typ, c.meta = typeVector, 4
		if mariadb {
			c.special = specialVector
			text(typeVarchar, 4*n)
		}
	case "uuid":
		c.special = specialUUID
		text(typeString, 16)
	case "inet4":
		c.special = specialInet4
		text(typeString, 4)
	case "inet6":
		c.special = specialInet6
		text(typeString, 16)
	default:
		i := slices.Index(geometries[:], strings.Replace(word, "geomcollection", "geometrycollection", 1))
		if i < 0 {
			return c, fmt.Errorf("its type %s is unknown", f.columnType)
		}
		c.typ, c.meta, c.geometry, c.charset = typeGeometry, 4, byte(i), nil
	}
	if compressed {
		switch c.typ {
		case typeVarchar:
			c.typ, c.meta = typeVarcharCompressed, c.meta+1
		case typeBlob:
			c.typ = typeBlobCompressed
		}
	}
	return c, nil
}

// splitType takes COLUMN_TYPE apart: word(args) rest.
func splitType(s string) (word, args, rest string) {
	i := strings.IndexAny(s, "( ")
	if i < 0 {
		return s, "", ""
	}
	word, rest = s[:i], s[i:]
	if rest[0] != '(' {
		return word, "", rest
	}
	quoted := false
	for j := 1; j < len(rest); j++ {
		switch rest[j] {
		case '\'':
			quoted = !quoted
		case '\\':
			if quoted {
				j++
			}
		case ')':
			if !quoted {
				return word, rest[1:j], rest[j+1:]
			}
		}
	}
	return word, rest[1:], ""
}

// splitLabels reads 'a','b',… as the server prints the labels of a type.
func splitLabels(s string) (labels []string, ok bool) {
	for {
		label, rest, ok := unquote(s)
		if !ok {
			return nil, false
		}
		labels = append(labels, label)
		if rest == "" {
			return labels, true
		}
		if rest[0] != ',' {
			return nil, false
		}
		s = rest[1:]
	}
}

// unquote reads a string literal from the front of s: quotes are doubled or escaped, and
// the characters that the server escapes in what it prints are escaped.
func unquote(s string) (text, rest string, ok bool) {
	if s == "" || s[0] != '\'' {
		return "", s, false
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '\'':
			if i+1 == len(s) || s[i+1] != '\'' {
				return b.String(), s[i+1:], true
			}
			i++
			b.WriteByte('\'')
		case '\\':
			if i++; i == len(s) {
				return "", s, false
			}
			b.WriteByte(unescape(s[i]))
		default:
			b.WriteByte(s[i])
		}
	}
	return "", s, false
}

func unescape(c byte) byte {
	switch c {
	case '0':
		return 0
	case 'b':
		return '\b'
	case 'n':
		return '\n'
	case 'r':
		return '\r'
	case 't':
		return '\t'
	case 'Z':
		return 26
	}
	return c
}
