package integration

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/go-mysql-org/go-mysql/client"
	"github.com/go-mysql-org/go-mysql/mysql"
	"github.com/go-mysql-org/go-mysql/replication"

	"github.com/headwaterdb/headwater/integration/servers"
)

// workMySQL is the workload's database work on a MySQL or a MariaDB.
type workMySQL struct {
	db    *servers.MySQL
	begin mysql.GTIDSet // what the server had executed when headwater had begun
	// plain says that the server cannot compress what it logs: a MySQL before 8.0.20.
	plain bool
}

const workDatabase = "work"

func (l *workMySQL) config() (source, include string) {
	return fmt.Sprintf("mysql: {url: %q, heartbeat_interval: 1s}", strings.TrimSuffix(l.db.URL(""), "/")), workDatabase + ".*"
}

func (l *workMySQL) create(ctx context.Context) error {
	err := l.do(ctx, "", "SET SESSION binlog_transaction_compression = ON")
	var my *mysql.MyError
	l.plain = l.db.Flavor == mysql.MySQLFlavor && errors.As(err, &my) && my.Code == mysql.ER_UNKNOWN_SYSTEM_VARIABLE
	return l.do(ctx, "",
		"CREATE DATABASE "+workDatabase,
		"USE "+workDatabase,
		`CREATE TABLE orders (
		  id bigint PRIMARY KEY, ver bigint NOT NULL, item varchar(100) NOT NULL, amount decimal(12,2) NOT NULL,
		  at timestamp(6) NOT NULL DEFAULT current_timestamp(6), doc json, big longtext)`,
		"CREATE TABLE pairs (a varchar(20), ver bigint NOT NULL, b int, item text, amount decimal(12,2), PRIMARY KEY (b, a))",
		"CREATE TABLE whole (id char(36) CHARACTER SET latin1 PRIMARY KEY, ver bigint NOT NULL, item text, amount decimal(12,2))",
		"CREATE TABLE keyless (ver bigint NOT NULL, item text)",
	)
}

// do runs statements on a connection of their own.
func (l *workMySQL) do(ctx context.Context, db string, statements ...string) error {
	conn, err := l.db.Connect(ctx, db)
	if err != nil {
		return err
	}
	defer conn.Quit()
	for _, sql := range statements {
		if _, err := conn.Execute(sql); err != nil {
			return fmt.Errorf("%s: %w", clip(sql), err)
		}
	}
	return nil
}

type mysqlSession struct{ *client.Conn }

func (s mysqlSession) exec(_ context.Context, sql string) error {
	_, err := s.Execute(sql)
	return err
}

func (s mysqlSession) close() { s.Quit() }

// open lets every second connection compress its transactions, where that is a matter of
// connections.
func (l *workMySQL) open(ctx context.Context, n int) (session, error) {
	conn, err := l.db.Connect(ctx, workDatabase)
	if err != nil {
		return nil, err
	}
	if l.db.Flavor == mysql.MySQLFlavor && !l.plain && n%2 == 1 {
		if _, err := conn.Execute("SET SESSION binlog_transaction_compression = ON"); err != nil {
			conn.Close()
			return nil, err
		}
	}
	return mysqlSession{conn}, nil
}

func (l *workMySQL) judge(err error) fate {
	var my *mysql.MyError
	switch {
	case !errors.As(err, &my) || my.Code == mysql.ER_SERVER_SHUTDOWN:
		return gone
	case my.Code == mysql.ER_DUP_ENTRY || my.Code == mysql.ER_LOCK_DEADLOCK || my.Code == mysql.ER_LOCK_WAIT_TIMEOUT || my.Code == mysql.ER_CHECKREAD:
		return refused
	}
	return fatal
}

func (l *workMySQL) upsert(key, set string) string {
	if set == "" {
		set = key + " = " + key // a row that stays as it is is not logged
	}
	return "ON DUPLICATE KEY UPDATE " + set
}

// executed is what the server has logged.
func (l *workMySQL) executed(ctx context.Context) (mysql.GTIDSet, error) {
	conn, err := l.db.Connect(ctx, "")
	if err != nil {
		return nil, err
	}
	defer conn.Quit()
	variable := map[string]string{mysql.MySQLFlavor: "gtid_executed", mysql.MariaDBFlavor: "gtid_binlog_pos"}[l.db.Flavor]
	r, err := conn.Execute("SELECT @@global." + variable)
	if err != nil {
		return nil, err
	}
	text, err := r.GetString(0, 0)
	if err != nil {
		return nil, err
	}
	return mysql.ParseGTIDSet(l.db.Flavor, strings.Join(strings.Fields(text), ""))
}

// published is the checkpoint's set of transactions, nil when there is none yet.
func (l *workMySQL) published(t *testing.T, p *pipeline) (mysql.GTIDSet, error) {
	t.Helper()
	var at struct{ GTID string }
	if err := p.position(&at); err != nil || at.GTID == "" {
		return nil, err
	}
	return mysql.ParseGTIDSet(l.db.Flavor, at.GTID)
}

func (l *workMySQL) began(t *testing.T, p *pipeline) {
	t.Helper()
	t.Logf("%s %s", l.db.Flavor, l.db.Version)
	waitFor(t, p, 4*time.Minute, "a first checkpoint", func() (ok bool, err error) {
		at, err := l.published(t, p)
		return at != nil, err
	})
	var err error
	if l.begin, err = l.executed(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// vary has transactions compressed between every second pair of kills, where that is a
// matter of the server.
func (l *workMySQL) vary(ctx context.Context, n int) error {
	if l.db.Flavor != mysql.MariaDBFlavor {
		return nil
	}
	return l.do(ctx, "", "SET GLOBAL log_bin_compress_min_len = 10", fmt.Sprintf("SET GLOBAL log_bin_compress = %d", n%2))
}

func (l *workMySQL) crash(ctx context.Context) error {
	return errors.Join(l.db.Kill(), l.db.Restart(ctx))
}

func (l *workMySQL) caughtUp(t *testing.T, p *pipeline) {
	t.Helper()
	want, err := l.executed(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, p, 10*time.Minute, "the transactions "+want.String()+" in the checkpoint", func() (bool, error) {
		at, err := l.published(t, p)
		return at != nil && at.Contain(want), err
	})
}

// history is the log as go-mysql decodes rows, which headwater does by itself.
func (l *workMySQL) history(ctx context.Context, end int64) (history []change, err error) {
	user, password := l.db.User()
	config := replication.BinlogSyncerConfig{
		ServerID: 77, Flavor: l.db.Flavor, Host: "127.0.0.1", Port: uint16(l.db.Port), User: user, Password: password,
		DisableRetrySync: true, DiscardGTIDSet: true, Logger: slog.New(slog.DiscardHandler),
	}
	syncer := replication.NewBinlogSyncer(config)
	defer func() { syncer.Close() }()
	passed := l.begin.Clone()
	stream, err := syncer.StartSyncGTID(passed.Clone())
	if err != nil {
		return nil, err
	}
	compressed, plain := 0, 0
	open, whole, cuts := "", 0, 0 // the GTID of MariaDB's open transaction, and the changes before it
	for {
		event, err := stream.GetEvent(ctx)
		var my *mysql.MyError
		if errors.As(err, &my) && strings.Contains(my.Message, "truncated in the middle of event") && cuts < 100 {
			// A crash of the server cut the file. It sends the next one to whoever has all
			// transactions that are whole.
			cuts++
			history, open = history[:whole], ""
			syncer.Close()
			syncer = replication.NewBinlogSyncer(config)
			if stream, err = syncer.StartSyncGTID(passed.Clone()); err == nil {
				continue
			}
		}
		if err != nil {
			return nil, err
		}
		switch e := event.Event.(type) {
		case *replication.MariadbGTIDEvent:
			if err := l.pass(passed, open); err != nil {
				return nil, err
			}
			open, whole = e.GTID.String(), len(history)
		case *replication.XIDEvent:
			if err := l.pass(passed, open); err != nil {
				return nil, err
			}
			open, whole = "", len(history)
		}
		inner := []*replication.BinlogEvent{event}
		if payload, ok := event.Event.(*replication.TransactionPayloadEvent); ok {
			inner = payload.Events
		}
		for _, in := range inner {
			e, ok := in.Event.(*replication.RowsEvent)
			if !ok || string(e.Table.Schema) != workDatabase {
				continue
			}
			if len(inner) > 1 || in.Header.EventType >= replication.MARIADB_WRITE_ROWS_COMPRESSED_EVENT_V1 {
				compressed++
			} else {
				plain++
			}
			rows, err := rowChanges(e)
			if err != nil {
				return nil, err
			}
			history = append(history, rows...)
			if last := rows[len(rows)-1]; last.table == "keyless" && last.ver == end {
				if plain == 0 || (compressed == 0) != l.plain {
					return nil, fmt.Errorf("the log has %d compressed and %d plain events, want both if the server can compress: %t", compressed, plain, !l.plain)
				}
				return history, nil
			}
		}
	}
}

// pass adds a transaction of MariaDB, if there is one.
func (l *workMySQL) pass(set mysql.GTIDSet, gtid string) error {
	if gtid == "" {
		return nil
	}
	return set.Update(gtid)
}

// rowChanges reads an event by the names that the log gives to columns.
func rowChanges(e *replication.RowsEvent) (changes []change, err error) {
	table := string(e.Table.Table)
	at := map[string]int{}
	for i, name := range e.Table.ColumnNameString() {
		at[name] = i
	}
	if len(at) != int(e.ColumnCount) {
		return nil, fmt.Errorf("the log names %d of %d columns of %s", len(at), e.ColumnCount, table)
	}
	key := func(row []any) string {
		var parts []string
		for _, n := range keyNames[table] {
			parts = append(parts, fmt.Sprint(row[at[n]]))
		}
		return strings.Join(parts, "/")
	}
	for i := 0; i < len(e.Rows); i++ {
		before, op := e.Rows[i], byte('c')
		switch e.Type() {
		case replication.EnumRowsEventTypeUpdate:
			op = 'u'
			i++
		case replication.EnumRowsEventTypeDelete:
			op = 'd'
		}
		after := e.Rows[i]
		changes = append(changes, rowChange(table, op, key(before), key(after), after[at["ver"]].(int64))...)
	}
	return changes, nil
}

func (l *workMySQL) held(ctx context.Context, table string, key []string) (map[string]int64, error) {
	conn, err := l.db.Connect(ctx, workDatabase)
	if err != nil {
		return nil, err
	}
	defer conn.Quit()
	if len(key) == 0 {
		key = []string{"ver"}
	}
	r, err := conn.Execute(fmt.Sprintf("SELECT concat_ws('/', %s), ver FROM %s", strings.Join(key, ", "), table))
	if err != nil {
		return nil, err
	}
	held := map[string]int64{}
	for i := range r.RowNumber() {
		k, err1 := r.GetString(i, 0)
		ver, err2 := r.GetInt(i, 1)
		if err := errors.Join(err1, err2); err != nil {
			return nil, err
		}
		held[k] = ver
	}
	return held, nil
}
