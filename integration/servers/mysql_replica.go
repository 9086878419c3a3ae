package servers

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/go-mysql-org/go-mysql/mysql"
)

// Follow makes the server a read-only replica of source by GTID, and returns once
// it replicates. A new server takes over all that source has; so source must have
// its whole binlog still. A server that was a source itself may follow the one that
// was promoted in its place, if it has no transaction that the other lacks.
func (m *MySQL) Follow(ctx context.Context, source *MySQL) error {
	if m.external != nil || source.external != nil {
		return fmt.Errorf("follow another server: %w", ErrExternal)
	}
	w := m.words()
	statements := []string{"STOP " + w.replica}
	if m.Flavor == mysql.MariaDBFlavor {
		// What it wrote itself counts as known.
		statements = append(statements, "SET GLOBAL gtid_slave_pos = @@global.gtid_current_pos")
	}
	statements = append(statements,
		fmt.Sprintf("CHANGE %s TO %s_HOST='127.0.0.1', %[2]s_PORT=%[3]d, %[2]s_USER='root', %[2]s_CONNECT_RETRY=1, %[4]s",
			w.change, w.source, source.Port, w.gtid),
		"START "+w.replica,
		"SET GLOBAL "+w.readOnly+"=ON")
	if _, err := m.query(ctx, statements...); err != nil {
		return fmt.Errorf("follow another server: %w", err)
	}
	for {
		s, err := m.replication(ctx)
		if err != nil {
			return fmt.Errorf("follow another server: %w", err)
		}
		if failure := s.ioError + s.sqlError; failure != "" {
			return fmt.Errorf("follow another server: %s", failure)
		}
		if s.running {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("follow another server: %w", ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// CatchUp waits until the replica has every transaction that source has when it is
// called.
func (m *MySQL) CatchUp(ctx context.Context, source *MySQL) error {
	r, err := source.query(ctx, "SELECT @@global."+source.words().executed)
	if err != nil {
		return fmt.Errorf("catch up: %w", err)
	}
	set, err := r.GetString(0, 0)
	if err != nil {
		return fmt.Errorf("catch up: %w", err)
	}
	if err := m.apply(ctx, set); err != nil {
		return fmt.Errorf("catch up: %w", err)
	}
	return nil
}

// Promote ends replication, once all that was received is applied, and makes the
// server one that takes writes. Its source may have ended before.
func (m *MySQL) Promote(ctx context.Context) error {
	w := m.words()
	if _, err := m.query(ctx, "STOP "+w.replica+" IO_THREAD"); err != nil {
		return fmt.Errorf("promote a replica: %w", err)
	}
	s, err := m.replication(ctx)
	if err != nil {
		return fmt.Errorf("promote a replica: %w", err)
	}
	if err := m.apply(ctx, s.received); err != nil {
		return fmt.Errorf("promote a replica: %w", err)
	}
	statements := []string{"STOP " + w.replica, "RESET " + w.replica + " ALL", "SET GLOBAL read_only=OFF"}
	if m.Flavor == mysql.MySQLFlavor {
		statements = append(statements, "SET GLOBAL super_read_only=OFF")
	}
	if _, err := m.query(ctx, statements...); err != nil {
		return fmt.Errorf("promote a replica: %w", err)
	}
	return nil
}

// apply waits until the server has executed the GTIDs.
func (m *MySQL) apply(ctx context.Context, gtids string) error {
	for {
		r, err := m.query(ctx, fmt.Sprintf(m.words().wait, gtids))
		if err != nil {
			return err
		}
		// A second has passed where it is not zero.
		if left, err := r.GetInt(0, 0); err != nil || left == 0 {
			return err
		}
		s, err := m.replication(ctx)
		if err != nil {
			return err
		}
		if s.sqlError != "" {
			return errors.New(s.sqlError)
		}
	}
}

// replication is what a replica tells of itself.
type replication struct {
	running  bool   // it receives and applies
	received string // GTIDs
	// Errors that made it stop receiving or applying, or try again.
	ioError, sqlError string
}

func (m *MySQL) replication(ctx context.Context) (s replication, err error) {
	w := m.words()
	r, err := m.query(ctx, "SHOW "+w.replica+" STATUS")
	if err != nil {
		return s, err
	}
	if r.RowNumber() == 0 {
		return s, errors.New("the server follows no other")
	}
	var io, sql string
	for name, value := range map[string]*string{
		w.io: &io, w.sql: &sql, w.received: &s.received, "Last_IO_Error": &s.ioError, "Last_SQL_Error": &s.sqlError,
	} {
		if *value, err = r.GetStringByName(0, name); err != nil {
			return s, err
		}
	}
	s.running = io == "Yes" && sql == "Yes"
	return s, nil
}

// replicationWords are the words that differ by flavor and version.
type replicationWords struct {
	replica, change, source, gtid, readOnly string // of statements
	io, sql, received                       string // columns of the status
	executed                                string // the variable with what the server has
	wait                                    string // a query that waits up to a second for GTIDs
}

func (m *MySQL) words() replicationWords {
	w := replicationWords{
		replica: "SLAVE", change: "MASTER", source: "MASTER", readOnly: "super_read_only",
		gtid: "MASTER_AUTO_POSITION=1, GET_MASTER_PUBLIC_KEY=1",
		io:   "Slave_IO_Running", sql: "Slave_SQL_Running", received: "Retrieved_Gtid_Set",
		executed: "gtid_executed",
		wait:     "SELECT WAIT_FOR_EXECUTED_GTID_SET('%s', 1)",
	}
	switch {
	case m.Flavor == mysql.MariaDBFlavor:
		w.readOnly = "read_only"
		w.gtid = "MASTER_USE_GTID=slave_pos, MASTER_SSL=0, MASTER_SSL_VERIFY_SERVER_CERT=0"
		w.received = "Gtid_IO_Pos"
		w.executed = "gtid_current_pos"
		w.wait = "SELECT MASTER_GTID_WAIT('%s', 1)"
	case m.home.atLeast(8, 0, 23):
		w.replica, w.change, w.source = "REPLICA", "REPLICATION SOURCE", "SOURCE"
		w.gtid = "SOURCE_AUTO_POSITION=1, GET_SOURCE_PUBLIC_KEY=1"
		w.io, w.sql = "Replica_IO_Running", "Replica_SQL_Running"
	}
	return w
}
