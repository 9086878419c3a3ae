package postgres

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/headwaterdb/headwater/capture"
)

// A catalog makes table definitions: from a relation message and what the system
// catalogs say at that moment, or from the catalogs alone as one view shows them. Equal
// definitions share one *capture.Table, in stream and snapshot alike. One belongs to a
// Source; its methods may be called from several goroutines.
//
// conn is an ordinary connection with the pinned settings, idle, which the call alone
// uses.
type catalog struct {
	origin *capture.Origin

	mu     sync.Mutex
	tables map[capture.TableID][]*capture.Table // newest last
}

// keepDefinitions bounds how many definitions of one table are remembered.
const keepDefinitions = 16

func newCatalog(database string) *catalog {
	return &catalog{
		origin: &capture.Origin{Connector: "postgresql", Database: database, Fields: []capture.OriginField{
			{Name: "schema", Type: capture.TypeString, From: capture.FromSchema},
			{Name: "table", Type: capture.TypeString, From: capture.FromTable},
			{Name: "txId", Type: capture.TypeInt64, Optional: true},
			{Name: "lsn", Type: capture.TypeInt64, Optional: true},
			{Name: "xmin", Type: capture.TypeInt64, Optional: true},
			{Name: "origin", Type: capture.TypeString, Optional: true},
			{Name: "origin_lsn", Type: capture.TypeInt64, Optional: true},
		}},
		tables: make(map[capture.TableID][]*capture.Table),
	}
}

// fromRelation makes the definition that a relation message describes. Names, types and
// type modifiers are the message's; the catalog, which can be newer, adds to the columns
// that it still has in the same form whether they may be NULL, their defaults and
// comments, and it names the key.
func (c *catalog) fromRelation(ctx context.Context, conn *pgconn.PgConn, m *relationMessage) (*tableDef, error) {
	f, err := readFacts(ctx, unprepared{conn}, m.OID)
	if err == nil {
		err = f.readTypes(ctx, unprepared{conn}, m.Columns)
	}
	if err != nil {
		return nil, fmt.Errorf("read the catalog about %s: %w", m.Table, err)
	}
	return c.build(m, f), nil
}

// fromTable makes the definition of a table as the transaction on conn sees it. columns
// names those to take, in the order in which cells will be given to decodeCells.
func (c *catalog) fromTable(ctx context.Context, conn asker, oid uint32, columns []string) (*tableDef, error) {
	f, err := readFacts(ctx, conn, oid)
	if err != nil {
		return nil, fmt.Errorf("read the catalog about the table with OID %d: %w", oid, err)
	}
	m := &relationMessage{OID: oid, Table: f.id}
	for _, name := range columns {
		i := slices.IndexFunc(f.attributes, func(a attribute) bool { return a.Name == name })
		if i < 0 {
			return nil, fmt.Errorf("read the catalog about the table with OID %d: there is no column %q", oid, name)
		}
		m.Columns = append(m.Columns, f.attributes[i].relationColumn)
	}
	if err := f.readTypes(ctx, conn, m.Columns); err != nil {
		return nil, fmt.Errorf("read the catalog about %s: %w", f.id, err)
	}
	return c.build(m, f), nil
}

// current makes the definition of a table as its rows will be logged from now on.
func (c *catalog) current(ctx context.Context, conn *pgconn.PgConn, srv *server, t *tableInfo) (*capture.Table, error) {
	oid, err := parseOID(t.OID)
	if err != nil {
		return nil, err
	}
	f, err := readFacts(ctx, unprepared{conn}, oid)
	if err != nil {
		return nil, fmt.Errorf("read the catalog about %s: %w", t.ID, err)
	}
	m := &relationMessage{OID: oid, Table: t.ID}
	for _, a := range f.attributes {
		// Servers before 18 list generated columns as published, and do not send them.
		generated := a.generated && (t.Columns == nil || srv.major() < 18)
		if !generated && (t.Columns == nil || slices.Contains(t.Columns, a.Name)) {
			m.Columns = append(m.Columns, a.relationColumn)
		}
	}
	if err := f.readTypes(ctx, unprepared{conn}, m.Columns); err != nil {
		return nil, fmt.Errorf("read the catalog about %s: %w", t.ID, err)
	}
	return c.build(m, f).table, nil
}

// amend makes the definition which a row asks for that d does not describe: decodeTuple
// and decodeCells say so by an *outdatedError. The row is decoded again by the result.
//
// It has the same columns in the same order, so that rows which were decoded by d are
// rows of the result too.
func (c *catalog) amend(ctx context.Context, conn *pgconn.PgConn, d *tableDef, o *outdatedError) (*tableDef, error) {
	table, out := *d.table, *d
	table.Columns, out.columns = slices.Clone(table.Columns), slices.Clone(out.columns)
	if o.null {
		table.Columns[o.column].Nullable, out.columns[o.column].notNull = true, false
		out.table = c.intern(&table)
		return &out, nil
	}
	enum := out.columns[o.column].enum
	labels, err := readLabels(ctx, conn, enum)
	if err != nil {
		return nil, fmt.Errorf("read the labels of %s again: %w", table.Columns[o.column].Type.Name, err)
	}
	if len(labels) == 0 { // the type was dropped
		labels = slices.Clone(table.Columns[o.column].Type.Labels)
		if e := table.Columns[o.column].Type.Elem; e != nil {
			labels = slices.Clone(e.Labels)
		}
	}
	if !slices.Contains(labels, o.label) {
		labels = append(labels, o.label) // it was renamed since
	}
	set := newLabelSet(labels)
	for i := range out.columns {
		t, d := &table.Columns[i].Type, &out.columns[i].columnDecoder
		switch {
		case d.enum != enum:
		case t.Elem != nil:
			et, ed := *t.Elem, *d.elem
			et.Labels, ed.labels = labels, set
			t.Elem, d.elem = &et, &ed
		default:
			t.Labels, d.labels = labels, set
		}
	}
	out.table = c.intern(&table)
	return &out, nil
}

// intern returns the remembered definition that equals t, or remembers t.
func (c *catalog) intern(t *capture.Table) *capture.Table {
	c.mu.Lock()
	defer c.mu.Unlock()
	known := c.tables[t.ID]
	for i := len(known) - 1; i >= 0; i-- {
		if known[i].Equal(t) {
			return known[i]
		}
	}
	if len(known) == keepDefinitions {
		known = slices.Delete(known, 0, 1)
	}
	c.tables[t.ID] = append(known, t)
	return t
}

// build puts a message, which fromTable makes up, and the catalog's facts together.
func (c *catalog) build(m *relationMessage, f *facts) *tableDef {
	t := &capture.Table{ID: m.Table, PartOf: f.partOf, Columns: make([]capture.Column, len(m.Columns)), Origin: c.origin}
	d := &tableDef{columns: make([]column, len(m.Columns))}
	for i, mc := range m.Columns {
		r := f.types.resolve(mc.Type, mc.Modifier, f.typeNames[i])
		col := capture.Column{Name: mc.Name, Type: r.Type, Nullable: true}
		if mc.Key && (m.Identity == 'd' || m.Identity == 'i') {
			col.Nullable = false // the server allows no other column there
		}
		if a := f.attribute(mc); a != nil {
			col.Nullable, col.Comment = col.Nullable && !a.notNull, a.comment
			col.Default = a.columnDefault(&r)
		}
		t.Columns[i] = col
		d.columns[i] = column{columnDecoder: r.dec, notNull: !col.Nullable, identity: mc.Key}
	}
	f.keys(t, m)
	d.table = c.intern(t)
	return d
}

// facts are what the catalog says about one table.
type facts struct {
	id         capture.TableID
	partOf     []capture.TableID
	attributes []attribute
	indexes    []index // unique, without expressions; the primary key first, then by name
	types      typeMap
	typeNames  []string // by column of the message
}

type attribute struct {
	relationColumn
	num        string
	notNull    bool
	identity   bool   // GENERATED … AS IDENTITY
	generated  bool   // GENERATED ALWAYS AS (…)
	expression string // default, "" for none
	comment    string
}

type index struct {
	name    string
	primary bool
	// strict says that it holds for every row at every moment: it has no condition and
	// is not deferrable.
	strict  bool
	columns []string
}

// attribute returns what the catalog says about a column, or nil when it does not have
// it in this form.
func (f *facts) attribute(c relationColumn) *attribute {
	for i := range f.attributes {
		if a := &f.attributes[i]; a.Name == c.Name && a.Type == c.Type && a.Modifier == c.Modifier {
			return a
		}
	}
	return nil
}

// keys sets the table's keys. Under the default replica identity the message tells
// which columns were the primary key when the row was written: where the catalog says
// otherwise it is newer, and does not fit the old rows.
func (f *facts) keys(t *capture.Table, m *relationMessage) {
	var logged []int
	for i, c := range m.Columns {
		if c.Key {
			logged = append(logged, i)
		}
	}
	for _, x := range f.indexes {
		cols, strict := make([]int, len(x.columns)), x.strict
		for i, name := range x.columns {
			cols[i] = t.Column(name)
			strict = strict && cols[i] >= 0 && !t.Columns[cols[i]].Nullable
		}
		newer := m.Identity == 'd' && x.primary && x.strict && !sameSet(cols, logged)
		if newer || slices.Contains(cols, -1) {
			continue
		}
		if t.Key == nil {
			t.Key = cols
			if !x.primary {
				t.KeyIndex = x.name
			}
		}
		if t.RowKey == nil && strict {
			t.RowKey = cols
		}
	}
	if m.Identity == 'd' && logged != nil && (t.KeyIndex != "" || !sameSet(t.Key, logged)) {
		t.Key, t.KeyIndex, t.RowKey = logged, "", logged
	}
}

func sameSet(a, b []int) bool {
	return len(a) == len(b) && !slices.ContainsFunc(a, func(i int) bool { return !slices.Contains(b, i) })
}

// readFacts reads all but the types. A table that was dropped has no attributes.
//
// https://www.postgresql.org/docs/current/catalogs.html
func readFacts(ctx context.Context, conn asker, oid uint32) (*facts, error) {
	rel := strconv.FormatUint(uint64(oid), 10)
	// A NOT NULL that is not validated yet (PostgreSQL 18) does not hold for every row.
	results, err := conn.queryAll(ctx, `SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = `+rel,
		ancestorsOf(rel),
		`SELECT a.attname, a.atttypid, a.atttypmod, a.attnum, a.attidentity <> '', a.attgenerated <> '',
			a.attnotnull AND NOT EXISTS (SELECT FROM pg_constraint k
				WHERE k.conrelid = a.attrelid AND k.contype = 'n' AND k.conkey = ARRAY[a.attnum] AND NOT k.convalidated),
			pg_get_expr(d.adbin, d.adrelid), col_description(a.attrelid, a.attnum)
		FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
		WHERE a.attrelid = `+rel+` AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum`,
		`SELECT x.relname, i.indisprimary, i.indimmediate AND i.indpred IS NULL,
			(SELECT string_agg(k.attnum::text, ' ' ORDER BY k.n) FROM unnest(i.indkey::int2[]) WITH ORDINALITY k(attnum, n) WHERE k.n <= i.indnkeyatts)
		FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
		WHERE i.indrelid = `+rel+` AND i.indisunique AND i.indisvalid AND i.indexprs IS NULL
		ORDER BY NOT i.indisprimary, x.relname`)
	if err != nil {
		return nil, err
	}
	if len(results) != 4 {
		return nil, fmt.Errorf("the server answers with %d results, want 4", len(results))
	}
	f := &facts{}
	for _, r := range results[0] {
		f.id = capture.TableID{Schema: r[0], Name: r[1]}
	}
	for _, r := range results[1] {
		f.partOf = append(f.partOf, capture.TableID{Schema: r[0], Name: r[1]})
	}
	names := make(map[string]string)
	for _, r := range results[2] {
		a := attribute{
			relationColumn: relationColumn{Name: r[0]}, num: r[3], identity: r[4] == "t", generated: r[5] == "t",
			notNull: r[6] == "t", expression: r[7], comment: r[8],
		}
		if a.Type, err = parseOID(r[1]); err != nil {
			return nil, err
		}
		if a.Modifier, err = parseModifier(r[2]); err != nil {
			return nil, err
		}
		f.attributes = append(f.attributes, a)
		names[a.num] = a.Name
	}
	for _, r := range results[3] {
		x := index{name: r[0], primary: r[1] == "t", strict: r[2] == "t"}
		for num := range strings.FieldsSeq(r[3]) {
			x.columns = append(x.columns, names[num])
		}
		f.indexes = append(f.indexes, x)
	}
	return f, nil
}

// ancestorsOf is the SQL for the tables that one is a partition of, the nearest first.
func ancestorsOf(oid string) string {
	return `SELECT n.nspname, c.relname FROM pg_partition_ancestors(` + oid + `) WITH ORDINALITY a(relid, n)
		JOIN pg_class c ON c.oid = a.relid JOIN pg_namespace n ON n.oid = c.relnamespace WHERE a.relid <> ` + oid + ` ORDER BY a.n`
}

// readTypes reads the types of the columns, and what those are made of.
func (f *facts) readTypes(ctx context.Context, conn asker, columns []relationColumn) error {
	f.types, f.typeNames = typeMap{}, make([]string, len(columns))
	if len(columns) == 0 {
		return nil
	}
	oids, mods := make([]string, len(columns)), make([]string, len(columns))
	for i, c := range columns {
		oids[i], mods[i] = strconv.FormatUint(uint64(c.Type), 10), strconv.FormatInt(int64(c.Modifier), 10)
	}
	list := "'{" + strings.Join(oids, ",") + "}'::oid[]"
	results, err := conn.queryAll(ctx, `WITH RECURSIVE used(oid) AS (
			SELECT unnest(`+list+`)
			UNION SELECT part FROM used JOIN pg_type t ON t.oid = used.oid CROSS JOIN LATERAL unnest(ARRAY[t.typelem, t.typbasetype]) part WHERE part <> 0)
		SELECT t.oid, t.typname, t.typtype, coalesce(e.oid, 0), t.typbasetype, t.typtypmod, t.typdelim, format_type(t.oid, NULL), `+labelsOf("t.oid")+`
		FROM used JOIN pg_type t ON t.oid = used.oid LEFT JOIN pg_type e ON e.oid = t.typelem AND e.typarray = t.oid`,
		`SELECT CASE WHEN t.oid IS NOT NULL THEN format_type(u.oid, u.mod) END
		FROM unnest(`+list+`, '{`+strings.Join(mods, ",")+`}'::int4[]) WITH ORDINALITY u(oid, mod, n) LEFT JOIN pg_type t ON t.oid = u.oid ORDER BY u.n`)
	if err != nil {
		return err
	}
	if len(results) != 2 || len(results[1]) != len(columns) {
		return errors.New("the server does not answer for every column")
	}
	for _, r := range results[0] {
		t := &pgType{name: r[1], typtype: r[2][0], delimiter: r[6][0], format: r[7]}
		var err1, err2, err3, err4 error
		t.oid, err1 = parseOID(r[0])
		t.elem, err2 = parseOID(r[3])
		t.base, err3 = parseOID(r[4])
		t.baseMod, err4 = parseModifier(r[5])
		if err := errors.Join(err1, err2, err3, err4, parseJSON(r[8], &t.labels)); err != nil {
			return err
		}
		f.types[t.oid] = t
	}
	for i, r := range results[1] {
		f.typeNames[i] = r[0]
	}
	return nil
}

// readLabels returns the labels of an enum type, none when there is no such type.
func readLabels(ctx context.Context, conn *pgconn.PgConn, enum uint32) (labels []string, err error) {
	row, err := queryRow(ctx, conn, "SELECT "+labelsOf(strconv.FormatUint(uint64(enum), 10)))
	if err != nil {
		return nil, err
	}
	return labels, parseJSON(row[0], &labels)
}

// labelsOf is the SQL for a type's enum labels in their order, NULL when there are none.
func labelsOf(oid string) string {
	return "(SELECT json_agg(l.enumlabel ORDER BY l.enumsortorder)::text FROM pg_enum l WHERE l.enumtypid = " + oid + ")"
}

func parseOID(text string) (uint32, error) {
	n, err := strconv.ParseUint(text, 10, 32)
	return uint32(n), err
}

func parseModifier(text string) (int32, error) {
	n, err := strconv.ParseInt(text, 10, 32)
	return int32(n), err
}

// An asker runs several statements in one round trip, and returns the rows of each as
// text. NULL is "".
type asker interface {
	queryAll(ctx context.Context, statements ...string) ([][][]string, error)
}

// unprepared is a connection on which statements are not met again.
type unprepared struct{ conn *pgconn.PgConn }

func (c unprepared) queryAll(ctx context.Context, statements ...string) ([][][]string, error) {
	return queryAll(ctx, c.conn, strings.Join(statements, ";"))
}

// queryAll is query for several statements: the rows of each. The simple protocol runs
// them in one round trip.
func queryAll(ctx context.Context, conn *pgconn.PgConn, sql string) ([][][]string, error) {
	results, err := conn.Exec(ctx, sql).ReadAll()
	if err != nil {
		return nil, err
	}
	out := make([][][]string, len(results))
	for i, r := range results {
		out[i] = make([][]string, len(r.Rows))
		for j, row := range r.Rows {
			for _, v := range row {
				out[i][j] = append(out[i][j], string(v))
			}
		}
	}
	return out, nil
}

// An outdatedError says that a row holds what its definition has no room for: NULL in a
// column that it calls NOT NULL, or an enum label that it does not list. See
// catalog.amend.
type outdatedError struct {
	column int
	null   bool
	label  string // unless null
	name   string
}

func (e *outdatedError) Error() string {
	if e.null {
		return fmt.Sprintf("column %q is NULL and defined as NOT NULL", e.name)
	}
	return fmt.Sprintf("column %q has the unknown label %q", e.name, e.label)
}

// A tableDef is a table definition with what decodes its rows. It is never changed.
type tableDef struct {
	table   *capture.Table
	columns []column
}

type column struct {
	columnDecoder
	notNull  bool
	identity bool // belongs to the replica identity, as the relation message says
}

// decodeTuple decodes a TupleData, whose bytes b owns: values are views into them.
// image is 'N', 'O' or 'K' as in rowMessage. In a 'K' image the columns outside the
// replica identity become Absent.
//
// The error is an *outdatedError, or matches capture.ErrUnreadable and names column and
// type.
func (d *tableDef) decodeTuple(b *capture.Batch, image byte, tuple []byte) (capture.Row, error) {
	if len(tuple) < 2 || int(binary.BigEndian.Uint16(tuple)) != len(d.columns) {
		return nil, d.malformed()
	}
	p := tuple[2:]
	row := b.Row(len(d.columns))
	for i := range row {
		col := &d.columns[i]
		if len(p) == 0 {
			return nil, d.malformed()
		}
		kind := p[0]
		p = p[1:]
		switch kind {
		case 't':
			if len(p) < 4 || uint64(binary.BigEndian.Uint32(p)) > uint64(len(p)-4) {
				return nil, d.malformed()
			}
			end := 4 + int(binary.BigEndian.Uint32(p))
			v, err := col.decode(b, p[4:end:end])
			if err != nil {
				return nil, d.valueError(i, err)
			}
			row[i] = v
			p = p[end:]
		case 'n':
			switch {
			case image == 'K' && !col.identity:
				row[i] = capture.AbsentValue
			case col.notNull:
				return nil, d.nullError(i)
			default:
				row[i] = capture.NullValue
			}
		case 'u':
			row[i] = capture.UnchangedValue
		default:
			return nil, d.malformed()
		}
	}
	if len(p) > 0 {
		return nil, d.malformed()
	}
	return row, nil
}

// decodeCells decodes a row of a query, one cell per column, nil for NULL. formats are
// those that the query asked for, nil for text; see tableDef.formats. It copies what it
// needs into b and returns also how many bytes the cells have. Errors are those of
// decodeTuple.
func (d *tableDef) decodeCells(b *capture.Batch, cells [][]byte, formats []int16) (row capture.Row, size int, err error) {
	if len(cells) != len(d.columns) {
		return nil, 0, d.malformed()
	}
	row = b.Row(len(cells))
	for i, cell := range cells {
		col := &d.columns[i]
		if cell == nil {
			if col.notNull {
				return nil, 0, d.nullError(i)
			}
			row[i] = capture.NullValue
			continue
		}
		size += len(cell)
		switch {
		case formats != nil && formats[i] == formatBinary:
			row[i], err = col.decodeBinary(b, cell)
		case col.op.views():
			row[i], err = col.decode(b, b.Copy(cell))
		default:
			row[i], err = col.decode(b, cell)
		}
		if err != nil {
			return nil, 0, d.valueError(i, err)
		}
	}
	return row, size, nil
}

// fillUnchanged completes the new row of an update with the values that it did not touch
// and the log did not repeat, where the old row has them.
func fillUnchanged(after, before capture.Row) {
	if len(before) != len(after) {
		return // there is no old row
	}
	for i := range after {
		if after[i].Kind() == capture.Unchanged && before[i].Kind() != capture.Absent {
			after[i] = before[i]
		}
	}
}

func (d *tableDef) malformed() error {
	return fmt.Errorf("%w: the row does not have the %d columns of its table's definition", capture.ErrUnreadable, len(d.columns))
}

func (d *tableDef) nullError(i int) error {
	return &outdatedError{column: i, null: true, name: d.table.Columns[i].Name}
}

func (d *tableDef) valueError(i int, err error) error {
	c := &d.table.Columns[i]
	var unknown *labelError
	if errors.As(err, &unknown) {
		return &outdatedError{column: i, label: unknown.label, name: c.Name}
	}
	return fmt.Errorf("%w: column %q of type %s: %w", capture.ErrUnreadable, c.Name, c.Type.Name, err)
}
