package postgres

import (
	"context"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// The server may make us wait for as long as it likes: for a lock, for a transaction to
// end, for its own work. Nothing here ends such a wait; a person hears of it.

// patience is how long the server may be without a word.
type patience struct {
	// blocked is when a statement that waits is reported, and again how often then.
	blocked, again time.Duration
	// silent is after how long without any message of the log the server is asked
	// whether it still sends: it is asked for one at every status update.
	silent time.Duration
	// slot is how long a slot may stay with a reader that has just gone, such as an earlier
	// Stream of ours. Another one that stays is an error, which may be retried.
	slot time.Duration
}

var usualPatience = patience{blocked: 5 * time.Second, again: time.Minute, silent: time.Minute, slot: 2 * time.Second}

// blockable runs f, which waits for an answer on conn, and says in the log whom the
// server waits for meanwhile. doing begins the sentence, such as "creating the slot".
func (s *Source) blockable(ctx context.Context, conn *pgconn.PgConn, doing string, f func(context.Context) error) error {
	beside, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		for next := s.patience.blocked; ; next = s.patience.again {
			select {
			case <-beside.Done():
				return
			case <-time.After(next):
			}
			err := s.askAside(beside, func(ctx context.Context, aside *pgconn.PgConn) error {
				return s.reportBlockers(ctx, aside, conn.PID(), doing)
			})
			if err != nil && beside.Err() == nil {
				s.log.Warn(doing+" takes the server long, and it cannot be asked why", "error", err)
			}
		}
	})
	defer wg.Wait()
	defer cancel()
	return f(ctx)
}

// askAside runs f on a connection of its own, and not for long.
func (s *Source) askAside(ctx context.Context, f func(context.Context, *pgconn.PgConn) error) error {
	ctx, cancel := context.WithTimeout(ctx, 2*s.cfg.ConnectTimeout)
	defer cancel()
	conn, err := s.connect(ctx, false, nil)
	if err != nil {
		return err
	}
	defer closeConn(conn)
	return f(ctx, conn)
}

// reportBlockers says in the log what the server's process pid waits for. Of sessions
// of other roles the server shows little to an ordinary user; what they run is left out,
// since SQL can hold secrets.
func (s *Source) reportBlockers(ctx context.Context, conn *pgconn.PgConn, pid uint32, doing string) error {
	blockers, err := query(ctx, conn, fmt.Sprintf(`SELECT b.pid, l.transactionid, a.usename, a.application_name, a.state,
			extract(epoch FROM clock_timestamp() - a.xact_start)::bigint, p.gid
		FROM unnest(pg_blocking_pids(%[1]d)) b(pid)
		LEFT JOIN pg_locks l ON l.pid = %[1]d AND NOT l.granted
		LEFT JOIN pg_stat_activity a ON a.pid = b.pid
		LEFT JOIN pg_prepared_xacts p ON p.transaction = l.transactionid`, pid))
	if err != nil {
		return err
	}
	for _, b := range blockers {
		attrs := []any{"pid", b[0]}
		for i, name := range []string{"", "xid", "user", "application", "state"} {
			if i > 0 && b[i] != "" {
				attrs = append(attrs, name, b[i])
			}
		}
		if b[5] != "" {
			attrs = append(attrs, "open_for", b[5]+"s")
		}
		remedy := "let it end, or SELECT pg_terminate_backend(" + b[0] + ")"
		if b[0] == "0" { // a prepared transaction has no process
			attrs = append(attrs[2:], "prepared", b[6])
			remedy = "COMMIT PREPARED or ROLLBACK PREPARED " + quoteLiteral(b[6])
		}
		s.log.Warn(doing+" waits for another transaction to end", append(attrs, "remedy", remedy)...)
	}
	if len(blockers) > 0 {
		return nil
	}
	rows, err := query(ctx, conn, fmt.Sprintf(`SELECT concat_ws('/', wait_event_type, wait_event) FROM pg_stat_activity WHERE pid = %d`, pid))
	if err == nil && len(rows) > 0 {
		s.log.Warn(doing+" takes the server long", "pid", pid, "wait_event", rows[0][0])
	}
	return err
}

// A hearing notes since when a read waits for the server.
type hearing struct {
	io.Reader
	born  time.Time
	since atomic.Int64 // after born, in nanoseconds; 0 while no read waits
}

func (h *hearing) Read(p []byte) (int, error) {
	h.since.Store(max(1, int64(time.Since(h.born))))
	defer h.since.Store(0)
	return h.Reader.Read(p)
}

// silence is how long the present read has been waiting.
func (h *hearing) silence() time.Duration {
	since := h.since.Load()
	if since == 0 {
		return 0
	}
	return time.Since(h.born) - time.Duration(since)
}

// listen notices a connection that carries nothing any more, and ends Stream then.
func (st *stream) listen(ctx context.Context) error {
	patience := st.src.patience.silent
	for wait := patience; ; {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
		silence := st.hear.silence()
		if wait = patience - silence; wait > 0 {
			continue
		}
		if err := st.lost(ctx, silence); err != nil {
			return fmt.Errorf("read the log: %w", err)
		}
		wait = patience
	}
}

// lost asks the server by another way why it says nothing. Its process for our slot may
// work for long without a word, on a transaction of which it has nothing to send. One
// that is asleep has answered our status updates, and the answers did not reach us. Where
// the server cannot be asked, nothing is known, and a stream that lives must not end.
func (st *stream) lost(ctx context.Context, silence time.Duration) error {
	pid, dead := st.conn.PID(), ""
	err := st.src.askAside(ctx, func(ctx context.Context, aside *pgconn.PgConn) error {
		rows, err := query(ctx, aside, fmt.Sprintf(`SELECT wait_event_type FROM pg_stat_activity WHERE pid = %d AND backend_type = 'walsender'`, pid))
		switch {
		case err != nil:
			return err
		case len(rows) == 0:
			dead = "is gone"
		case st.hear.silence() < silence: // it has just said something
		case rows[0][0] == "Activity" || rows[0][0] == "Client":
			dead = "has nothing to do: what it sends is lost on the way"
		default:
			return st.src.reportBlockers(ctx, aside, pid, "sending the log")
		}
		return nil
	})
	silence = silence.Round(time.Millisecond)
	switch {
	case dead != "":
		return fmt.Errorf("the server has sent nothing for %s, and its process %d for us %s", silence, pid, dead)
	case err != nil && ctx.Err() == nil:
		st.src.log.Warn("the server sends nothing and cannot be asked why", "silent_for", silence.String(), "error", err)
	}
	return nil
}
