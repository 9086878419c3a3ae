package mysql

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-mysql-org/go-mysql/mysql"
	"github.com/go-mysql-org/go-mysql/replication"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/headwaterdb/headwater/capture"
)

// A Source reads the binary log of one MySQL or MariaDB server. Its methods may be
// called from several goroutines; at most one Stream runs at a time.
type Source struct {
	cfg     Config
	log     *slog.Logger
	metrics *metrics
	filter  *capture.TableFilter
	catalog *catalog
	// patience is how long Verify waits for a server to catch up with the checkpoint.
	patience time.Duration

	// scan is what Stream and the scanner know together; both are nil until Scanner is
	// called.
	scan    *scanState
	scanner *Scanner

	// cutAt is where Stream met a log that was cut short, for the next Stream.
	cutAt place

	mu        sync.Mutex // guards streaming
	streaming bool
}

var _ capture.Source = (*Source)(nil)

// New returns a source. It does not connect; cfg must have its defaults and be valid.
func New(cfg Config, log *slog.Logger, reg prometheus.Registerer) *Source {
	return &Source{cfg: cfg, log: log, metrics: newMetrics(reg), filter: cfg.Tables.Filter(), catalog: newCatalog(), patience: min(gtidPatience, cfg.ReadTimeout/2)}
}

// Acknowledge only looks at p: the server keeps its log for a time and not for us.
func (s *Source) Acknowledge(_ context.Context, p capture.Position) error {
	if _, err := parsePosition(p); err != nil {
		return fmt.Errorf("acknowledge: %w", err)
	}
	return nil
}

// Close closes the scanner's connections. All others belong to the calls that open them.
func (s *Source) Close() error {
	if s.scanner != nil {
		s.scanner.close()
	}
	return nil
}

// captures says whether the table is captured. The server's own databases are not.
func (s *Source) captures(id capture.TableID) bool {
	return !ownDatabase(id.Schema) && s.filter.Selects(id)
}

// ownDatabase says whether a database is the server's own.
func ownDatabase(name string) bool {
	switch name {
	case "mysql", "sys", "information_schema", "performance_schema":
		return true
	}
	return false
}

// A server is what a session says about the other end.
type server struct {
	flavour      flavour
	major, minor int
	vars         map[string]string
	// gtids says that every transaction has one.
	gtids bool
}

// variables are the settings that matter to us. A server does not know all of them.
var variables = []string{
	"version", "server_uuid", "server_id", "log_bin", "binlog_format", "binlog_row_image", "binlog_row_metadata", "binlog_checksum", "gtid_mode",
	"binlog_row_value_options", "binlog_expire_logs_seconds", "log_slave_updates", "log_replica_updates", "gtid_strict_mode",
	"binlog_direct_non_transactional_updates", "sync_binlog", "innodb_flush_log_at_trx_commit", "encrypt_binlog", "read_only",
	"lower_case_table_names",
}

// identify asks a session whom it is with.
func (s *Source) identify(ctx context.Context, c *conn) (*server, error) {
	rows, err := c.query(ctx, "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('"+strings.Join(variables, "', '")+"')")
	if err != nil {
		return nil, fmt.Errorf("identify the server: %w", err)
	}
	srv := &server{vars: make(map[string]string, len(rows))}
	for _, r := range rows {
		srv.vars[strings.ToLower(r[0])] = r[1]
	}
	version := srv.vars["version"]
	srv.flavour = flavourOf(version)
	major, rest, _ := strings.Cut(version, ".")
	minor, _, _ := strings.Cut(rest, ".")
	var err1, err2 error
	srv.major, err1 = strconv.Atoi(major)
	srv.minor, err2 = strconv.Atoi(minor)
	if err := errors.Join(err1, err2); err != nil {
		return nil, fmt.Errorf("identify the server by its version %q: %w", version, err)
	}
	srv.gtids = srv.flavour == mariaDB || srv.vars["gtid_mode"] == "ON"
	if f := srv.tooOld(); f != nil {
		return nil, fmt.Errorf("%w: %w", capture.ErrMisconfigured, f)
	}
	if srv.vars["log_bin"] != "ON" {
		return nil, fmt.Errorf("%w: %w", capture.ErrMisconfigured, srv.noLog())
	}
	return srv, nil
}

// connectTo opens a session with the server srv. Each session is asked whom it is with:
// behind one address there may be several servers, and what one of them says proves
// nothing about another.
func (s *Source) connectTo(ctx context.Context, srv *server) (*conn, error) {
	c, err := s.connect(ctx)
	if err != nil {
		return nil, err
	}
	got, err := s.identify(ctx, c)
	if err != nil {
		c.close()
		return nil, err
	}
	want := srv.identity()
	if c.with = got.identity(); c.with != want {
		c.close()
		return nil, fmt.Errorf("a new session is with the %s server %s, and the ones before it are with the %s server %s: the url leads to another server by now",
			c.with.Flavour, c.with.Server, want.Flavour, want.Server)
	}
	return c, nil
}

func (srv *server) name() string {
	if srv.flavour == mariaDB {
		return "MariaDB"
	}
	return "MySQL"
}

func (srv *server) atLeast(major, minor int) bool {
	return srv.major > major || srv.major == major && srv.minor >= minor
}

// tooOld is what to say of a server that we do not read. Before 8.0 and 10.5 the log
// names no columns, and says nothing of signs, labels and character sets.
func (srv *server) tooOld() *capture.Finding {
	if srv.flavour == mySQL && srv.atLeast(8, 0) || srv.flavour == mariaDB && srv.atLeast(10, 6) {
		return nil
	}
	return &capture.Finding{
		What:   fmt.Sprintf("the server is %s %s, whose log does not describe the columns of its rows; headwater reads MySQL 8.0 and MariaDB 10.6 and newer", srv.name(), srv.vars["version"]),
		Remedy: "upgrade the server, or capture a replica of it that is newer and logs what it applies",
	}
}

// foldsNames says that the server keeps the names of tables in lower case, whatever
// statements call them.
func (srv *server) foldsNames() bool { return srv.vars["lower_case_table_names"] == "1" }

func (srv *server) noLog() *capture.Finding {
	return &capture.Finding{What: "the server writes no binary log (log_bin is OFF)", Remedy: "set log_bin = binlog in the server's configuration, and restart it"}
}

// logsGenerated says whether the log has generated columns in all images of rows that should
// have them. MariaDB 11.8 leaves them out of UPDATE and DELETE by any binlog_row_image, and 10.x
// by those that are not FULL: some of them, by rules of its own.
func (srv *server) logsGenerated() bool {
	return srv.flavour == mySQL || !srv.atLeast(11, 0) && srv.vars["binlog_row_image"] == "FULL"
}

// identity is what positions of the server carry.
func (srv *server) identity() identity {
	id := identity{Flavour: srv.flavour, Server: srv.vars["server_uuid"], Wire: wireRows}
	if srv.flavour == mariaDB {
		id.Server = srv.vars["server_id"]
	}
	return id
}

// end is the end of the log, as far as it is written.
func (srv *server) end(ctx context.Context, c *conn) (place, error) {
	p, _, err := srv.logStatus(ctx, c)
	return p, err
}

// logStatus is the end of the log, and whether the server leaves out statements that were made
// with certain databases in use.
func (srv *server) logStatus(ctx context.Context, c *conn) (end place, filtered bool, err error) {
	sql := "SHOW MASTER STATUS"
	if srv.flavour == mySQL && srv.atLeast(8, 2) {
		sql = "SHOW BINARY LOG STATUS"
	}
	row, err := c.queryRow(ctx, sql)
	if err != nil {
		return end, false, fmt.Errorf("ask for the end of the log: %w", explain(err))
	}
	if end.Pos, err = parseUint(row[1]); err != nil {
		return end, false, fmt.Errorf("ask for the end of the log: %w", err)
	}
	// File, Position, Binlog_Do_DB, Binlog_Ignore_DB, …
	end.File = row[0]
	return end, row[2] != "" || row[3] != "", nil
}

// executed is the set of transactions that the server has made, nil without GTIDs. On
// MySQL they are visible, too; MariaDB's count from the moment in which they are logged.
func (srv *server) executed(ctx context.Context, c *conn) (mysql.GTIDSet, error) {
	if !srv.gtids {
		return nil, nil
	}
	sql := "SELECT @@global.gtid_executed"
	if srv.flavour == mariaDB {
		sql = "SELECT @@global.gtid_binlog_pos"
	}
	row, err := c.queryRow(ctx, sql)
	if err != nil {
		return nil, fmt.Errorf("ask for the executed transactions: %w", err)
	}
	set, err := parseGTIDs(srv.flavour, row[0])
	if err != nil {
		return nil, fmt.Errorf("ask for the executed transactions: %w", err)
	}
	return set, nil
}

// executedAt is the set that belongs to a place of MariaDB's log.
func executedAt(ctx context.Context, c *conn, at place) (mysql.GTIDSet, error) {
	pos := fmt.Sprintf("BINLOG_GTID_POS(%s, %d)", quoteText(at.File), at.Pos)
	row, err := c.queryRow(ctx, "SELECT "+pos+" IS NULL, "+pos)
	if err != nil {
		return nil, fmt.Errorf("ask for the transactions before %s: %w", at, err)
	}
	if row[0] != "0" {
		return nil, fmt.Errorf("ask for the transactions before %s: the server does not have this file any more", at)
	}
	set, err := parseGTIDs(mariaDB, row[1])
	if err != nil {
		return nil, fmt.Errorf("ask for the transactions before %s: %w", at, err)
	}
	return set, nil
}

// Errors of the servers that tell us something.
// https://dev.mysql.com/doc/mysql-errors/9.0/en/server-error-reference.html
const (
	errSpecificAccessDenied = 1227 // ER_SPECIFIC_ACCESS_DENIED_ERROR
	errReadLog              = 1236 // ER_SOURCE_FATAL_ERROR_READING_BINLOG
	errTableChanged         = 1412 // ER_TABLE_DEF_CHANGED
	errPurged               = 1789 // ER_SOURCE_HAS_PURGED_REQUIRED_GTIDS
)

// explain marks the server's errors that retrying cannot change.
func explain(err error) error {
	var my *mysql.MyError
	if !errors.As(err, &my) {
		return err
	}
	switch my.Code {
	case errSpecificAccessDenied, mysql.ER_ACCESS_DENIED_ERROR, mysql.ER_TABLEACCESS_DENIED_ERROR, mysql.ER_DBACCESS_DENIED_ERROR:
		return fmt.Errorf("%w: %s; remedy: headwater check lists the rights that are missing", capture.ErrMisconfigured, my.Message)
	case errPurged:
		return lostError(my)
	case errReadLog:
		for _, text := range []string{"purged", "ould not find", "more GTIDs", "not in the master's binlog", "not in the binlog", "impossible position", "is missing"} {
			if strings.Contains(my.Message, text) {
				return lostError(my)
			}
		}
		for _, text := range []string{cutShort, "bogus data", "crc check", "log event entry exceeded"} {
			if strings.Contains(my.Message, text) {
				return fmt.Errorf("%w: the server says: %s; remedy: %s", capture.ErrUnreadable, my.Message, checkLog)
			}
		}
	}
	return err
}

// cutShort is what servers say of a log that ends in the middle of an event.
const cutShort = "truncated in the middle of event"

const readAnew = "run headwater checkpoint reset, after which the next start reads the tables again"

// checkLog is what to do about a log that cannot be read as it is.
const checkLog = "check the server's log by mysqlbinlog --verify-binlog-checksum; if it is whole, start again, else " + readAnew

func lostError(err *mysql.MyError) error {
	return fmt.Errorf("%w: the server says: %s; remedy: %s; see binlog_expire_logs_seconds", capture.ErrPositionLost, err.Message, readAnew)
}

// Verify compares r with the server: its identity, and what its log holds.
func (s *Source) Verify(ctx context.Context, r capture.Resume) error {
	c, err := s.connect(ctx)
	if err != nil {
		return err
	}
	defer c.close()
	srv, err := s.identify(ctx, c)
	if err != nil {
		return err
	}
	at, err := s.verify(ctx, c, srv, r)
	if err != nil || r.At == "" {
		return err
	}
	return s.probe(ctx, srv, &at)
}

// probe tries to read the log from a position: whether it still goes back that far, its
// reader alone can tell.
func (s *Source) probe(ctx context.Context, srv *server, at *position) error {
	d, err := srv.dumpFrom(at)
	if err != nil {
		return err
	}
	err = s.peek(ctx, srv, &d, func(h *header, _ []byte) bool { return !h.artificial() && h.position != 0 })
	if err != nil {
		return fmt.Errorf("try to read the log from %s: %w", at.At, err)
	}
	return nil
}

// peek reads the log in a session of its own, up to its present end or until f has seen
// enough. f gets what is behind an event's header.
func (s *Source) peek(ctx context.Context, srv *server, d *dumpRequest, f func(h *header, body []byte) (enough bool)) error {
	c, err := s.connectTo(ctx, srv)
	if err != nil {
		return err
	}
	defer c.close()
	d.id, d.once, d.heartbeat = strangerID(), true, heartbeatPeriod
	if err := c.startDump(ctx, d); err != nil {
		return explain(err)
	}
	c.net.timeout = s.cfg.ReadTimeout
	checksums := srv.vars["binlog_checksum"] == "CRC32"
	return c.within(ctx, func() error {
		for {
			p, err := c.readPacket()
			switch {
			case err != nil:
				return err
			case len(p) == 0:
				return errors.New("an empty packet")
			case p[0] == mysql.ERR_HEADER:
				return explain(answerError(p))
			case p[0] == mysql.EOF_HEADER:
				return nil
			}
			h, ok := parseHeader(p[1:])
			if !ok || len(p) < 1+replication.EventHeaderSize+4 {
				return errors.New("an event of the log is too short")
			}
			if h.typ == replication.FORMAT_DESCRIPTION_EVENT {
				checksums = p[len(p)-5] == byte(replication.BINLOG_CHECKSUM_ALG_CRC32)
			}
			body := p[1+replication.EventHeaderSize:]
			if checksums {
				body = body[:len(body)-4]
			}
			if f(&h, body) {
				return nil
			}
		}
	})
}

// fileBegan is when a file of the log was begun; see position.Began.
func (s *Source) fileBegan(ctx context.Context, srv *server, file string) (began uint32, err error) {
	d := dumpRequest{flavour: srv.flavour, file: file}
	err = s.peek(ctx, srv, &d, func(h *header, _ []byte) bool {
		began = h.timestamp
		return h.typ == replication.FORMAT_DESCRIPTION_EVENT
	})
	if err != nil {
		return 0, fmt.Errorf("look at the beginning of the log file %s: %w", file, err)
	}
	return began, nil
}

// logs says whether MySQL's log holds a transaction behind a set.
func (s *Source) logs(ctx context.Context, srv *server, set mysql.GTIDSet, want *gtid) (found bool, err error) {
	d := dumpRequest{flavour: mySQL, gtids: set}
	err = s.peek(ctx, srv, &d, func(h *header, body []byte) bool {
		if h.typ == replication.GTID_EVENT || h.typ == replication.GTID_TAGGED_LOG_EVENT {
			g, _, e := parseMySQLGTID(h, body)
			found = e == nil && g == *want
		}
		return found
	})
	if err != nil {
		return false, fmt.Errorf("look for the transaction %s in the log: %w", want, err)
	}
	return found, nil
}

// strangerID is a server id for a moment. MariaDB ends the session of another replica
// with the same one, which could be ours at work.
func strangerID() uint32 { return rand.Uint32() | 1<<31 }

// dumpFrom says where to begin reading for a position.
func (srv *server) dumpFrom(at *position) (dumpRequest, error) {
	d := dumpRequest{flavour: srv.flavour, gtids: at.GTIDs}
	from := at.At
	if len(at.Prepared) > 0 {
		oldest := at.Prepared[0]
		from = oldest.place
		if srv.flavour == mariaDB {
			var err error
			if d.gtids, err = parseGTIDs(mariaDB, oldest.Before); err != nil {
				return d, fmt.Errorf("%w: the checkpoint's prepared transaction %s: %w", capture.ErrPositionLost, oldest.XID, err)
			}
		}
	}
	if at.GTIDs == nil {
		d.file, d.pos = from.File, offset(from)
	}
	return d, nil
}

// verify is Verify without the log itself. It returns the position, which is zero at the
// first start.
func (s *Source) verify(ctx context.Context, c *conn, srv *server, r capture.Resume) (position, error) {
	if r.At == "" {
		return position{}, nil
	}
	at, err := parsePosition(r.At)
	if err != nil {
		return position{}, err
	}
	lost := func(format string, args ...any) (position, error) {
		return position{}, fmt.Errorf("%w: "+format, append([]any{capture.ErrPositionLost}, args...)...)
	}
	id := srv.identity()
	switch {
	case at.Source.Flavour != id.Flavour:
		return lost("the checkpoint belongs to a server of the kind %s and this one is %s; remedy: point url at the right server, or start a new pipeline", at.Source.Flavour, srv.name())
	case at.Source.Wire != id.Wire:
		return lost("the checkpoint was written while rows travelled as %q and this headwater reads %q; remedy: run the version that wrote it", at.Source.Wire, id.Wire)
	case at.GTIDs == nil && srv.gtids:
		if at.Source.Server != id.Server {
			return lost("the checkpoint has no GTIDs and belongs to the server %s, and this one is %s; remedy: point url at the server of the checkpoint, or %s", at.Source.Server, id.Server, readAnew)
		}
	case at.GTIDs != nil && !srv.gtids:
		return lost("the checkpoint counts by GTIDs and the server's gtid_mode is %s; remedy: SET GLOBAL gtid_mode = ON", srv.vars["gtid_mode"])
	case at.GTIDs == nil && at.Source.Server != id.Server:
		return lost("the checkpoint belongs to the server %s and this one is %s, and without GTIDs their logs cannot be compared; remedy: point url at the server of the checkpoint, or %s",
			at.Source.Server, id.Server, readAnew)
	}
	end, err := srv.end(ctx, c)
	if err != nil {
		return position{}, err
	}
	same := at.Source.Server == id.Server
	if same && end.number() < at.At.number() {
		return lost("the server's log ends at %s and the checkpoint stands at %s: the log was deleted or reset (RESET BINARY LOGS AND GTIDS), or the server was set back to an older state; remedy: %s",
			end, at.At, readAnew)
	}
	if at.GTIDs == nil {
		return at, s.verifyFile(ctx, c, srv, &at)
	}
	// A transaction that was cut is not behind us, and the server must have it.
	published := at.GTIDs
	var cut gtid
	if r.InTx != nil {
		var ok bool
		if cut, ok = parseGTID([]byte(r.InTx.ID)); !ok {
			return lost("the checkpoint stands inside of %q, which is no GTID", r.InTx.ID)
		}
		published = published.Clone()
		if err := addGTID(published, &cut); err != nil {
			return position{}, err
		}
	}
	if same {
		// A server that has lost its log may give the same GTIDs to other transactions.
		if err := s.verifyFile(ctx, c, srv, &at); err != nil {
			return position{}, err
		}
	}
	if srv.flavour == mySQL {
		return at, s.verifyGTIDs(ctx, c, srv, &at, published, &cut)
	}
	return at, s.verifyDomains(ctx, c, published)
}

// gtidPatience is how long a server may lack transactions that were emitted, such as
// those that wait for a semi-synchronous replica, or reach this replica late.
const gtidPatience = 5 * time.Second

// verifyGTIDs wants gtid_purged ⊆ at, and what was published ⊆ gtid_executed. cut is the
// transaction that was published in part.
func (s *Source) verifyGTIDs(ctx context.Context, c *conn, srv *server, at *position, published mysql.GTIDSet, cut *gtid) error {
	set := published.String()
	if _, err := c.query(ctx, fmt.Sprintf("SELECT WAIT_FOR_EXECUTED_GTID_SET('%s', %g)", set, s.patience.Seconds())); err != nil {
		return fmt.Errorf("compare the checkpoint with the server: %w", err)
	}
	row, err := c.queryRow(ctx, fmt.Sprintf("SELECT GTID_SUBTRACT('%s', @@global.gtid_executed), GTID_SUBTRACT(@@global.gtid_purged, '%s')", set, at.GTIDs))
	if err != nil {
		return fmt.Errorf("compare the checkpoint with the server: %w", err)
	}
	lacking, purged := tidy(row[0]), tidy(row[1])
	if purged != "" {
		return fmt.Errorf("%w: the server has purged the log of the transactions %s, which the checkpoint still needs; remedy: %s; let binlog_expire_logs_seconds be longer than the pipeline may stand still",
			capture.ErrPositionLost, purged, readAnew)
	}
	same := at.Source.Server == srv.identity().Server
	if same {
		if err := s.verifyFile(ctx, c, srv, at); err != nil {
			return err
		}
	}
	if lacking == "" {
		return nil
	}
	// Its log still has what lies before the checkpoint, but for the cut transaction, which
	// does not.
	lost := !same
	if set, err := parseGTIDs(mySQL, lacking); err != nil {
		return fmt.Errorf("compare the checkpoint with the server: %w", err)
	} else if same && hasGTID(set, cut) {
		logged, err := s.logs(ctx, srv, at.GTIDs, cut)
		if err != nil {
			return err
		}
		lost = !logged
	}
	if lost {
		return fmt.Errorf("%w: the server lacks the transactions %s, which were published: it is not the server that they came from, or a replica that never got them, or its GTIDs were reset, or it lost the end of its log in a crash; "+
			"remedy: point url at a server that has them, or %s", capture.ErrPositionLost, lacking, readAnew)
	}
	return fmt.Errorf("the server has logged the transactions %s and not committed them yet: waiting for it", lacking)
}

func tidy(set string) string { return strings.Join(strings.Fields(set), "") }

// verifyDomains wants the server to have the last transaction of each domain.
func (s *Source) verifyDomains(ctx context.Context, c *conn, published mysql.GTIDSet) error {
	var lacking []string
	for began := time.Now(); ; {
		have, err := loggedGTIDs(ctx, c)
		if err != nil {
			return err
		}
		lacking = lacking[:0]
		for _, last := range published.(*mysql.MariadbGTIDSet).Sets {
			if have[mariaSource{last.DomainID, last.ServerID}] < last.SequenceNumber {
				lacking = append(lacking, last.String())
			}
		}
		if len(lacking) == 0 {
			return nil
		}
		if time.Since(began) > s.patience {
			break
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return fmt.Errorf("%w: the server's log ends before the transactions %s, which were published: it is not the server that they came from, or a replica that never got them, or its log was reset (RESET MASTER); "+
		"remedy: point url at a server that has them, or %s", capture.ErrPositionLost, strings.Join(lacking, ", "), readAnew)
}

// A mariaSource is a server that logs transactions in a domain.
type mariaSource struct{ domain, server uint32 }

// loggedGTIDs are the numbers that MariaDB has logged last, by domain and server.
func loggedGTIDs(ctx context.Context, c *conn) (map[mariaSource]uint64, error) {
	row, err := c.queryRow(ctx, "SELECT @@global.gtid_binlog_state")
	if err != nil {
		return nil, fmt.Errorf("ask for the logged transactions: %w", err)
	}
	out := make(map[mariaSource]uint64)
	if row[0] == "" {
		return out, nil
	}
	for text := range strings.SplitSeq(row[0], ",") {
		g, ok := parseGTID([]byte(text))
		if !ok {
			return nil, fmt.Errorf("ask for the logged transactions: the server says %q", row[0])
		}
		out[mariaSource{g.domain, g.server}] = g.number
	}
	return out, nil
}

// verifyFile wants the log of the checkpoint's own server to reach as far as it did, in the
// files that it had: one that was reset takes their names again, and one that lost its end
// in a crash goes on in the next file.
func (s *Source) verifyFile(ctx context.Context, c *conn, srv *server, at *position) error {
	logs, err := listLogs(ctx, c)
	if err != nil {
		return err
	}
	first := "none"
	if len(logs) > 0 {
		first = logs[0].File
	}
	needed := []place{at.At}
	if at.GTIDs == nil && len(at.Prepared) > 0 {
		needed = append(needed, at.Prepared[0].place)
	}
	for _, p := range needed {
		i := slices.IndexFunc(logs, func(l place) bool { return l.File == p.File })
		switch {
		case i >= 0:
		case srv.flavour == mySQL && at.GTIDs != nil:
			return nil // GTIDs tell whether anything that lay between was purged
		default:
			return fmt.Errorf("%w: the checkpoint stands at %s, and the server's oldest log file is %s: what lies between was purged or reset; remedy: %s; see binlog_expire_logs_seconds",
				capture.ErrPositionLost, p, first, readAnew)
		}
		if logs[i].Pos < p.Pos {
			return fmt.Errorf("%w: the checkpoint stands at %s, and this file of the server's log ends at %d: the server lost the end of its log in a crash, or the log was reset; remedy: %s; "+
				"with sync_binlog = 1 a crash loses nothing", capture.ErrPositionLost, p, logs[i].Pos, readAnew)
		}
	}
	if at.Began == 0 {
		return nil
	}
	began, err := s.fileBegan(ctx, srv, at.At.File)
	if err != nil {
		return err
	}
	if began != at.Began {
		utc := func(seconds uint32) string { return time.Unix(int64(seconds), 0).UTC().Format(time.DateTime) }
		return fmt.Errorf("%w: the checkpoint stands at %s in a file that was begun at %s UTC, and the server began the file of this name at %s UTC: its log was reset; remedy: %s",
			capture.ErrPositionLost, at.At, utc(at.Began), utc(began), readAnew)
	}
	return nil
}

// listLogs returns the files of the log, oldest first, each with its size.
func listLogs(ctx context.Context, c *conn) ([]place, error) {
	rows, err := c.query(ctx, "SHOW BINARY LOGS")
	if err != nil {
		return nil, fmt.Errorf("list the files of the log: %w", explain(err))
	}
	out := make([]place, len(rows))
	for i, r := range rows {
		size, err := parseUint(r[1])
		if err != nil {
			return nil, fmt.Errorf("list the files of the log: %w", err)
		}
		out[i] = place{File: r[0], Pos: size}
	}
	return out, nil
}
