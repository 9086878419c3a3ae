package mysql

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-mysql-org/go-mysql/mysql"
	"github.com/go-mysql-org/go-mysql/replication"

	"github.com/headwaterdb/headwater/capture"
)

// Without binlog_row_metadata = FULL the log says of a table's columns what types they have,
// and not what they are called. The catalog says that, but of now. Both speak of the same
// definition if no statement between the rows and the moment of the catalog may have changed
// it. We look ahead in the log for such statements; DESIGN.md says why that proves it.

// A definition is what the catalog says of a table, and since when.
type definition struct {
	facts *tableFacts // nil when there is no such table
	// period is that of a system-versioned table, nil for others; see readPeriod.
	period *history
	// to is the end of the log when the catalog was read, and since the last statement before
	// that which may have made this definition, as far back as the proof goes.
	to    place
	since suspect
	// number is the table's in the log, 0 until a row has come. A change of the definition gives
	// it another one; so do FLUSH TABLES, and a server that keeps no more tables open.
	number uint64
}

// A suspect is a statement in the log that may have changed a definition. The zero value is
// none.
type suspect struct {
	at  place
	sql string // its beginning
}

// A stretch is a part of the log that was looked at: of the statements that may have changed
// a definition it keeps the last for each table.
type stretch struct {
	from, to  place
	tables    map[capture.TableID]suspect // by names in lower case
	databases map[string]suspect
	any       suspect
}

func stretchAt(p place) stretch {
	return stretch{from: p, to: p, tables: make(map[capture.TableID]suspect), databases: make(map[string]suspect)}
}

// note takes up a statement.
func (s *stretch) note(q *statement, at suspect) {
	if q.definesAny || len(s.tables)+len(s.databases) >= maxTables {
		s.any = at
		return
	}
	if q.definesIn != "" {
		s.databases[q.definesIn] = at
	}
	for _, id := range q.defines {
		s.tables[lower(id)] = at
	}
}

// last is the last statement in the stretch that may have changed the table.
func (s *stretch) last(id capture.TableID) suspect {
	id = lower(id)
	last := s.any
	for _, other := range []suspect{s.databases[id.Schema], s.tables[id]} {
		if other.at.number() > last.at.number() {
			last = other
		}
	}
	return last
}

// proven returns the definition that the table has in the event at hand, which describes it as tm.
func (st *stream) proven(ctx context.Context, tm *tableMap) (*definition, error) {
	id := tm.table
	d := st.proofs[id]
	var err error
	switch {
	case d == nil:
		d, err = st.prove(ctx, id, false)
	case d.number != tm.id:
		err = st.unchanged(ctx, id, d)
	}
	if err != nil {
		return nil, err
	}
	d.number = tm.id
	why := ""
	switch {
	case d.since.at.number() >= st.start.number():
		why = fmt.Sprintf("at %s the log goes on with a statement that may have changed it (%s)", d.since.at, d.since.sql)
	case d.facts == nil:
		why = "the table is gone, or the pipeline's user may not see it, and no statement in the log says so"
	default:
		return d, nil
	}
	return nil, errUnproven(id, why)
}

// errUnproven says why the columns of rows cannot be told.
func errUnproven(id capture.TableID, why string) error {
	return fmt.Errorf("%w: the log does not name the columns of %s (binlog_row_metadata was not FULL when it was written), and today's definition of the table need not be that of these rows: %s; "+
		"remedy: SET GLOBAL binlog_row_metadata = 'FULL', and in the server's configuration, and %s", capture.ErrUnreadable, id, why, readAnew)
}

// prove reads the definition of a table, looks for what may have changed it since the beginning
// of the transaction at hand, and remembers it. Of a table that is not there it says why, if that
// is wanted.
func (st *stream) prove(ctx context.Context, id capture.TableID, present bool) (*definition, error) {
	// It may take long, and what was read before must not wait for it.
	if len(st.batch.Events) > 0 && !st.tx.emitted {
		if err := st.flush(); err != nil {
			return nil, err
		}
	}
	for {
		var d *definition
		err := st.ask(ctx, func(c *conn) (err error) {
			d, err = st.src.catalog.frozen(ctx, c, st.srv, id)
			return err
		})
		if err != nil {
			return nil, err
		}
		if d.facts == nil && present {
			return d, nil
		}
		if err := st.lookTo(ctx, d.to); err != nil {
			return nil, err
		}
		if d.since = st.ahead.last(id); d.since.at.number() >= d.to.number() {
			continue // it came after the catalog was read
		}
		if d.facts != nil {
			if len(st.proofs) >= maxTables {
				clear(st.proofs)
			}
			st.proofs[id] = d
		}
		return d, nil
	}
}

// unchanged stops where a table has another definition than the proven one d, although the log
// says nothing of that.
func (st *stream) unchanged(ctx context.Context, id capture.TableID, d *definition) error {
	var now *definition
	err := st.ask(ctx, func(c *conn) (err error) {
		now, err = readDefinition(ctx, c, st.srv, id)
		return err
	})
	if err != nil {
		return err
	}
	if now.facts == nil || now.equal(d) {
		return nil
	}
	// The log may say it later on.
	if now, err = st.prove(ctx, id, false); err != nil {
		return err
	}
	st.proofs[id] = d
	if now.facts == nil || now.equal(d) || now.since.at.number() >= st.start.number() {
		return nil
	}
	return errUnproven(id, fmt.Sprintf("the table was changed after %s, and no statement in the log says so (sql_log_bin = 0?)", d.to))
}

// equal says whether rows of two definitions are read and shown alike, but for defaults and
// comments.
func (d *definition) equal(other *definition) bool {
	f, g := d.facts, other.facts
	return slices.EqualFunc(f.columns, g.columns, func(a, b columnFacts) bool {
		return a.name == b.name && a.columnType == b.columnType && a.charset == b.charset && a.nullable == b.nullable && a.generated == b.generated
	}) && slices.Equal(f.key, g.key) && slices.Equal(f.rowKey, g.rowKey) && f.keyIndex == g.keyIndex && f.prefixes == g.prefixes && f.hashes == g.hashes &&
		(d.period == nil) == (other.period == nil) && (d.period == nil || d.period.name == other.period.name && d.period.hidden == other.period.hidden)
}

// readDefinition reads what the catalog says of a table now.
func readDefinition(ctx context.Context, db *conn, srv *server, id capture.TableID) (d *definition, err error) {
	d = &definition{}
	if d.facts, err = readFacts(ctx, db, srv, id); err == nil && d.facts != nil && srv.flavour == mariaDB {
		d.period, err = readPeriod(ctx, db, id)
	}
	return d, err
}

// frozen reads the definition of a table and the end of the log as of one moment. The session
// holds the table's metadata lock meanwhile, for which every change of a definition waits, and
// which a server gives away only when the change is logged.
func (c *catalog) frozen(ctx context.Context, db *conn, srv *server, id capture.TableID) (d *definition, err error) {
	if err := db.exec(ctx, "START TRANSACTION READ ONLY"); err != nil {
		return nil, fmt.Errorf("hold the definition of %s: %w", id, err)
	}
	defer func() {
		if e := db.exec(ctx, "ROLLBACK"); err == nil && e != nil {
			err = fmt.Errorf("let the definition of %s go: %w", id, e)
		}
	}()
	d = &definition{}
	var my *mysql.MyError
	switch err := db.exec(ctx, "SELECT 1 FROM "+quoteTable(id)+" LIMIT 0"); {
	case err == nil:
		if d, err = readDefinition(ctx, db, srv, id); err != nil {
			return nil, err
		}
	case errors.As(err, &my) && (my.Code == mysql.ER_NO_SUCH_TABLE || my.Code == mysql.ER_BAD_DB_ERROR):
	default:
		return nil, fmt.Errorf("hold the definition of %s: %w", id, explain(err))
	}
	filtered := false
	if d.to, filtered, err = srv.logStatus(ctx, db); err != nil {
		return nil, err
	}
	if filtered {
		return nil, errUnproven(id, "the server does not log statements of every database (binlog_do_db or binlog_ignore_db), by which it may have been changed")
	}
	return d, nil
}

// lookTo looks at the log from the transaction at hand up to end, but for what was looked at
// already.
func (st *stream) lookTo(ctx context.Context, end place) error {
	a := &st.ahead
	if at := st.tx.begin.number(); at < a.from.number() || at > a.to.number() {
		*a = stretchAt(st.tx.begin)
	}
	began := time.Now()
	for a.to.number() < end.number() {
		before := a.to
		if err := st.look(ctx, end); err != nil {
			return fmt.Errorf("look ahead in the log, from %s to %s, for changes of definitions: %w", before, end, err)
		}
		if a.to != before {
			began = time.Now()
			continue
		}
		// What is not synced to disk yet is not sent.
		if time.Since(began) > st.src.cfg.ReadTimeout {
			return fmt.Errorf("look ahead in the log for changes of definitions: the server says that its log ends at %s, and sends it up to %s", end, a.to)
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// lookNews is how often a look that takes long says so.
const lookNews = 10 * time.Second

// look goes on with the stretch in a session of its own, up to end, or as far as the server
// sends the log. It keeps nothing of what it reads but the statements of the stretch.
func (st *stream) look(ctx context.Context, end place) error {
	st.src.metrics.looks.Inc()
	a, from := &st.ahead, st.ahead.to
	d := dumpRequest{flavour: st.srv.flavour, file: from.File, pos: offset(from)}
	var read place
	news := time.Now().Add(lookNews)
	return st.src.peek(ctx, st.srv, &d, func(h *header, body []byte) (enough bool) {
		switch h.typ {
		case replication.ROTATE_EVENT:
			if p, ok := rotated(body); ok {
				read = p
			}
		case replication.HEARTBEAT_EVENT, replication.HEARTBEAT_LOG_EVENT_V2:
			return false
		default:
			if !h.counts() {
				return false
			}
			start := read
			if read = read.after(h); read.number() <= from.number() {
				return false
			}
			if q, sql := definingIn(h, body, st.srv); q.defining() {
				a.note(&q, suspect{start, sql})
			}
		}
		if read.number() > a.to.number() {
			a.to = read
		}
		if now := time.Now(); now.After(news) {
			news = now.Add(lookNews)
			st.src.log.Info("looking ahead in the log for changes of definitions, since the log does not name the columns of its rows", "at", a.to.String(), "end", end.String())
		}
		return a.to.number() >= end.number()
	})
}

// definingIn returns the statement in an event, and its beginning if that may change a
// definition. What it cannot read may change any. Compressed transactions hold rows alone.
func definingIn(h *header, body []byte, srv *server) (s statement, sql string) {
	switch h.typ {
	case replication.QUERY_EVENT, replication.MARIADB_QUERY_COMPRESSED_EVENT:
		q, err := parseQuery(h.typ, body)
		if err != nil {
			return statement{definesAny: true}, "of a form that headwater does not know"
		}
		if s = readStatement(q.schema, q.text, dialectOf(q.status, srv.foldsNames())); s.defining() {
			sql = beginning(q.text)
		}
		return s, sql
	case replication.TABLE_MAP_EVENT, replication.XID_EVENT, replication.XA_PREPARE_LOG_EVENT, replication.TRANSACTION_PAYLOAD_EVENT,
		replication.GTID_EVENT, replication.ANONYMOUS_GTID_EVENT, replication.GTID_TAGGED_LOG_EVENT, replication.MARIADB_GTID_EVENT,
		replication.EXECUTE_LOAD_QUERY_EVENT, replication.FORMAT_DESCRIPTION_EVENT, replication.INCIDENT_EVENT:
		return s, ""
	}
	if isRows(h.typ) || h.saysNothing() {
		return s, ""
	}
	return statement{definesAny: true}, fmt.Sprintf("an event of the unknown type %d", h.typ)
}

// redefine takes a statement that may change definitions: what was proven of them before it is
// void. Where the log does not name columns, it proves the new definition at once, since the
// next statement may follow before the next row has come. That it could not is no error: the
// next row asks again.
func (st *stream) redefine(ctx context.Context, s *statement) error {
	if !s.defining() && s.offers.Name == "" {
		return nil
	}
	for id, d := range st.proofs {
		if s.mayDefine(id) && st.start.number() >= d.to.number() {
			delete(st.proofs, id)
		}
	}
	// A server that was started anew in the middle of the log numbers tables from the beginning.
	for number, t := range st.tables {
		if t.lent && s.mayDefine(t.tm.table) {
			delete(st.tables, number)
		}
	}
	if !st.nameless || st.tx.skip {
		return nil
	}
	for _, id := range append(s.defines, s.offers) {
		if id.Name == "" || !st.src.captures(id) || st.proofs[id] != nil {
			continue
		}
		if err := st.proveSoon(ctx, id); err != nil {
			return err
		}
	}
	return nil
}

// proveSoon is prove without waiting long for whoever holds the table.
func (st *stream) proveSoon(ctx context.Context, id capture.TableID) error {
	soon, later := "SET lock_wait_timeout = 1", "SET "+st.src.lockWait()
	set := func(sql string) error {
		return st.ask(ctx, func(c *conn) error { return c.exec(ctx, sql) })
	}
	if err := set(soon); err != nil {
		return st.readError(err)
	}
	_, err := st.prove(ctx, id, true)
	if e := set(later); e != nil {
		return st.readError(e)
	}
	var failed *emitError
	if errors.As(err, &failed) {
		return err
	}
	if err != nil {
		st.src.log.Debug("could not read the definition of a table right after a statement that may have changed it", "table", id.String(), "place", st.start.String(), "error", err)
	}
	return nil
}

// unnamed makes a table of the log out of what is proven of it, for rows that XA held since they
// were prepared.
func (st *stream) unnamed(ctx context.Context, tm *tableMap) (*logTable, error) {
	var d *definition
	if held := st.tx.held; held != nil {
		d = held.definitions[tm.table]
	} else {
		var err error
		if d, err = st.proven(ctx, tm); err != nil {
			return nil, err
		}
	}
	return st.src.catalog.fromDefinition(st.srv, tm, d)
}

// fromDefinition makes what the rows that follow tm, whose columns are not named, are read and
// shown by.
func (c *catalog) fromDefinition(srv *server, tm *tableMap, d *definition) (*logTable, error) {
	named, err := tm.namedBy(d)
	if err != nil {
		return nil, err
	}
	t := &logTable{tm: named, lent: true}
	if isSequence(named) {
		return t, nil
	}
	if t.plan, err = newPlan(c.origin(srv.flavour, tm.table.Schema), named, d.facts); err != nil {
		return nil, err
	}
	if d.period != nil {
		if t.history = *d.period; !t.history.of(named) {
			return nil, errUnproven(tm.table, "its period for system versioning is of another form")
		}
	}
	t.show(c)
	return t, nil
}

// namedBy returns m with what binlog_row_metadata = FULL adds, taken from a definition with
// which m agrees in all that it says itself.
func (m *tableMap) namedBy(d *definition) (*tableMap, error) {
	known := make([]logColumn, 0, len(d.facts.columns)+2)
	for i := range d.facts.columns {
		f := &d.facts.columns[i]
		c, err := f.describe(d.facts.mariadb)
		if err != nil {
			return nil, fmt.Errorf("%w: column %s of %s: %w", capture.ErrUnreadable, f.name, m.table, err)
		}
		if c.blursLabels() {
			return nil, errUnproven(m.table, fmt.Sprintf("the catalog has a question mark in a label of column %s, which it also has for characters of four bytes", c.name))
		}
		known = append(known, c)
	}
	key := d.facts.logKey(known)
	if d.period != nil {
		if d.period.hidden > 0 {
			known = append(known, logColumn{name: "row_start", typ: typeTimestamp2, meta: 6}, logColumn{name: d.period.name, typ: typeTimestamp2, meta: 6})
		}
		end := slices.IndexFunc(known, func(c logColumn) bool { return strings.EqualFold(c.name, d.period.name) })
		if len(key) > 0 && end >= 0 {
			key = append(key, end)
		}
	}
	if len(known)+d.facts.hashes == len(m.columns) {
		for i := range d.facts.hashes {
			known = append(known, logColumn{name: fmt.Sprintf("DB_ROW_HASH_%d", i+1), typ: typeLongLong, unsigned: true, nullable: m.columns[len(known)].nullable})
		}
	}
	if len(known) != len(m.columns) {
		return nil, errUnproven(m.table, fmt.Sprintf("it has %d columns and they have %d, and no statement in the log says so (or the server hides some, such as early MySQL 8.0 those of functional indexes)", len(known), len(m.columns)))
	}
	out := *m
	out.columns, out.key, out.named = slices.Clone(m.columns), key, true
	for i := range out.columns {
		c, k := &out.columns[i], &known[i]
		c.name, c.labels, c.invisible = k.name, k.labels, k.invisible
		if !m.signs {
			c.unsigned = k.unsigned
		}
		if !m.shapes {
			c.geometry = k.geometry
		}
		if c.charset == nil {
			c.charset = k.charset
		}
		if !c.agrees(k) && !c.losesFraction(k) {
			return nil, errUnproven(m.table, fmt.Sprintf("it describes column %d (%s) otherwise than the log does, and no statement in the log says so", i+1, c.name))
		}
	}
	return &out, nil
}

// offset is the place in its file as a dump request has it: beyond what that can say, reading
// begins with the file.
func offset(p place) uint32 {
	if p.Pos>>32 != 0 {
		return 4
	}
	return uint32(p.Pos)
}
