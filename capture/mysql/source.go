package mysql

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-mysql-org/go-mysql/mysql"
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

	mu        sync.Mutex // guards streaming
	streaming bool
}

var _ capture.Source = (*Source)(nil)

// New returns a source. It does not connect; cfg must have its defaults and be valid.
func New(cfg Config, log *slog.Logger, reg prometheus.Registerer) *Source {
	return &Source{cfg: cfg, log: log, metrics: newMetrics(reg), filter: cfg.Tables.Filter(), catalog: newCatalog(), patience: gtidPatience}
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
	switch id.Schema {
	case "mysql", "sys", "information_schema", "performance_schema":
		return false
	}
	return s.filter.Selects(id)
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

func (srv *server) noLog() *capture.Finding {
	return &capture.Finding{What: "the server writes no binary log (log_bin is OFF)", Remedy: "set log_bin = binlog in the server's configuration, and restart it"}
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
	sql := "SHOW MASTER STATUS"
	if srv.flavour == mySQL && srv.atLeast(8, 2) {
		sql = "SHOW BINARY LOG STATUS"
	}
	row, err := c.queryRow(ctx, sql)
	if err != nil {
		return place{}, fmt.Errorf("ask for the end of the log: %w", explain(err))
	}
	pos, err := parseUint(row[1])
	if err != nil {
		return place{}, fmt.Errorf("ask for the end of the log: %w", err)
	}
	return place{File: row[0], Pos: pos}, nil
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
	}
	return err
}

const readAnew = "reset the pipeline's checkpoint and let it read the tables again"

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
	c, err := s.connect(ctx)
	if err != nil {
		return err
	}
	defer c.close()
	d.id, d.once, d.heartbeat = strangerID(), true, heartbeatPeriod
	if err := c.startDump(ctx, &d); err != nil {
		return fmt.Errorf("try to read the log from %s: %w", at.At, explain(err))
	}
	return c.within(ctx, func() error {
		for {
			p, err := c.readPacket()
			switch {
			case err != nil:
				return fmt.Errorf("try to read the log from %s: %w", at.At, err)
			case p[0] == mysql.ERR_HEADER:
				return fmt.Errorf("try to read the log from %s: %w", at.At, explain(c.answerError(p)))
			case p[0] == mysql.EOF_HEADER:
				return nil
			}
			if h, ok := parseHeader(p[1:]); ok && !h.artificial() && h.position != 0 {
				return nil
			}
		}
	})
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
		d.file = from.File
		if d.pos = uint32(from.Pos); uint64(d.pos) != from.Pos {
			d.pos = 4 // beyond what the command can say: the part before is skipped
		}
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
	if same && end.number() < at.At.number() && (srv.flavour == mySQL || at.GTIDs == nil) {
		return lost("the server's log ends at %s and the checkpoint stands at %s: the log was deleted or reset (RESET BINARY LOGS AND GTIDS), or the server was set back to an older state; remedy: %s",
			end, at.At, readAnew)
	}
	if at.GTIDs == nil {
		return at, s.verifyFile(ctx, c, &at)
	}
	// A transaction that was cut is not behind us, and the server must have it.
	published := at.GTIDs
	if r.InTx != nil {
		g, ok := parseGTID([]byte(r.InTx.ID))
		if !ok {
			return lost("the checkpoint stands inside of %q, which is no GTID", r.InTx.ID)
		}
		published = published.Clone()
		if err := addGTID(published, &g); err != nil {
			return position{}, err
		}
	}
	if srv.flavour == mySQL {
		err = s.verifyGTIDs(ctx, c, &at, published, same)
	} else {
		err = s.verifyDomains(ctx, c, srv, published)
	}
	return at, err
}

// gtidPatience is how long a server may lack transactions that were emitted, such as
// those that wait for a semi-synchronous replica, or reach this replica late.
const gtidPatience = 5 * time.Second

// verifyGTIDs wants gtid_purged ⊆ at, and what was published ⊆ gtid_executed.
func (s *Source) verifyGTIDs(ctx context.Context, c *conn, at *position, published mysql.GTIDSet, same bool) error {
	set := published.String()
	if _, err := c.query(ctx, fmt.Sprintf("SELECT WAIT_FOR_EXECUTED_GTID_SET('%s', %g)", set, s.patience.Seconds())); err != nil {
		return fmt.Errorf("compare the checkpoint with the server: %w", err)
	}
	row, err := c.queryRow(ctx, fmt.Sprintf("SELECT GTID_SUBTRACT('%s', @@global.gtid_executed), GTID_SUBTRACT(@@global.gtid_purged, '%s')", set, at.GTIDs))
	if err != nil {
		return fmt.Errorf("compare the checkpoint with the server: %w", err)
	}
	lacking, purged := tidy(row[0]), tidy(row[1])
	switch {
	case purged != "":
		return fmt.Errorf("%w: the server has purged the log of the transactions %s, which the checkpoint still needs; remedy: %s; let binlog_expire_logs_seconds be longer than the pipeline may stand still",
			capture.ErrPositionLost, purged, readAnew)
	case lacking != "" && same:
		// Its log reaches beyond the checkpoint, so they are there.
		return fmt.Errorf("the server has logged the transactions %s and not committed them yet: waiting for it", lacking)
	case lacking != "":
		return fmt.Errorf("%w: the server lacks the transactions %s, which were published: it is not the server that they came from, or a replica that never got them, or its GTIDs were reset; "+
			"remedy: point url at a server that has them, or %s", capture.ErrPositionLost, lacking, readAnew)
	}
	return nil
}

func tidy(set string) string { return strings.Join(strings.Fields(set), "") }

// verifyDomains wants the server to have the last transaction of each domain.
func (s *Source) verifyDomains(ctx context.Context, c *conn, srv *server, published mysql.GTIDSet) error {
	var lacking []string
	for began := time.Now(); ; {
		have, err := srv.executed(ctx, c)
		if err != nil {
			return err
		}
		lacking = lacking[:0]
		for domain, last := range published.(*mysql.MariadbGTIDSet).Sets {
			if !hasGTID(have, &gtid{domain: domain, number: last.SequenceNumber}) {
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

// verifyFile looks for the checkpoint's file.
func (s *Source) verifyFile(ctx context.Context, c *conn, at *position) error {
	from := at.At
	if len(at.Prepared) > 0 {
		from = at.Prepared[0].place
	}
	logs, err := listLogs(ctx, c)
	if err != nil {
		return err
	}
	for _, l := range logs {
		if l.File == from.File {
			if l.Pos < from.Pos {
				break
			}
			return nil
		}
	}
	first := "none"
	if len(logs) > 0 {
		first = logs[0].File
	}
	return fmt.Errorf("%w: the checkpoint stands at %s, and the server's oldest log file is %s: what lies between was purged or reset; remedy: %s; see binlog_expire_logs_seconds",
		capture.ErrPositionLost, from, first, readAnew)
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
