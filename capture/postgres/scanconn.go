package postgres

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// A scanConn is a connection for reading tables, by one view after the other.
type scanConn struct {
	*pgconn.PgConn
	systemID string
	pages    pageSizes
	// ending reads the answer to the end of the last view, which nobody has waited for.
	// It is nil when there is none.
	ending func() error

	// What follows is about the table with this OID.
	table    string
	prepared map[string]string // names of statements, by their text
	largest  int               // bytes of the largest row in the chunk before, 0 when not known
}

// newConn opens one.
func (s *Scanner) newConn(ctx context.Context) (*scanConn, error) {
	conn, err := s.src.connect(ctx, false, func(r io.Reader, w io.Writer) *pgproto3.Frontend {
		return pgproto3.NewFrontend(bufio.NewReaderSize(r, readBuffer), w)
	})
	if err != nil {
		return nil, err
	}
	// Policies would hide rows that the log shows: with row_security off, reading such
	// a table fails instead. A tiny cursor_tuple_fraction makes the planner follow the
	// key's index rather than sort the table for each chunk.
	row, err := queryRow(ctx, conn, "SET row_security = off; SET cursor_tuple_fraction = 0.000001; "+
		// PostgreSQL 17 and up: a long read of a table without a key must not be cut short.
		"SELECT set_config(name, '0', false) FROM pg_settings WHERE name = 'transaction_timeout'; "+
		`SELECT (SELECT system_identifier FROM pg_control_system()),
			(SELECT setting FROM pg_settings WHERE name = 'wal_block_size'), (SELECT setting FROM pg_settings WHERE name = 'wal_segment_size')`)
	if err != nil {
		closeConn(conn)
		return nil, fmt.Errorf("prepare a connection for reading tables: %w", err)
	}
	c := &scanConn{PgConn: conn, systemID: row[0]}
	var err1, err2 error
	c.pages.block, err1 = parseSize(row[1])
	c.pages.segment, err2 = parseSize(row[2])
	if err := errors.Join(err1, err2); err != nil {
		closeConn(conn)
		return nil, fmt.Errorf("read the page sizes of the server's log: %w", err)
	}
	return c, nil
}

func parseSize(text string) (LSN, error) {
	n, err := strconv.ParseUint(text, 10, 64)
	return LSN(n), err
}

// on runs f on a connection, which it returns. The idle one may have been closed since
// it was used: then f runs again on a new one.
func (s *Scanner) on(ctx context.Context, f func(*scanConn) error) (*scanConn, error) {
	c := s.take()
	idle := c != nil
	if idle && c.settle(ctx) != nil {
		closeConn(c.PgConn)
		c, idle = nil, false
	}
	for {
		if c == nil {
			var err error
			if c, err = s.newConn(ctx); err != nil {
				return nil, err
			}
		}
		err := f(c)
		if err == nil {
			return c, nil
		}
		again := idle && c.IsClosed() && ctx.Err() == nil
		closeConn(c.PgConn)
		if !again {
			return nil, err
		}
		c, idle = nil, false
	}
}

// take takes an idle connection, if there is one.
func (s *Scanner) take() *scanConn {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.idle) == 0 {
		return nil
	}
	c := s.idle[len(s.idle)-1]
	s.idle = s.idle[:len(s.idle)-1]
	return c
}

// maxIdle is one connection for the view that is read and one for the next.
const maxIdle = 2

// release keeps a connection for a later view.
func (s *Scanner) release(c *scanConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.idle) >= maxIdle {
		closeConn(c.PgConn)
		return
	}
	s.idle = append(s.idle, c)
}

func (s *Scanner) close() {
	for c := s.take(); c != nil; c = s.take() {
		closeConn(c.PgConn)
	}
}

// settle awaits the end of the last view.
func (c *scanConn) settle(ctx context.Context) error {
	if c.ending == nil {
		return nil
	}
	stop := c.until(ctx)
	err := c.ending()
	c.ending = nil
	stop()
	if err == nil && (c.IsClosed() || c.TxStatus() != 'I') {
		err = errors.New("the connection is not idle")
	}
	return err
}

// until makes what waits for the server fail once ctx ends, up to a call of stop.
func (c *scanConn) until(ctx context.Context) (stop func()) {
	end := context.AfterFunc(ctx, func() { _ = c.Conn().SetDeadline(time.Unix(1, 0)) })
	return func() {
		if !end() {
			closeConn(c.PgConn)
		}
	}
}

// about says that what is asked from now on is about a table.
func (c *scanConn) about(ctx context.Context, oid string) error {
	if c.table == oid {
		return nil
	}
	if len(c.prepared) > 0 {
		if _, err := query(ctx, c.PgConn, "DEALLOCATE ALL"); err != nil {
			return err
		}
	}
	c.table, c.prepared, c.largest = oid, make(map[string]string), 0
	return nil
}

// queryAll runs statements that are asked again for each chunk of a table: planning them
// takes the server several times as long as running them.
func (c *scanConn) queryAll(ctx context.Context, statements ...string) ([][][]string, error) {
	var prepare, execute strings.Builder
	for _, s := range statements {
		name := c.prepared[s]
		if name == "" {
			name = "about" + strconv.Itoa(len(c.prepared))
			c.prepared[s] = name
			prepare.WriteString("PREPARE " + name + " AS " + s + ";")
		}
		execute.WriteString("EXECUTE " + name + ";")
	}
	results, err := queryAll(ctx, c.PgConn, prepare.String()+execute.String())
	if err != nil {
		return nil, err
	}
	return results[len(results)-len(statements):], nil
}
