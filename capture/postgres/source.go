package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/headwaterdb/headwater/capture"
)

// A Source reads the log of one PostgreSQL database through a replication slot. Its
// methods may be called from several goroutines; at most one Stream runs at a time.
type Source struct {
	cfg     Config
	log     *slog.Logger
	metrics *metrics
	filter  *capture.TableFilter
	catalog *catalog

	// acked is the end_lsn of the newest acknowledged position (rule R18).
	acked atomic.Uint64
	// scan is what Stream and the scanner know together; both are nil until Scanner is
	// called.
	scan    *scanState
	scanner *Scanner

	patience patience

	mu        sync.Mutex // guards streaming
	streaming bool
}

var _ capture.Source = (*Source)(nil)

// New returns a source. It does not connect; cfg must have its defaults and be valid.
// log and reg may be nil.
func New(cfg Config, log *slog.Logger, reg prometheus.Registerer) *Source {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	database := ""
	if pc, err := pgconn.ParseConfig(cfg.URL); err == nil {
		database = pc.Database
	}
	return &Source{
		cfg: cfg, log: log, metrics: newMetrics(reg), filter: cfg.Tables.Filter(), catalog: newCatalog(database),
		patience: usualPatience,
	}
}

// Acknowledge notes that everything up to p is published. The server learns it with
// the next status update.
func (s *Source) Acknowledge(_ context.Context, p capture.Position) error {
	at, err := parsePosition(p)
	if err != nil {
		return fmt.Errorf("acknowledge: %w", err)
	}
	s.acked.Store(uint64(at.End))
	s.metrics.acknowledged.Set(float64(at.End))
	return nil
}

// Close closes the scanner's connection. All others belong to the calls that open them.
func (s *Source) Close() error {
	if s.scanner != nil {
		s.scanner.close()
	}
	return nil
}

// pinned are settings of every connection: those that decide how values print (rule
// R27 of publish/DESIGN.md), and limits that a role may have.
var pinned = map[string]string{
	"DateStyle":          "ISO",
	"IntervalStyle":      "postgres",
	"TimeZone":           "UTC",
	"extra_float_digits": "3",
	"bytea_output":       "hex",
	"lc_monetary":        "C",
	"client_encoding":    "UTF8",
	// Defaults and the names of types print alike too.
	"standard_conforming_strings": "on",
	"quote_all_identifiers":       "off",
	// Names inside of values, such as those of regclass, print with their schema.
	"search_path":       "pg_catalog",
	"statement_timeout": "0",
	"lock_timeout":      "0",
	// Warnings tell that the log goes by without a publication (PostgreSQL 18).
	"client_min_messages": "warning",

	"idle_in_transaction_session_timeout": "0",
}

// A peer that is gone for good is found in about a minute: by keepAlive while nothing is
// on its way to it, else by unacknowledged. A peer behind something that answers in its
// place is found by [stream.lost].
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 30 * time.Second, Interval: 10 * time.Second, Count: 3}

const unacknowledged = time.Minute

// connect opens a connection; frontend, when set, builds its message reader.
//
// A replication connection takes SQL, too, by the simple protocol. It must not see any
// that looks at tables of the user: the server would keep their present definitions in
// that process, and decode older rows by them.
func (s *Source) connect(ctx context.Context, replication bool, frontend func(io.Reader, io.Writer) *pgproto3.Frontend) (*pgconn.PgConn, error) {
	pc, err := pgconn.ParseConfig(s.cfg.URL)
	if err != nil {
		return nil, fmt.Errorf("%w: url cannot be read as a PostgreSQL address", capture.ErrMisconfigured)
	}
	if s.cfg.Password != "" {
		pc.Password = string(s.cfg.Password)
	}
	for k, v := range pinned {
		pc.RuntimeParams[k] = v
	}
	if pc.RuntimeParams["application_name"] == "" {
		pc.RuntimeParams["application_name"] = "headwater"
	}
	if replication {
		pc.RuntimeParams["replication"] = "database"
	}
	pc.ConnectTimeout = s.cfg.ConnectTimeout
	pc.DialFunc = (&net.Dialer{Timeout: s.cfg.ConnectTimeout, KeepAliveConfig: keepAlive, Control: boundUnacknowledged}).DialContext
	if frontend != nil {
		pc.BuildFrontend = frontend
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.ConnectTimeout)
	defer cancel()
	conn, err := pgconn.ConnectConfig(ctx, pc)
	if err != nil {
		return nil, connectError(pc, err)
	}
	return conn, nil
}

// connectError says in one sentence why there is no connection. What the library says
// is left out where it would add only the address.
func connectError(pc *pgconn.Config, err error) error {
	at := net.JoinHostPort(pc.Host, strconv.Itoa(int(pc.Port)))
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return fmt.Errorf("connect to PostgreSQL at %s: %w", at, err)
	}
	wrong := func(format string, args ...any) error {
		return fmt.Errorf("%w: "+format, append([]any{capture.ErrMisconfigured}, args...)...)
	}
	switch pg.Code {
	case "28P01":
		return wrong("PostgreSQL at %s refuses the password of user %q; remedy: set password, or ALTER ROLE %s PASSWORD", at, pc.User, quoteIdent(pc.User))
	case "28000":
		return wrong("PostgreSQL at %s does not let user %q in: %s; remedy: a role that may log in, and a line of pg_hba.conf that admits it", at, pc.User, pg.Message)
	case "3D000":
		return wrong("PostgreSQL at %s has no database %q; remedy: let url name the right one", at, pc.Database)
	case "42501":
		if pg.Routine == "CheckMyDatabase" {
			return wrong("user %q must not connect to database %q; remedy: GRANT CONNECT ON DATABASE %s TO %s",
				pc.User, pc.Database, quoteIdent(pc.Database), quoteIdent(pc.User))
		}
		return wrong("user %q must not read the log (%s); remedy: ALTER ROLE %s REPLICATION", pc.User, pg.Message, quoteIdent(pc.User))
	case "53300": // too_many_connections: it may pass
		return fmt.Errorf("PostgreSQL at %s has no connection left: %s; remedy: end what is not needed, or raise max_connections and max_wal_senders", at, pg.Message)
	}
	return fmt.Errorf("connect to PostgreSQL at %s: %w", at, err)
}

// closeConn ends a connection without waiting for the server for long.
func closeConn(conn *pgconn.PgConn) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = conn.Close(ctx) // nothing is lost with it
}

// query runs SQL by the simple protocol, which replication connections know too, and
// returns the rows of the last statement as text. NULL is "".
func query(ctx context.Context, conn *pgconn.PgConn, sql string) ([][]string, error) {
	results, err := conn.Exec(ctx, sql).ReadAll()
	if err != nil {
		return nil, err
	}
	if len(results) == 0 {
		return nil, nil
	}
	last := results[len(results)-1]
	rows := make([][]string, len(last.Rows))
	for i, r := range last.Rows {
		rows[i] = make([]string, len(r))
		for j, v := range r {
			rows[i][j] = string(v)
		}
	}
	return rows, nil
}

// queryRow is query for exactly one row.
func queryRow(ctx context.Context, conn *pgconn.PgConn, sql string) ([]string, error) {
	rows, err := query(ctx, conn, sql)
	if err != nil {
		return nil, err
	}
	if len(rows) != 1 {
		return nil, fmt.Errorf("the server answers with %d rows, want one", len(rows))
	}
	return rows[0], nil
}

func quoteIdent(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

func quoteTable(id capture.TableID) string { return quoteIdent(id.Schema) + "." + quoteIdent(id.Name) }

// parseJSON reads what json functions of the server print; "" is NULL and leaves v.
func parseJSON(text string, v any) error {
	if text == "" {
		return nil
	}
	return json.Unmarshal([]byte(text), v)
}

// quoteLiteral quotes text for SQL, whatever standard_conforming_strings says.
func quoteLiteral(text string) string {
	q := `'` + strings.ReplaceAll(text, `'`, `''`) + `'`
	if strings.Contains(q, `\`) {
		return ` E` + strings.ReplaceAll(q, `\`, `\\`)
	}
	return q
}

// A server is what a connection says about the other end.
type server struct {
	identity
	Version       int // server_version_num
	InRecovery    bool
	DatabaseName  string
	SenderTimeout time.Duration // wal_sender_timeout, 0 when off
	// Head is the end of the log: flushed here, or replayed on a standby.
	Head LSN
}

// major is the number in the server's name: 13 to 18.
func (s *server) major() int { return s.Version / 10000 }

// identify asks a replication connection and an ordinary one who they are.
func (s *Source) identify(ctx context.Context, repl, sql *pgconn.PgConn) (*server, error) {
	sys, err := pglogrepl.IdentifySystem(ctx, repl)
	if err != nil {
		return nil, fmt.Errorf("identify the server: %w", err)
	}
	row, err := queryRow(ctx, sql, `SELECT d.oid, current_setting('server_version_num'), pg_is_in_recovery(),
		(SELECT setting FROM pg_settings WHERE name = 'wal_sender_timeout'),
		CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END
		FROM pg_database d WHERE d.datname = current_database()`)
	if err != nil {
		return nil, fmt.Errorf("identify the server: %w", err)
	}
	out := &server{
		identity:     identity{SystemID: sys.SystemID, Timeline: sys.Timeline, Slot: s.cfg.Slot, Wire: wireText},
		DatabaseName: sys.DBName,
		InRecovery:   row[2] == "t",
	}
	oid, err1 := strconv.ParseUint(row[0], 10, 32)
	version, err2 := strconv.Atoi(row[1])
	timeout, err3 := strconv.Atoi(row[3])
	head, err4 := pglogrepl.ParseLSN(row[4])
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return nil, fmt.Errorf("identify the server: %w", err)
	}
	out.Database, out.Version, out.Head = uint32(oid), version, head
	out.SenderTimeout = time.Duration(timeout) * time.Millisecond
	if out.major() < 13 {
		return nil, fmt.Errorf("%w: the server is PostgreSQL %d; headwater reads 13 and newer", capture.ErrMisconfigured, out.major())
	}
	return out, nil
}

// A slot is what pg_replication_slots says about ours.
type slot struct {
	Plugin, Type, Database string
	ActivePID              string
	// Failover says that standbys are to keep the slot in step, Synced that this is such
	// a standby's copy (PostgreSQL 17 and up).
	Failover, Synced   bool
	Restart, Confirmed LSN
	// Lost says why the server can no longer serve the slot, "" when it can.
	Lost string
}

// readSlot returns nil when there is no such slot.
func (s *Source) readSlot(ctx context.Context, conn *pgconn.PgConn, srv *server) (*slot, error) {
	lost, failover := "CASE WHEN wal_status = 'lost' THEN 'wal_removed' END", "false, false"
	if srv.major() >= 17 {
		failover = "failover, synced"
	}
	switch {
	case srv.major() >= 17:
		lost = "coalesce(invalidation_reason, " + lost + ")"
	case srv.major() == 16:
		lost = "CASE WHEN conflicting THEN 'conflict' ELSE " + lost + " END"
	}
	rows, err := query(ctx, conn, `SELECT plugin, slot_type, database, active_pid, coalesce(restart_lsn, '0/0'), coalesce(confirmed_flush_lsn, '0/0'), `+
		lost+`, `+failover+` FROM pg_replication_slots WHERE slot_name = `+quoteLiteral(s.cfg.Slot))
	if err != nil {
		return nil, fmt.Errorf("read the state of slot %q: %w", s.cfg.Slot, err)
	}
	if len(rows) == 0 {
		return nil, nil
	}
	r := rows[0]
	sl := &slot{Plugin: r[0], Type: r[1], Database: r[2], ActivePID: r[3], Lost: r[6], Failover: r[7] == "t", Synced: r[8] == "t"}
	var err1, err2 error
	sl.Restart, err1 = pglogrepl.ParseLSN(r[4])
	sl.Confirmed, err2 = pglogrepl.ParseLSN(r[5])
	if err := errors.Join(err1, err2); err != nil {
		return nil, fmt.Errorf("read the state of slot %q: %w", s.cfg.Slot, err)
	}
	return sl, nil
}

// usable says whether the slot is one that we can read from at all.
func (s *Source) usable(sl *slot, srv *server) error {
	name := s.cfg.Slot
	switch {
	case sl.Type != "logical":
		return fmt.Errorf("%w: slot %q is a physical slot; remedy: choose another name for slot", capture.ErrMisconfigured, name)
	case sl.Plugin != "pgoutput":
		return fmt.Errorf("%w: slot %q decodes with %q and headwater reads pgoutput; remedy: choose another name for slot", capture.ErrMisconfigured, name, sl.Plugin)
	case sl.Database != srv.DatabaseName:
		return fmt.Errorf("%w: slot %q belongs to database %q and the url names %q; remedy: choose another name for slot", capture.ErrMisconfigured, name, sl.Database, srv.DatabaseName)
	case sl.Lost != "":
		return fmt.Errorf("%w: the server has invalidated slot %q (%s): changes after %s are no longer to be had; "+
			"remedy: drop the slot by SELECT pg_drop_replication_slot(%s), then "+readAgain+"; see max_slot_wal_keep_size",
			capture.ErrPositionLost, name, sl.Lost, sl.Confirmed, quoteLiteral(name))
	case sl.Synced && srv.InRecovery:
		return fmt.Errorf("the server is a standby, whose copy of slot %q can be read once it is promoted; %s", name, namePrimary)
	}
	return nil
}

// namePrimary ends what is said of a standby.
const namePrimary = "remedy: let url name the primary; with all hosts and target_session_attrs=read-write it follows a failover"

// Verify compares r with the server: its identity, its timeline, and the slot.
func (s *Source) Verify(ctx context.Context, r capture.Resume) error {
	repl, err := s.connect(ctx, true, nil)
	if err != nil {
		return err
	}
	defer closeConn(repl)
	sql, err := s.connect(ctx, false, nil)
	if err != nil {
		return err
	}
	defer closeConn(sql)
	srv, err := s.identify(ctx, repl, sql)
	if err != nil {
		return err
	}
	sl, err := s.readSlot(ctx, sql, srv)
	if err != nil {
		return err
	}
	_, err = s.verify(ctx, repl, srv, sl, r)
	return err
}

// verify is Verify with what was asked already. It returns the position, which is zero
// at the first start.
func (s *Source) verify(ctx context.Context, repl *pgconn.PgConn, srv *server, sl *slot, r capture.Resume) (position, error) {
	if srv.InRecovery && srv.major() < 16 {
		err := errors.New("the server is a standby, and decoding the log on a standby takes PostgreSQL 16; " + namePrimary)
		if r.At == "" {
			return position{}, fmt.Errorf("%w: %w", capture.ErrMisconfigured, err)
		}
		return position{}, err // it may be about to be promoted
	}
	if sl != nil {
		if err := s.usable(sl, srv); err != nil {
			return position{}, err
		}
	}
	if r.At == "" {
		if sl == nil && s.cfg.SlotMode == SlotExisting {
			return position{}, fmt.Errorf("%w: there is no replication slot %q; remedy: SELECT pg_create_logical_replication_slot(%s, 'pgoutput')",
				capture.ErrMisconfigured, s.cfg.Slot, quoteLiteral(s.cfg.Slot))
		}
		return position{}, nil
	}
	at, err := parsePosition(r.At)
	if err != nil {
		return position{}, err
	}
	lost := func(format string, args ...any) (position, error) {
		return position{}, fmt.Errorf("%w: "+format, append([]any{capture.ErrPositionLost}, args...)...)
	}
	switch {
	case at.Source.SystemID != srv.SystemID:
		return lost("the checkpoint belongs to the server with system identifier %s and this one is %s; remedy: point url at the right server, or start a new pipeline",
			at.Source.SystemID, srv.SystemID)
	case at.Source.Database != srv.Database:
		return lost("the checkpoint belongs to the database with OID %d, and %q has OID %d; remedy: point url at the right database, or start a new pipeline",
			at.Source.Database, srv.DatabaseName, srv.Database)
	case at.Source.Slot != s.cfg.Slot:
		return lost("the checkpoint belongs to slot %q and slot says %q; remedy: set it back, or start a new pipeline", at.Source.Slot, s.cfg.Slot)
	case at.Source.Wire != wireText:
		return lost("the checkpoint was written while rows travelled as %q and this headwater reads %q; remedy: run the version that wrote it", at.Source.Wire, wireText)
	}
	if err := s.verifyTimeline(ctx, repl, srv, &at); err != nil {
		return position{}, err
	}
	switch {
	case sl == nil && srv.InRecovery && s.cfg.SlotFailover:
		return position{}, fmt.Errorf("the server is a standby without slot %q: waiting for it to take the slot over; %s", s.cfg.Slot, namePrimary)
	case sl == nil && at.Source.Timeline < srv.Timeline:
		return lost("replication slot %q did not come along when the server was promoted, and the changes after %s are lost with it; "+
			"remedy: "+readAgain+"; slot_failover keeps the slot on standbys that have sync_replication_slots", s.cfg.Slot, at.End)
	case sl == nil:
		return lost("replication slot %q is gone, and with it the changes after %s; remedy: "+readAgain, s.cfg.Slot, at.End)
	case sl.Confirmed > at.End:
		return lost("slot %q was advanced by somebody else: it begins at %s and the checkpoint stands at %s, so the changes between are lost; "+
			"remedy: "+readAgain, s.cfg.Slot, sl.Confirmed, at.End)
	case srv.Head < at.End && srv.InRecovery:
		return position{}, fmt.Errorf("the standby has replayed up to %s and the checkpoint stands at %s: waiting for it", srv.Head, at.End)
	case srv.Head < at.End:
		return lost("the server's log ends at %s and the checkpoint stands at %s: the server was set back to an older state; remedy: "+readAgain,
			srv.Head, at.End)
	}
	return at, nil
}

// verifyTimeline accepts a newer timeline that left the position's own one behind it.
func (s *Source) verifyTimeline(ctx context.Context, repl *pgconn.PgConn, srv *server, at *position) error {
	if at.Source.Timeline == srv.Timeline {
		return nil
	}
	if at.Source.Timeline > srv.Timeline {
		return fmt.Errorf("%w: the checkpoint was written on timeline %d and the server is on %d: it is an old primary or was restored; remedy: point url at the present primary",
			capture.ErrPositionLost, at.Source.Timeline, srv.Timeline)
	}
	history, err := pglogrepl.TimelineHistory(ctx, repl, srv.Timeline)
	if err != nil {
		return fmt.Errorf("read the history of timeline %d: %w", srv.Timeline, err)
	}
	end, found, err := switchPoint(history.Content, at.Source.Timeline)
	if err != nil {
		return err
	}
	if !found {
		return fmt.Errorf("%w: timeline %d of the checkpoint is no ancestor of the server's timeline %d; remedy: point url at the right server, or "+readAgain, capture.ErrPositionLost, at.Source.Timeline, srv.Timeline)
	}
	if at.End > end {
		return fmt.Errorf("%w: the server left timeline %d at %s and the checkpoint stands at %s: changes were published that the new primary never had; "+
			"remedy: "+readAgain+"; synchronized_standby_slots (PostgreSQL 17) keeps headwater behind the standbys",
			capture.ErrPositionLost, at.Source.Timeline, end, at.End)
	}
	return nil
}

// switchPoint finds where a timeline ended. A history file has one line per ancestor:
// timeline, switch point and reason, separated by tabs; "#" begins a comment.
// https://www.postgresql.org/docs/current/continuous-archiving.html#BACKUP-TIMELINES
func switchPoint(history []byte, timeline int32) (LSN, bool, error) {
	for line := range strings.Lines(string(history)) {
		f := strings.Fields(line)
		if len(f) < 2 || strings.HasPrefix(f[0], "#") || f[0] != strconv.Itoa(int(timeline)) {
			continue
		}
		lsn, err := pglogrepl.ParseLSN(f[1])
		if err != nil {
			return 0, false, fmt.Errorf("read the timeline history: %w", err)
		}
		return lsn, true, nil
	}
	return 0, false, nil
}
