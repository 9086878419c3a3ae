package mysql

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/go-mysql-org/go-mysql/mysql"

	"github.com/headwaterdb/headwater/capture"
)

// Check reports every prerequisite that is missing, with the statement that mends it.
func (s *Source) Check(ctx context.Context) error {
	c := &checker{src: s}
	if err := c.run(ctx); err != nil {
		return err
	}
	return errors.Join(c.findings...)
}

// Definitions returns the definitions of the captured tables as the catalog has them now.
func (s *Source) Definitions(ctx context.Context) ([]*capture.Table, error) {
	conn, err := s.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.close()
	srv, err := s.identify(ctx, conn)
	if err != nil {
		return nil, err
	}
	tables, err := s.readTables(ctx, conn)
	if err != nil {
		return nil, err
	}
	var out []*capture.Table
	for _, t := range tables {
		p, err := s.catalog.fromTable(ctx, conn, srv, t.ID)
		if err != nil {
			return nil, err
		}
		if p != nil { // else it was dropped meanwhile
			out = append(out, p.table)
		}
	}
	return out, nil
}

// A checker collects findings. Its steps are methods, run in order; one that cannot look
// because an earlier one found something says nothing.
type checker struct {
	src  *Source
	conn *conn
	user string // as GRANT wants it
	srv  *server

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
	if c.conn, err = c.src.connect(ctx); err != nil {
		c.report(err)
		return ctx.Err()
	}
	defer c.conn.close()
	if c.srv, err = c.src.identify(ctx, c.conn); errors.Is(err, capture.ErrMisconfigured) {
		c.report(err)
		return nil
	} else if err != nil {
		return err
	}
	for _, step := range []func(context.Context) error{c.settings, c.rights, c.serverID, c.replica, c.coverage, c.rows, c.cascades} {
		if err := step(ctx); err != nil {
			return fmt.Errorf("check the server: %w", err)
		}
	}
	return nil
}

// settingFaults are the settings under which rows cannot be captured exactly.
func (srv *server) settingFaults() []*capture.Finding {
	var out []*capture.Finding
	fault := func(remedy, format string, args ...any) {
		out = append(out, &capture.Finding{What: fmt.Sprintf(format, args...), Remedy: remedy})
	}
	if f := srv.vars["binlog_format"]; f != "" && f != "ROW" {
		fault("SET GLOBAL binlog_format = 'ROW', and in the server's configuration; sessions that are open keep the old one until they connect again",
			"binlog_format is %s, so that the log holds statements in place of rows", f)
	}
	if srv.vars["lower_case_table_names"] == "2" {
		fault("keep the server's tables on a file system that tells names by case, or set lower_case_table_names = 1 before the server is initialized",
			"lower_case_table_names is 2, so that statements and rows call one table by several names")
	}
	if i := srv.vars["binlog_row_image"]; i == "MINIMAL" {
		fault("SET GLOBAL binlog_row_image = 'FULL', and in the server's configuration",
			"binlog_row_image is MINIMAL, so that the log leaves out what the server puts into new rows by itself")
	}
	return out
}

// unnamed is what to say of a log that does not name columns; nil if it does.
func (srv *server) unnamed() *capture.Finding {
	m := srv.vars["binlog_row_metadata"]
	if m == "FULL" {
		return nil
	}
	return &capture.Finding{
		What: fmt.Sprintf("binlog_row_metadata is %s, so that the log does not name the columns of its rows: they are called as the catalog has them, "+
			"and the pipeline stops where a table may have been altered between its rows and the moment in which they are read; a change with sql_log_bin = 0 is not noticed where types stay the same", m),
		Remedy:  "SET GLOBAL binlog_row_metadata = 'FULL', and in the server's configuration: rows then say themselves what their columns are, however late they are read",
		Warning: true,
	}
}

// refuse returns what keeps tables from being captured exactly, and logs what may have been meant
// otherwise.
func (s *Source) refuse(ctx context.Context, c *conn, srv *server) error {
	seen, err := s.survey(ctx, c)
	if err != nil {
		return err
	}
	for _, f := range seen.warnings {
		s.warn(f)
	}
	return refusal(append(srv.settingFaults(), seen.faults...))
}

// warn logs a finding that stops nothing.
func (s *Source) warn(f *capture.Finding) {
	if f.Remedy == "" {
		s.log.Warn(f.What)
		return
	}
	s.log.Warn(f.What, "remedy", f.Remedy)
}

// refusal makes an error of findings, nil of none.
func refusal(faults []*capture.Finding) error {
	if len(faults) == 0 {
		return nil
	}
	errs := make([]error, len(faults))
	for i, f := range faults {
		errs[i] = f
	}
	return fmt.Errorf("%w: %w", capture.ErrMisconfigured, errors.Join(errs...))
}

// settings looks at those that decide what is in the log and how long.
func (c *checker) settings(context.Context) error {
	for _, f := range c.srv.settingFaults() {
		c.findings = append(c.findings, f)
	}
	if f := c.srv.unnamed(); f != nil {
		c.findings = append(c.findings, f)
	}
	v := c.srv.vars
	if v["binlog_row_image"] == "NOBLOB" {
		c.warn("SET GLOBAL binlog_row_image = 'FULL'", "binlog_row_image is NOBLOB: records of updates leave out the text and blob columns that did not change")
	}
	if v["binlog_row_value_options"] != "" {
		c.warn("SET GLOBAL binlog_row_value_options = ''", "binlog_row_value_options is %s: updates of JSON columns are put together from the old value and what changed", v["binlog_row_value_options"])
	}
	if c.srv.flavour == mySQL && !c.srv.gtids {
		const turnOn = "SET GLOBAL enforce_gtid_consistency = ON; SET GLOBAL gtid_mode = OFF_PERMISSIVE; SET GLOBAL gtid_mode = ON_PERMISSIVE; SET GLOBAL gtid_mode = ON; and in the server's configuration"
		if c.src.cfg.Snapshot && c.src.cfg.SnapshotLock != LockAllow {
			c.fault(turnOn+"; or snapshot_lock: allow with GRANT LOCK TABLES; or snapshot.mode: never",
				"gtid_mode is %s: nothing tells which transactions a read of a table holds, so that none is read without locking it against writes for a moment", v["gtid_mode"])
		} else {
			c.warn(turnOn, "gtid_mode is %s: the pipeline is bound to this one server", v["gtid_mode"])
		}
	}
	if c.srv.flavour == mariaDB && v["gtid_strict_mode"] != "ON" {
		c.warn("SET GLOBAL gtid_strict_mode = ON", "gtid_strict_mode is OFF: servers may log a domain in different orders, or one number twice, and exactly once depends on that after a failover")
	}
	const day = 24 * 60 * 60
	if n, err := strconv.ParseFloat(v["binlog_expire_logs_seconds"], 64); err == nil && n > 0 && n < day {
		c.warn(fmt.Sprintf("SET GLOBAL binlog_expire_logs_seconds = %d", 3*day),
			"the server keeps its log for %.1f hours (binlog_expire_logs_seconds): a pipeline that stands still for longer must read all tables again", n/3600)
	}
	return nil
}

// rights tries what the pipeline will do.
func (c *checker) rights(ctx context.Context) error {
	var err error
	if c.user, err = grantee(ctx, c.conn); err != nil {
		return err
	}
	end, err := c.srv.end(ctx, c.conn)
	if errors.Is(err, capture.ErrMisconfigured) {
		c.fault("GRANT REPLICATION CLIENT ON *.* TO "+c.user, "the user must not ask where the log ends")
		return nil
	} else if err != nil {
		return err
	}
	at := position{At: end}
	if at.GTIDs, err = c.srv.executed(ctx, c.conn); err != nil {
		return err
	}
	err = c.src.probe(ctx, c.srv, &at)
	if errors.Is(err, capture.ErrMisconfigured) {
		c.fault("GRANT REPLICATION SLAVE ON *.* TO "+c.user, "the user must not read the log")
		return nil
	}
	if err != nil {
		c.report(err)
	}
	if _, err := c.conn.query(ctx, "XA RECOVER"); err != nil {
		var my *mysql.MyError
		if !errors.As(err, &my) {
			return err
		}
		c.warn("GRANT XA_RECOVER_ADMIN ON *.* TO "+c.user,
			"the user must not list prepared XA transactions: a pipeline that begins while there are some stops when one is committed")
	}
	return nil
}

// refuseServerID says who has our server id already.
func (s *Source) refuseServerID(ctx context.Context, c *conn, srv *server) error {
	ours := strconv.FormatUint(uint64(s.cfg.ServerID), 10)
	if srv.vars["server_id"] == ours {
		return fmt.Errorf("%w: server_id %s is the server's own; remedy: choose another number for server_id", capture.ErrMisconfigured, ours)
	}
	sql := "SHOW SLAVE HOSTS"
	if srv.flavour == mySQL && srv.atLeast(8, 2) {
		sql = "SHOW REPLICAS"
	}
	rows, err := c.query(ctx, sql)
	if err != nil {
		var my *mysql.MyError
		if errors.As(err, &my) {
			return nil // MariaDB shows the list to few
		}
		return fmt.Errorf("list the replicas: %w", err)
	}
	for _, r := range rows {
		if r[0] == ours && r[1] != s.replicaName() {
			return fmt.Errorf("%w: server_id %s belongs to the replica %q of the server, and two with one number end each other; remedy: choose another number for server_id",
				capture.ErrMisconfigured, ours, r[1])
		}
	}
	return nil
}

func (c *checker) serverID(ctx context.Context) error {
	err := c.src.refuseServerID(ctx, c.conn, c.srv)
	if errors.Is(err, capture.ErrMisconfigured) {
		c.report(err)
		return nil
	}
	return err
}

// replica looks whether the server logs what it gets from another one.
func (c *checker) replica(ctx context.Context) error {
	logs := c.srv.vars["log_replica_updates"]
	if logs == "" {
		logs = c.srv.vars["log_slave_updates"]
	}
	if logs != "OFF" {
		return nil
	}
	sql := "SHOW SLAVE STATUS"
	if c.srv.flavour == mySQL && c.srv.atLeast(8, 2) {
		sql = "SHOW REPLICA STATUS"
	}
	rows, err := c.conn.query(ctx, sql)
	var my *mysql.MyError
	if errors.As(err, &my) {
		return nil // the rights are reported already
	}
	if err != nil {
		return err
	}
	if len(rows) > 0 {
		c.fault("set log_replica_updates = ON (log_slave_updates on MariaDB) in the server's configuration, and restart it",
			"the server is a replica and does not log what it gets from its source (log_replica_updates is OFF)")
	}
	return nil
}

// coverage compares what is configured with what there is and what the user may read.
func (c *checker) coverage(ctx context.Context) error {
	seen, err := c.src.survey(ctx, c.conn)
	if err != nil {
		return err
	}
	c.tables = seen.tables
	for _, f := range slices.Concat(seen.faults, seen.warnings) {
		c.findings = append(c.findings, f)
	}
	return nil
}

// rows looks at each table: what identifies its rows, and what of them is not logged.
func (c *checker) rows(ctx context.Context) error {
	var keyless, plain, unlogged, blurred []string
	for _, t := range c.tables {
		f, err := readFacts(ctx, c.conn, c.srv, t.ID)
		if err != nil {
			return err
		}
		if f == nil {
			continue
		}
		for i := range f.columns {
			name := t.ID.String() + "." + f.columns[i].name
			if f.unlogged && f.columns[i].generated {
				unlogged = append(unlogged, name)
			}
			if l, err := f.columns[i].describe(f.mariadb); err == nil && l.blursLabels() {
				blurred = append(blurred, name)
			}
		}
		if len(f.key) == 0 {
			keyless = append(keyless, t.ID.String())
		}
		if t.Engine != "InnoDB" {
			plain = append(plain, t.ID.String()+" ("+t.Engine+")")
		}
	}
	if len(keyless) > 0 {
		c.warn("give each a primary key", "without primary key or unique index: %s; the records of each go to one partition, without a key", some(keyless))
	}
	if len(unlogged) > 0 {
		remedy := "let the consumer compute them, or let ordinary columns be filled by triggers"
		if !c.srv.atLeast(11, 0) {
			remedy = "SET GLOBAL binlog_row_image = 'FULL', and in the server's configuration; or " + remedy
		}
		c.warn(remedy, "generated columns, which this server leaves out of the log of changed rows (binlog_row_image is %s): %s; they are left out of all records",
			c.srv.vars["binlog_row_image"], some(unlogged))
	}
	if len(blurred) > 0 {
		c.warn("", "labels with a question mark, which may be another character that the server's catalog cannot print: %s; schemas of rows that are read from the table have the question mark until the log has shown the table; values are right in any case", some(blurred))
	}
	if len(plain) > 0 {
		c.warn("ALTER TABLE … ENGINE = InnoDB", "not kept by InnoDB: %s; a read of them shows no single moment, and a crash of the server can leave table and log different", some(plain))
	}
	return nil
}

// cascade finds a foreign key that changes rows, in the statement that makes its table.
var cascade = regexp.MustCompile("(?m)^ +CONSTRAINT `([^\n]+)` FOREIGN KEY .* ON (?:DELETE|UPDATE) (?:CASCADE|SET NULL)")

// cascades looks for foreign keys whose work is not logged.
func (c *checker) cascades(ctx context.Context) error {
	if c.srv.flavour == mySQL && c.srv.atLeast(9, 7) {
		return nil // logs it as rows
	}
	var names []string
	for _, t := range c.tables {
		// information_schema.REFERENTIAL_CONSTRAINTS is empty for users who may only read.
		row, err := c.conn.queryRow(ctx, "SHOW CREATE TABLE "+quoteTable(t.ID))
		var my *mysql.MyError
		if errors.As(err, &my) {
			continue // gone, or reported already
		}
		if err != nil {
			return err
		}
		for _, m := range cascade.FindAllStringSubmatch(row[1], -1) {
			names = append(names, t.ID.String()+" ("+m[1]+")")
		}
	}
	if len(names) > 0 {
		c.warn("let the application change the rows, or let the foreign keys RESTRICT",
			"the engine changes rows by foreign keys without logging them: %s; such changes are not captured", some(names))
	}
	return nil
}

// some lists the first few of many.
func some(names []string) string {
	const most = 10
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return strings.Join(names[:most], ", ") + fmt.Sprintf(" and %d more", len(names)-most)
}
