package postgres

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"
)

// A mark is the end of the log as it is written, and the server sends what is flushed.
// Mostly the two meet at once. They do not while nothing makes the server flush: after
// a switch of the log's file, or beside an open transaction, of whose changes whole
// pages are flushed, which end in the middle of a record.
//
// But every commit that a view can hold is flushed in the end: a synchronous one before
// it becomes visible, an asynchronous one within three wal_writer_delay. After that
// time it suffices that the server has sent each record which is flushed as a whole.
// The server's process for our slot proves that:
//
//  1. Note the server's time.
//  2. Await three keepalives that the process has sent since. It can send two at most
//     between looking where the flushed log ends and going to sleep, so it has looked
//     after step 1.
//  3. Find it asleep for want of flushed log, and note the time again. Then it has sent
//     all that was whole and flushed at step 1.
//  4. The mark is passed with the first keepalive from after step 3: what was sent
//     before it has arrived.
//
// pg_stat_replication would say it more simply, but only to members of
// pg_read_all_stats.

const (
	// watchPoll is how often watch looks for marks that are stuck.
	watchPoll = 250 * time.Millisecond
	// markPatience is how long a mark waits at least before it is settled, and how long
	// the keepalives of step 2 may take: Stream takes none while it is held in emit.
	markPatience = time.Second
)

// watch settles marks that the sent log does not reach, and measures the backlog, until
// ctx ends. What fails is tried again later: nothing but the speed of a snapshot
// depends on it.
func (st *stream) watch(ctx context.Context) {
	w := watcher{st: st}
	defer w.close()
	tick := time.NewTicker(watchPoll)
	defer tick.Stop()
	measured := time.Time{}
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		due := time.Since(measured) >= st.src.cfg.StatusInterval
		mark, stuck := st.src.scan.stuckMark(time.Now().Add(-max(markPatience, w.flushDelay)))
		if !due && !stuck {
			continue
		}
		measured = time.Now()
		if err := w.look(ctx, mark, stuck); err != nil && ctx.Err() == nil {
			w.close()
			st.src.log.Debug("could not look at the end of the log", "error", err)
		}
	}
}

// A watcher has a connection of its own, so that it waits for nobody.
type watcher struct {
	st   *stream
	conn *pgconn.PgConn // nil when there is none
	// flushDelay is how long an asynchronous commit may stay unflushed, and some.
	flushDelay time.Duration
}

func (w *watcher) close() {
	if w.conn != nil {
		closeConn(w.conn)
		w.conn = nil
	}
}

func (w *watcher) look(ctx context.Context, m mark, stuck bool) error {
	if w.conn == nil {
		var err error
		if w.conn, err = w.st.src.connect(ctx, false, nil); err != nil {
			return err
		}
	}
	row, err := queryRow(ctx, w.conn, `SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END,
		(SELECT setting FROM pg_settings WHERE name = 'wal_writer_delay')`)
	if err != nil {
		return err
	}
	end, err1 := pglogrepl.ParseLSN(row[0])
	delay, err2 := strconv.Atoi(row[1])
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	w.st.src.metrics.backlog.Set(max(0, float64(end)-float64(w.st.received.Load())))
	w.flushDelay = 4 * time.Duration(delay) * time.Millisecond
	if !stuck || time.Since(m.set) < w.flushDelay {
		return nil
	}
	return w.settle(ctx, m)
}

// settle takes the steps above. It gives up where they do not come true.
func (w *watcher) settle(ctx context.Context, m mark) error {
	row, err := queryRow(ctx, w.conn, `SELECT `+serverTime)
	if err != nil {
		return err
	}
	since, err := strconv.ParseInt(row[0], 10, 64)
	if err != nil {
		return fmt.Errorf("read the server's time: %w", err)
	}
	w.st.src.scan.countKeepalives(since)
	for began := time.Now(); w.st.src.scan.keepalives() < 3; {
		if time.Since(began) > markPatience {
			return nil
		}
		w.st.wakeReport()
		select {
		case <-time.After(markPoll):
		case <-ctx.Done():
			return nil
		}
	}
	rows, err := query(ctx, w.conn, `SELECT `+serverTime+` FROM pg_replication_slots s JOIN pg_stat_activity a ON a.pid = s.active_pid
		WHERE s.slot_name = `+quoteLiteral(w.st.src.cfg.Slot)+` AND lower(a.wait_event) = 'walsenderwaitforwal'`)
	if err != nil || len(rows) == 0 {
		return err
	}
	asleep, err := strconv.ParseInt(rows[0][0], 10, 64)
	if err != nil {
		return fmt.Errorf("read the server's time: %w", err)
	}
	w.st.src.scan.settleMarks(m, asleep)
	w.st.wakeReport()
	return nil
}

// serverTime is in microseconds since the Unix epoch.
const serverTime = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
