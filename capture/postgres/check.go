package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/headwaterdb/headwater/capture"
)

// Check reports every prerequisite that is missing, with the SQL that mends it.
func (s *Source) Check(ctx context.Context) error {
	c := &checker{src: s}
	if err := c.run(ctx); err != nil {
		return err
	}
	return errors.Join(c.findings...)
}

// Definitions returns the definitions of the captured tables as the catalog has them now,
// those that are still to be published among them.
func (s *Source) Definitions(ctx context.Context) ([]*capture.Table, error) {
	c := &checker{src: s}
	var err error
	if c.conn, err = s.connect(ctx, false, nil); err != nil {
		return nil, err
	}
	defer closeConn(c.conn)
	for _, step := range []func(context.Context) error{c.server, c.publication} {
		if err := step(ctx); err != nil {
			return nil, fmt.Errorf("list the captured tables: %w", err)
		}
	}
	var out []*capture.Table
	for _, t := range c.willCapture() {
		def, err := s.catalog.current(ctx, c.conn, c.srv, &t)
		if err != nil {
			return nil, err
		}
		out = append(out, def)
	}
	return out, nil
}

// A checker collects findings. Its steps are methods, run in order; one that cannot
// look because an earlier one found something says nothing.
type checker struct {
	src  *Source
	conn *pgconn.PgConn
	user string // quoted
	srv  *server
	pub  *publication

	tables   []tableInfo
	findings []error
}

func (c *checker) fault(remedy, format string, args ...any) {
	c.findings = append(c.findings, &capture.Finding{What: fmt.Sprintf(format, args...), Remedy: remedy})
}

func (c *checker) warn(remedy, format string, args ...any) {
	c.findings = append(c.findings, &capture.Finding{What: fmt.Sprintf(format, args...), Remedy: remedy, Warning: true})
}

// report turns an error that says what is wrong and what mends it into a finding.
func (c *checker) report(err error) {
	text := err.Error()
	for _, sentinel := range []error{capture.ErrMisconfigured, capture.ErrPositionLost} {
		text = strings.TrimPrefix(text, sentinel.Error()+": ")
	}
	what, remedy, _ := strings.Cut(text, "; remedy: ")
	c.fault(remedy, "%s", what)
}

// run fails only when asking fails; what is wrong becomes a finding.
func (c *checker) run(ctx context.Context) error {
	var err error
	if c.conn, err = c.src.connect(ctx, false, nil); err != nil {
		c.report(err)
		return ctx.Err()
	}
	defer closeConn(c.conn)
	for _, step := range []func(context.Context) error{c.server, c.replication, c.slot, c.publication, c.coverage, c.rows} {
		if err := step(ctx); err != nil {
			return fmt.Errorf("check the database: %w", err)
		}
	}
	return nil
}

// server looks at version and settings.
func (c *checker) server(ctx context.Context) error {
	row, err := queryRow(ctx, c.conn, `SELECT current_setting('server_version_num'), current_setting('wal_level'), pg_is_in_recovery(),
		current_setting('max_replication_slots'), (SELECT count(*) FROM pg_replication_slots),
		EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = `+quoteLiteral(c.src.cfg.Slot)+`),
		current_setting('max_wal_senders'), (SELECT count(*) FROM pg_stat_replication),
		(SELECT pg_encoding_to_char(encoding) FROM pg_database WHERE datname = current_database()), current_database(),
		EXISTS (SELECT FROM pg_stat_replication r JOIN pg_replication_slots s ON s.active_pid = r.pid WHERE s.slot_name = `+quoteLiteral(c.src.cfg.Slot)+`), quote_ident(current_user),
		coalesce(current_setting('synchronized_standby_slots', true), '')`)
	if err != nil {
		return err
	}
	version, err1 := strconv.Atoi(row[0])
	maxSlots, err2 := strconv.Atoi(row[3])
	slots, err3 := strconv.Atoi(row[4])
	maxSenders, err4 := strconv.Atoi(row[6])
	senders, err5 := strconv.Atoi(row[7])
	if err := errors.Join(err1, err2, err3, err4, err5); err != nil {
		return err
	}
	c.user = row[11]
	c.srv = &server{Version: version, InRecovery: row[2] == "t", DatabaseName: row[9]}
	if c.srv.major() < 13 {
		c.fault("upgrade the server", "the server is PostgreSQL %d; headwater reads 13 and newer", c.srv.major())
	}
	if row[1] != "logical" {
		c.fault("ALTER SYSTEM SET wal_level = logical; then restart the server", "wal_level is %s, and without logical the log does not describe rows", row[1])
	}
	if c.srv.InRecovery && c.srv.major() < 16 {
		c.fault("let url name the primary", "the server is a standby, and decoding the log on a standby takes PostgreSQL 16")
	}
	if haveSlot := row[5] == "t"; !haveSlot && slots >= maxSlots {
		c.fault(fmt.Sprintf("ALTER SYSTEM SET max_replication_slots = %d; then restart the server", max(maxSlots*2, 10)),
			"all %d replication slots (max_replication_slots) are taken", maxSlots)
	}
	if streaming := row[10] == "t"; !streaming && senders >= maxSenders {
		c.fault(fmt.Sprintf("ALTER SYSTEM SET max_wal_senders = %d; then restart the server", max(maxSenders*2, 10)),
			"all %d WAL senders (max_wal_senders) are taken", maxSenders)
	}
	if c.src.cfg.SlotFailover && c.srv.major() < 17 {
		c.warn("", "slot_failover needs PostgreSQL 17: on this server standbys do not keep the slot")
	}
	if c.src.cfg.SlotFailover && row[12] == "" && c.srv.major() >= 17 {
		c.warn("ALTER SYSTEM SET synchronized_standby_slots = 'the physical slots of the standbys'; then SELECT pg_reload_conf()",
			"synchronized_standby_slots is empty, so that changes can be captured which a standby that is promoted then does not have")
	}
	if row[8] == "SQL_ASCII" {
		c.warn("leave tables with such text out, or repair it", "database %q has the encoding SQL_ASCII, so its text may not be UTF-8; a text that is not stops the pipeline", c.srv.DatabaseName)
	}
	return nil
}

// replication tries a replication connection, which takes a right of its own.
func (c *checker) replication(ctx context.Context) error {
	repl, err := c.src.connect(ctx, true, nil)
	switch {
	case err == nil:
		closeConn(repl)
	case ctx.Err() != nil:
		return err
	default:
		c.report(err)
	}
	return nil
}

// slot looks at the replication slot.
func (c *checker) slot(ctx context.Context) error {
	sl, err := c.src.readSlot(ctx, c.conn, c.srv)
	if err != nil {
		return err
	}
	name := quoteLiteral(c.src.cfg.Slot)
	switch {
	case sl == nil && c.src.cfg.SlotMode == SlotExisting:
		c.fault("SELECT pg_create_logical_replication_slot("+name+", 'pgoutput'), after the publication", "there is no replication slot %q", c.src.cfg.Slot)
	case sl == nil:
	default:
		if err := c.src.usable(sl, c.srv); err != nil {
			c.report(err)
			return nil
		}
		if sl.ActivePID != "" {
			c.warn("none, if that is this pipeline at work; else stop the other reader, or choose another slot", "slot %q is being read by process %s", c.src.cfg.Slot, sl.ActivePID)
		}
		if c.src.cfg.SlotFailover && c.srv.major() >= 17 && !sl.Failover {
			c.warn("ALTER_REPLICATION_SLOT "+c.src.cfg.Slot+" (FAILOVER true), on a replication connection, while nobody reads the slot",
				"slot %q was made without failover, so that standbys do not keep it", c.src.cfg.Slot)
		}
	}
	return nil
}

// publication looks for it, and for the rights to make it.
func (c *checker) publication(ctx context.Context) error {
	var err error
	if c.pub, err = c.src.readPublication(ctx, c.conn, c.srv); err != nil {
		return err
	}
	if c.tables, err = c.src.readTables(ctx, c.conn, c.srv); err != nil {
		return err
	}
	sql, err := c.src.publicationSQL(ctx, c.conn, c.srv, c.pub)
	if err != nil {
		return err
	}
	name := c.src.cfg.Publication
	make := c.src.cfg.PublicationMode != PublicationExisting && !c.srv.InRecovery
	switch {
	case c.pub == nil && !make:
		c.fault(sql, "there is no publication %q", name)
	case c.pub == nil && c.src.cfg.PublicationMode == PublicationAll:
		row, err := queryRow(ctx, c.conn, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user")
		if err != nil {
			return err
		}
		if row[0] != "t" {
			c.fault("let a superuser run: "+sql, "publication %q FOR ALL TABLES can be created only by a superuser", name)
		}
	case c.pub == nil:
		row, err := queryRow(ctx, c.conn, "SELECT has_database_privilege(current_database(), 'CREATE')")
		if err != nil {
			return err
		}
		if row[0] != "t" {
			c.fault("GRANT CREATE ON DATABASE "+quoteIdent(c.srv.DatabaseName)+" TO "+c.user+"; or let a superuser run: "+sql,
				"the user must not create publication %q", name)
		}
	}
	missing := c.src.unpublished(c.tables)
	if c.pub != nil && c.pub.AllTables || c.pub == nil && c.src.cfg.PublicationMode == PublicationAll {
		return nil
	}
	var foreign []string
	for _, t := range missing {
		if !t.Owned {
			foreign = append(foreign, t.ID.String())
		}
	}
	switch {
	case c.pub != nil && len(missing) > 0 && !make:
		c.fault(sql, "publication %q lacks %d captured tables: %s", name, len(missing), some(ids(missing)))
	case make && len(foreign) > 0:
		c.fault("let their owner or a superuser run: "+sql, "the user does not own %s and so cannot publish them", some(foreign))
	}
	if p := c.pub; p != nil && !(p.Insert && p.Update && p.Delete) {
		c.warn("ALTER PUBLICATION "+quoteIdent(name)+" SET (publish = 'insert, update, delete, truncate')",
			"publication %q leaves out some of insert, update and delete: such changes are not captured", name)
	}
	return nil
}

// coverage compares what the configuration names with what there is.
func (c *checker) coverage(context.Context) error {
	for _, f := range c.src.uncovered(c.tables) {
		c.findings = append(c.findings, f)
	}
	if len(c.willCapture()) == 0 {
		c.findings = append(c.findings, noTable)
	}
	return nil
}

// noTable is what to say when nothing can come.
var noTable = &capture.Finding{What: "no table is captured", Warning: true}

// uncovered says which globs match none of the database's tables.
func (s *Source) uncovered(tables []tableInfo) []*capture.Finding {
	all := make([]capture.TableID, len(tables))
	for i, t := range tables {
		all[i] = t.ID
	}
	there := "and the database has none"
	if len(tables) > 0 {
		there = "and those of the database are " + some(ids(tables))
	}
	var out []*capture.Finding
	for i, hit := range s.filter.Included(all) {
		if !hit {
			out = append(out, &capture.Finding{What: fmt.Sprintf("tables.include: %q matches no table, %s", s.cfg.Tables.Include[i], there), Warning: true})
		}
	}
	return out
}

// willCapture picks the tables that are captured once the publication is as it should.
func (c *checker) willCapture() []tableInfo {
	var out []tableInfo
	viaRoot := c.pub != nil && c.pub.ViaRoot
	for _, t := range c.tables {
		if !c.src.filter.Selects(t.ID, t.Ancestors...) {
			continue
		}
		if t.Published || !viaRoot && t.Kind == "r" {
			out = append(out, t)
		}
	}
	return out
}

// rows looks at what the log says of each table's rows, and whether they may be read.
func (c *checker) rows(ctx context.Context) error {
	tables := c.willCapture()
	keys, err := readKeys(ctx, c.conn, tables)
	if err != nil {
		return err
	}
	var unreadable, unreadableIn, keyless, hidden []string
	for _, t := range tables {
		k := keys[t.OID]
		if k == nil {
			continue // dropped meanwhile
		}
		if f := k.refusal(&t); f != nil {
			c.findings = append(c.findings, f)
		}
		if len(k.Key) == 0 {
			keyless = append(keyless, t.ID.String())
		}
		if !t.Readable {
			unreadable = append(unreadable, quoteTable(t.ID))
			unreadableIn = append(unreadableIn, quoteIdent(t.ID.Schema))
		}
		if k.Policies {
			hidden = append(hidden, t.ID.String())
		}
		def, err := c.src.catalog.current(ctx, c.conn, c.srv, &t)
		if err != nil {
			return err
		}
		if unmapped := unmappedColumns(def); len(unmapped) > 0 {
			c.warn("", "types without a mapping: %s of %s; unknown.types says what becomes of them", some(unmapped), t.ID)
		}
		if len(k.Generated) > 0 && !(c.pub != nil && c.pub.Generated) {
			c.warn("", "the stored generated columns %s of %s are not in the log and so not captured", some(k.Generated), t.ID)
		}
	}
	if len(unreadable) > 0 {
		slices.Sort(unreadableIn)
		remedy := "GRANT SELECT ON " + strings.Join(unreadable, ", ") + " TO " + c.user +
			"; GRANT USAGE ON SCHEMA " + strings.Join(slices.Compact(unreadableIn), ", ") + " TO " + c.user
		if c.src.scan != nil {
			c.fault(remedy, "the user must not read %s, whose rows are to be read", some(unreadable))
		} else {
			c.warn(remedy, "the user must not read %s: rows that exist already cannot be captured", some(unreadable))
		}
	}
	if len(keyless) > 0 {
		c.warn("give each a primary key, or ALTER TABLE … REPLICA IDENTITY FULL to let updates and deletes through",
			"without primary key or unique index: %s; the records of each go to one partition, without a key", some(keyless))
	}
	if len(hidden) > 0 {
		c.fault("ALTER ROLE "+c.user+" BYPASSRLS", "row-level security hides rows of %s from the user, and the log does not", some(hidden))
	}
	return nil
}

// unmappedColumns names the columns whose types have no mapping, with the type.
func unmappedColumns(t *capture.Table) []string {
	var out []string
	for i := range t.Columns {
		if typ := &t.Columns[i].Type; typ.Unmapped || typ.Elem != nil && typ.Elem.Unmapped {
			out = append(out, fmt.Sprintf("%q (%s)", t.Columns[i].Name, typ.Name))
		}
	}
	return out
}

// tableKeys is what identifies the rows of a table.
type tableKeys struct {
	// Key names the columns of the record key: of the primary key, else of the first
	// unique index by name without expressions.
	Key []string
	// RowKey names the columns that order and identify rows: of the primary key, else of
	// the first unique index over NOT NULL columns without a condition.
	RowKey []string
	// Index is the index that Key comes from.
	Index string
	// Primary says that it is the primary key; Usable that it could be a replica identity.
	Primary, Usable bool
	// Logged names the columns that the log repeats of the old row; All says that it
	// repeats every one.
	Logged    []string
	All       bool
	Generated []string
	// Policies says that row-level security applies to the user.
	Policies bool
}

// readKeys returns the keys of tables by their OID.
func readKeys(ctx context.Context, conn *pgconn.PgConn, tables []tableInfo) (map[string]*tableKeys, error) {
	out := make(map[string]*tableKeys, len(tables))
	if len(tables) == 0 {
		return out, nil
	}
	oids := make([]string, len(tables))
	for i, t := range tables {
		oids[i] = t.OID
	}
	rows, err := query(ctx, conn, `SELECT c.oid, c.relreplident, row_security_active(c.oid),
			(SELECT coalesce(json_agg(a.attname ORDER BY a.attnum), '[]')::text FROM pg_attribute a
				WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = 's'),
			(SELECT coalesce(json_agg(json_build_object('name', ic.relname, 'primary', i.indisprimary, 'identity', i.indisreplident,
					'usable', i.indimmediate AND i.indpred IS NULL AND NOT EXISTS (SELECT FROM pg_attribute a
						WHERE a.attrelid = c.oid AND a.attnum = ANY (i.indkey::int2[]) AND NOT a.attnotnull),
					'columns', (SELECT json_agg(a.attname ORDER BY k.n) FROM unnest(i.indkey::int2[]) WITH ORDINALITY k(attnum, n)
						JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum WHERE k.n <= i.indnkeyatts))
				ORDER BY NOT i.indisprimary, ic.relname), '[]')::text
				FROM pg_index i JOIN pg_class ic ON ic.oid = i.indexrelid
				WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND i.indexprs IS NULL)
		FROM pg_class c WHERE c.oid IN (`+strings.Join(oids, ", ")+`)`)
	if err != nil {
		return nil, fmt.Errorf("read the keys of the tables: %w", err)
	}
	for _, r := range rows {
		k := &tableKeys{Policies: r[2] == "t"}
		var indexes []struct {
			Name                      string
			Primary, Identity, Usable bool
			Columns                   []string
		}
		if err := errors.Join(parseJSON(r[3], &k.Generated), parseJSON(r[4], &indexes)); err != nil {
			return nil, fmt.Errorf("read the keys of the tables: %w", err)
		}
		if len(indexes) > 0 {
			k.Key, k.Index, k.Primary, k.Usable = indexes[0].Columns, indexes[0].Name, indexes[0].Primary, indexes[0].Usable
		}
		for _, i := range indexes {
			if i.Usable {
				k.RowKey = i.Columns
				break
			}
		}
		k.All = r[1] == "f"
		for _, i := range indexes {
			if r[1] == "d" && i.Primary || r[1] == "i" && i.Identity {
				k.Logged = i.Columns
			}
		}
		out[r[0]] = k
	}
	return out, nil
}

// refusal is why the table cannot be captured exactly, nil when it can: deletions and
// key changes are written under the old key, so the log must repeat its columns, and
// the publication must let them through.
func (k *tableKeys) refusal(t *tableInfo) *capture.Finding {
	name := quoteTable(t.ID)
	if len(k.Key) == 0 {
		return nil
	}
	for _, col := range k.Key {
		if t.Columns != nil && !slices.Contains(t.Columns, col) {
			return &capture.Finding{
				What:   fmt.Sprintf("the publication leaves out column %q of %s, which belongs to its key", col, t.ID),
				Remedy: "publish the column",
			}
		}
	}
	if k.All || !slices.ContainsFunc(k.Key, func(col string) bool { return !slices.Contains(k.Logged, col) }) {
		return nil
	}
	remedy := "ALTER TABLE " + name + " REPLICA IDENTITY FULL"
	switch {
	case k.Primary:
		remedy = "ALTER TABLE " + name + " REPLICA IDENTITY DEFAULT"
	case k.Usable:
		remedy = "ALTER TABLE " + name + " REPLICA IDENTITY USING INDEX " + quoteIdent(k.Index)
	}
	return &capture.Finding{
		What: fmt.Sprintf("the log does not repeat the key columns (%s) of %s in deletes and key changes, which could then not be written under the right key",
			strings.Join(k.Key, ", "), t.ID),
		Remedy: remedy,
	}
}

// refuse returns what keeps captured tables from being captured exactly, and logs what may have been
// meant otherwise.
func (s *Source) refuse(ctx context.Context, conn *pgconn.PgConn, srv *server) error {
	tables, err := s.readTables(ctx, conn, srv)
	if err != nil {
		return err
	}
	warnings := s.uncovered(tables)
	if tables = s.captured(tables); len(tables) == 0 {
		warnings = append(warnings, noTable)
	}
	for _, f := range warnings {
		s.log.Warn(f.What)
	}
	keys, err := readKeys(ctx, conn, tables)
	if err != nil {
		return err
	}
	var errs []error
	for i := range tables {
		if k := keys[tables[i].OID]; k != nil {
			if f := k.refusal(&tables[i]); f != nil {
				errs = append(errs, f)
			}
		}
	}
	if len(errs) > 0 {
		return fmt.Errorf("%w: %w", capture.ErrMisconfigured, errors.Join(errs...))
	}
	return nil
}

func ids(tables []tableInfo) []string {
	out := make([]string, len(tables))
	for i, t := range tables {
		out[i] = t.ID.String()
	}
	return out
}

// some lists the first few of many.
func some(names []string) string {
	const most = 10
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return strings.Join(names[:most], ", ") + fmt.Sprintf(" and %d more", len(names)-most)
}
