package mysql

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/go-mysql-org/go-mysql/mysql"

	"github.com/headwaterdb/headwater/capture"
)

// A catalog makes table definitions: of the log's rows, from what the log says about them
// and what the server's catalog says by now, and of the rows that a query reads. Equal
// definitions share one *capture.Table, in stream and snapshot alike. One belongs to a
// Source; its methods may be called from several goroutines.
//
// c is an ordinary session with the pinned settings, idle, which the call alone uses.
type catalog struct {
	mu      sync.Mutex
	origins map[string]*capture.Origin           // by database
	tables  map[capture.TableID][]*capture.Table // newest last
}

// keepDefinitions bounds how many definitions of one table are remembered.
const keepDefinitions = 16

func newCatalog() *catalog {
	return &catalog{origins: make(map[string]*capture.Origin), tables: make(map[capture.TableID][]*capture.Table)}
}

// originFields is how many fields of the source block come with each event.
const originFields = 7

// origin describes the source block of a database's tables.
func (c *catalog) origin(f flavour, database string) *capture.Origin {
	c.mu.Lock()
	defer c.mu.Unlock()
	o := c.origins[database]
	if o == nil {
		o = &capture.Origin{Connector: string(f), Database: database, Fields: []capture.OriginField{
			{Name: "table", Type: capture.TypeString, Optional: true, From: capture.FromTable},
			{Name: "server_id", Type: capture.TypeInt64},
			{Name: "gtid", Type: capture.TypeString, Optional: true},
			{Name: "file", Type: capture.TypeString},
			{Name: "pos", Type: capture.TypeInt64},
			{Name: "row", Type: capture.TypeInt32},
			{Name: "thread", Type: capture.TypeInt64, Optional: true},
			{Name: "query", Type: capture.TypeString, Optional: true},
		}}
		c.origins[database] = o
	}
	return o
}

// fromLog makes what the rows that follow tm are read and shown by. earlier is what the
// table was before, nil if that is not known.
func (c *catalog) fromLog(ctx context.Context, db *conn, srv *server, tm *tableMap, earlier *logTable) (*logTable, error) {
	facts, err := readFacts(ctx, db, srv, tm.table)
	if err != nil {
		return nil, err
	}
	t := &logTable{tm: tm}
	var before *plan
	if earlier != nil {
		before = earlier.plan
	}
	if t.gone = facts == nil; t.gone {
		facts = newFacts(srv, tm.table)
	}
	if t.plan, err = planAfter(c.origin(srv.flavour, tm.table.Schema), tm, facts, before); err != nil {
		return nil, err
	}
	if err := t.plan.refuseUnsure(srv); err != nil {
		return nil, err
	}
	if srv.flavour == mariaDB {
		today, err := readPeriod(ctx, db, tm.table)
		if err != nil {
			return nil, err
		}
		if t.history, err = historyOf(t.plan, tm, today, earlier); err != nil {
			return nil, err
		}
	}
	t.show(c)
	return t, nil
}

// show makes the definition that is shown.
func (t *logTable) show(c *catalog) {
	h := &t.history
	t.left = slices.Clone(t.plan.left)
	for i := h.end; h.versioned && i > h.end-h.hidden; i-- {
		t.left = append(t.left, i)
	}
	slices.Sort(t.left)
	shown := *t.plan.table
	if len(t.left) > 0 {
		shown.Columns = nil
		for i := range t.plan.table.Columns {
			if !slices.Contains(t.left, i) {
				shown.Columns = append(shown.Columns, t.plan.table.Columns[i])
			}
		}
	}
	key := func(full []int) (key []int) {
		for _, i := range full {
			if h.versioned && i == h.end {
				continue // the server adds the period's end to keys
			}
			before, _ := slices.BinarySearch(t.left, i)
			key = append(key, i-before)
		}
		return key
	}
	shown.Key, shown.RowKey = key(shown.Key), key(shown.RowKey)
	t.table = c.share(&shown)
}

// row leaves out of a row what is not shown. It may overwrite the row.
func (t *logTable) row(r capture.Row) capture.Row {
	if r == nil || len(t.left) == 0 {
		return r
	}
	out, left := r[:t.left[0]], t.left
	for i := t.left[0]; i < len(r); i++ {
		if len(left) > 0 && left[0] == i {
			left = left[1:]
			continue
		}
		out = append(out, r[i])
	}
	return out
}

// fromTable makes the plan for rows that the session reads. It is nil when there is no
// such table.
func (c *catalog) fromTable(ctx context.Context, db *conn, srv *server, id capture.TableID) (*plan, error) {
	facts, err := readFacts(ctx, db, srv, id)
	if err != nil || facts == nil {
		return nil, err
	}
	return c.planOf(srv, facts)
}

// planOf is fromTable once the facts are known.
func (c *catalog) planOf(srv *server, facts *tableFacts) (*plan, error) {
	m, err := scanMap(facts)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	m.restoreLabels(c.tables[facts.id])
	c.mu.Unlock()
	p, err := newPlan(c.origin(srv.flavour, facts.id.Schema), m, facts)
	if err != nil {
		return nil, err
	}
	p.table = c.share(p.table)
	return p, nil
}

// restoreLabels takes labels that the catalog may have printed otherwise than they are from the
// newest of the table's known definitions that could have been printed so: the log shows them.
func (m *tableMap) restoreLabels(known []*capture.Table) {
	for i := range m.columns {
		c := &m.columns[i]
		if !c.blursLabels() {
			continue
		}
		for _, t := range slices.Backward(known) {
			if at := t.Column(c.name); at >= 0 && slices.EqualFunc(t.Columns[at].Type.Labels, c.labels, printedAs) {
				c.labels = t.Columns[at].Type.Labels
				break
			}
		}
	}
}

// share returns the definition that says the same, if there was one.
func (c *catalog) share(t *capture.Table) *capture.Table {
	c.mu.Lock()
	defer c.mu.Unlock()
	known := c.tables[t.ID]
	if i := slices.IndexFunc(known, t.Equal); i >= 0 {
		return known[i]
	}
	if len(known) == keepDefinitions {
		known = slices.Delete(known, 0, 1)
	}
	c.tables[t.ID] = append(known, t)
	return t
}

// named selects one table from information_schema, whose names compare without case on
// some servers.
func named(id capture.TableID) string {
	schema, name := quoteText(id.Schema), quoteText(id.Name)
	return fmt.Sprintf("TABLE_SCHEMA = %[1]s AND TABLE_NAME = %[2]s AND TABLE_SCHEMA = CAST(%[1]s AS BINARY) AND TABLE_NAME = CAST(%[2]s AS BINARY)", schema, name)
}

// newFacts knows nothing of a table yet.
func newFacts(srv *server, id capture.TableID) *tableFacts {
	return &tableFacts{id: id, mariadb: srv.flavour == mariaDB, unlogged: !srv.logsGenerated()}
}

// readFacts asks the server about a table. It returns nil when there is none. One that the user may
// not read is an error, although it looks like none to whoever has no right at all.
func readFacts(ctx context.Context, db *conn, srv *server, id capture.TableID) (*tableFacts, error) {
	f := newFacts(srv, id)
	rows, err := db.query(ctx, `SELECT COLUMN_NAME, COLUMN_TYPE, COALESCE(CHARACTER_SET_NAME, ''), IS_NULLABLE = 'YES',
		COLUMN_DEFAULT IS NULL, COALESCE(COLUMN_DEFAULT, ''), EXTRA, COLUMN_COMMENT, COALESCE(COLLATION_NAME, ''), COALESCE(GENERATION_EXPRESSION, ''),
		FIND_IN_SET('select', PRIVILEGES) > 0
		FROM information_schema.COLUMNS WHERE `+named(id)+` ORDER BY ORDINAL_POSITION`)
	if err != nil {
		return nil, fmt.Errorf("read the catalog about %s: %w", id, explain(err))
	}
	if len(rows) == 0 {
		may, err := mayRead(ctx, db, id)
		if err == nil && !may {
			err = mustRead(ctx, db, id)
		}
		return nil, err
	}
	for _, r := range rows {
		if r[10] == "0" {
			return nil, mustRead(ctx, db, id)
		}
		col := columnFacts{name: r[0], columnType: r[1], charset: r[2], nullable: r[3] == "1", extra: r[6], comment: r[7], collation: r[8], generated: isGenerated(r[9])}
		if r[4] == "0" {
			col.fallback = &rows[len(f.columns)][5]
		}
		f.columns = append(f.columns, col)
	}
	var gone *mysql.MyError // dropped meanwhile
	if err := f.readDefaults(ctx, db); errors.As(err, &gone) && (gone.Code == mysql.ER_NO_SUCH_TABLE || gone.Code == mysql.ER_BAD_DB_ERROR) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("read the defaults of %s: %w", id, explain(err))
	}
	if err := f.readKeys(ctx, db); errors.As(err, &gone) && (gone.Code == mysql.ER_NO_SUCH_TABLE || gone.Code == mysql.ER_BAD_DB_ERROR) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("read the keys of %s: %w", id, explain(err))
	}
	return f, nil
}

// readDefaults asks for the defaults that the catalog does not show. No statement does that for
// an empty table on all servers, but a command of the protocol does. It takes a table of the
// session's own database, and no other right than to read the table.
//
// https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_com_field_list.html
func (f *tableFacts) readDefaults(ctx context.Context, db *conn) error {
	if !slices.ContainsFunc(f.columns, func(c columnFacts) bool { return c.blurred(f.mariadb) }) {
		return nil
	}
	var fields []*mysql.Field
	err := db.answer(ctx, func() (err error) {
		// The sessions of views take values as they are stored.
		if _, err = db.db.Execute("SET @results = @@character_set_results, character_set_results = utf8mb4"); err != nil {
			return err
		}
		if err = db.db.UseDB(f.id.Schema); err == nil {
			fields, err = db.db.FieldList(f.id.Name, "")
		}
		if _, e := db.db.Execute("SET character_set_results = @results"); err == nil {
			err = e
		}
		return err
	})
	var my *mysql.MyError
	if errors.As(err, &my) && my.Code == mysql.ER_UNKNOWN_COM_ERROR {
		return nil // such columns have no default then
	}
	if err != nil {
		return err
	}
	for i := range f.columns {
		c := &f.columns[i]
		at := slices.IndexFunc(fields, func(d *mysql.Field) bool { return string(d.Name) == c.name })
		if at >= 0 && c.blurred(f.mariadb) {
			text := string(fields[at].DefaultValue)
			c.stored = &text
		}
	}
	return nil
}

// readKeys takes unique indexes in the server's order: the primary key first, then those
// without NULL, then the others.
func (f *tableFacts) readKeys(ctx context.Context, db *conn) error {
	// Table, Non_unique, Key_name, Seq_in_index, Column_name, Collation, Cardinality,
	// Sub_part, Packed, Null, Index_type, …
	rows, err := db.query(ctx, "SHOW INDEX FROM "+quoteTable(f.id))
	if err != nil {
		return err
	}
	type index struct {
		name         string
		columns      []string
		usable, null bool
		prefixes     bool // see tableFacts
		unordered    bool
		hash         bool // of whole values, instead of an order
	}
	end, unlogged, err := f.readGenerated(ctx, db)
	if err != nil {
		return err
	}
	var unique []*index
	for _, r := range rows {
		if r[1] != "0" {
			continue
		}
		if len(unique) == 0 || unique[len(unique)-1].name != r[2] {
			unique = append(unique, &index{name: r[2], usable: true})
		}
		i := unique[len(unique)-1]
		i.columns = append(i.columns, r[4])
		// An expression has no column.
		i.usable = i.usable && r[4] != "" && !slices.Contains(unlogged, r[4])
		i.hash = r[10] == "HASH"
		i.unordered = i.unordered || r[7] != "" || i.hash
		i.prefixes = i.unordered && i.name != "PRIMARY"
		i.null = i.null || r[9] == "YES"
	}
	for _, i := range unique {
		if i.hash {
			f.hashes++
		}
		i.columns = slices.DeleteFunc(i.columns, func(name string) bool { return name == end })
		if !i.usable {
			continue
		}
		if f.key == nil {
			f.key, f.prefixes = i.columns, i.prefixes
			if i.name != "PRIMARY" {
				f.keyIndex = i.name
			}
		}
		if f.rowKey == nil && !i.null {
			f.rowKey, f.unordered = i.columns, i.unordered
		}
	}
	return nil
}

// readGenerated asks for the columns that keys do not count: the one that MariaDB adds to those
// of system-versioned tables, where it was declared, since elsewhere it is hidden from keys, too;
// and generated ones that it does not log in every row.
func (f *tableFacts) readGenerated(ctx context.Context, db *conn) (end string, unlogged []string, err error) {
	if !f.mariadb {
		return "", nil, nil
	}
	rows, err := db.query(ctx, "SELECT COLUMN_NAME, GENERATION_EXPRESSION FROM information_schema.COLUMNS WHERE GENERATION_EXPRESSION <> '' AND "+named(f.id))
	if err != nil {
		return "", nil, err
	}
	for _, r := range rows {
		switch {
		case r[1] == "ROW END":
			end = r[0]
		case f.unlogged && isGenerated(r[1]):
			unlogged = append(unlogged, r[0])
		}
	}
	return end, unlogged, nil
}

// isGenerated says whether a column with this expression is generated, and not the start or end of a
// period.
func isGenerated(expression string) bool {
	return expression != "" && expression != "ROW START" && expression != "ROW END"
}

// A tableInfo is a table that is there.
type tableInfo struct {
	ID   capture.TableID
	Rows int64 // the server's estimate, -1 without one
	// Engine is who keeps the rows.
	Engine string
}

// readTables lists the captured tables, ascending.
func (s *Source) readTables(ctx context.Context, db *conn) ([]tableInfo, error) {
	all, err := listTables(ctx, db)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, func(t tableInfo) bool { return !s.captures(t.ID) }), nil
}

// listTables lists the tables that the user can see, ascending, but for the server's own.
func listTables(ctx context.Context, db *conn) ([]tableInfo, error) {
	rows, err := db.queryLong(ctx, `SELECT TABLE_SCHEMA, TABLE_NAME, TABLE_ROWS, COALESCE(ENGINE, '') FROM information_schema.TABLES
		WHERE TABLE_TYPE IN ('BASE TABLE', 'SYSTEM VERSIONED') AND TABLE_SCHEMA NOT IN ('mysql', 'sys', 'information_schema', 'performance_schema')`)
	if err != nil {
		return nil, fmt.Errorf("list the tables: %w", err)
	}
	var out []tableInfo
	for _, r := range rows {
		t := tableInfo{ID: capture.TableID{Schema: r[0], Name: r[1]}, Rows: -1, Engine: r[3]}
		if n, err := parseUint(r[2]); err == nil {
			t.Rows = int64(n)
		}
		out = append(out, t)
	}
	slices.SortFunc(out, func(a, b tableInfo) int { return a.ID.Compare(b.ID) })
	return out, nil
}

// harmful looks whether a statement that changed rows without logging them could have
// changed rows of captured tables: by itself, by a trigger, a view or a function. It says
// what speaks for that, or "" if nothing does, as far as the catalog of today tells.
func (s *Source) harmful(ctx context.Context, db *conn, q *statement) (doubt string, err error) {
	switch {
	case q.table.Schema == "mysql" && strings.HasPrefix(q.table.Name, "rds_"):
		return "", nil // a hosted server's own, which nobody else writes to
	case q.table.Name == "" || len(q.names) > maxNames:
		return "it is not plain enough to say which tables it changes", nil
	}
	for _, id := range q.names {
		if !s.captures(id) {
			continue
		}
		rows, err := db.query(ctx, "SELECT 1 FROM information_schema.TABLES WHERE "+named(id))
		if err != nil {
			return "", fmt.Errorf("look for the table %s: %w", id, err)
		}
		if len(rows) > 0 || id == q.table {
			return fmt.Sprintf("it seems to change %s", id), nil
		}
	}
	rows, err := db.query(ctx, "SELECT COUNT(DISTINCT PRIVILEGE_TYPE) FROM information_schema.USER_PRIVILEGES WHERE REPLACE(GRANTEE, '''', '') = CURRENT_USER() AND PRIVILEGE_TYPE IN ('TRIGGER', 'EXECUTE')")
	if err != nil {
		return "", fmt.Errorf("look for the right to see triggers: %w", err)
	}
	if len(rows) != 1 || rows[0][0] != "2" {
		return fmt.Sprintf("the pipeline's user may not see whether %s has triggers that change captured tables, or it calls functions that do", q.table), nil
	}
	for _, look := range []struct{ sql, doubt string }{
		{"SELECT TABLE_SCHEMA, TABLE_NAME FROM information_schema.TABLES WHERE TABLE_TYPE LIKE '%%VIEW' AND TABLE_SCHEMA = %s AND TABLE_NAME = %s", "it names the view %s"},
		{"SELECT ROUTINE_SCHEMA, ROUTINE_NAME FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA = %s AND ROUTINE_NAME = %s", "it names the function %s, which may change rows"},
	} {
		for _, id := range q.names {
			rows, err := db.query(ctx, fmt.Sprintf(look.sql, quoteText(id.Schema), quoteText(id.Name)))
			if err != nil {
				return "", fmt.Errorf("look for %s: %w", id, err)
			}
			if len(rows) > 0 {
				return fmt.Sprintf(look.doubt, id), nil
			}
		}
	}
	rows, err = db.query(ctx, "SELECT (SELECT COUNT(*) FROM information_schema.TRIGGERS WHERE EVENT_OBJECT_SCHEMA = TABLE_SCHEMA AND EVENT_OBJECT_TABLE = TABLE_NAME) "+
		"FROM information_schema.TABLES WHERE TABLE_TYPE IN ('BASE TABLE', 'SYSTEM VERSIONED') AND "+named(q.table))
	switch {
	case err != nil:
		return "", fmt.Errorf("look for the triggers of %s: %w", q.table, err)
	case len(rows) == 0:
		return fmt.Sprintf("the table %s that it changes is temporary or gone by now", q.table), nil
	case rows[0][0] != "0":
		return fmt.Sprintf("the table %s that it changes has triggers", q.table), nil
	}
	return "", nil
}

// sequenceColumns are those of a sequence of MariaDB, whose state is logged as a row.
var sequenceColumns = []string{"next_not_cached_value", "minimum_value", "maximum_value", "start_value", "increment", "cache_size", "cycle_option", "cycle_count"}

func isSequence(tm *tableMap) bool {
	return slices.EqualFunc(tm.columns, sequenceColumns, func(c logColumn, name string) bool { return strings.EqualFold(c.name, name) })
}
