package postgres

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/headwaterdb/headwater/capture"
)

// readBuffer is what one read from the socket may bring.
const readBuffer = 256 << 10

// Stream reads the log from r on. At the first start it makes publication and slot as
// the configuration allows, and emits the place where the slot begins before anything
// else (rule R28 of publish/DESIGN.md).
func (s *Source) Stream(ctx context.Context, r capture.Resume, emit capture.EmitFunc) (err error) {
	s.mu.Lock()
	busy := s.streaming
	s.streaming = true
	s.mu.Unlock()
	if busy {
		return errors.New("the log is being streamed already")
	}
	defer func() {
		s.mu.Lock()
		s.streaming = false
		s.mu.Unlock()
	}()

	parent := ctx
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	st, err := s.open(ctx, r, emit)
	if err != nil {
		return err
	}
	defer st.close()

	var beside sync.WaitGroup
	for _, f := range []func(context.Context) error{st.report, st.listen} {
		beside.Go(func() {
			if err := f(ctx); err != nil {
				cancel(err)
			}
		})
	}
	beside.Go(func() { st.watch(ctx) })
	defer func() {
		cancel(nil)
		beside.Wait()
	}()
	// Reading has no context of its own: the end of ctx makes the socket time out.
	defer context.AfterFunc(ctx, func() { _ = st.conn.Conn().SetDeadline(time.Unix(1, 0)) })()

	s.scan.connect()
	if st.resume == nil {
		s.scan.open()
	}
	err = st.run(ctx)
	var failed *emitError
	switch {
	case errors.As(err, &failed):
		return failed.err
	case parent.Err() != nil:
		return context.Cause(parent)
	case errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() != nil:
		return context.Cause(ctx) // what report or listen met
	}
	return err
}

// A stream is one run of Stream. All but report, listen and watch belongs to its
// goroutine.
type stream struct {
	src  *Source
	srv  *server
	conn *pgconn.PgConn
	in   *bufio.Reader // between conn's socket and its frontend
	hear *hearing      // below in
	// relations are the tables as they were described last, by their OID.
	relations map[uint32]*relation
	// catalog is an ordinary connection.
	catalog *pgconn.PgConn
	emit    capture.EmitFunc
	// messages stands for the table of messages.
	messages *capture.Table
	// warned is when the server's warnings were last passed on, by the routine of the
	// server that gives them.
	warned map[string]time.Time

	batch *capture.Batch
	rows  int      // changes in it
	xids  []uint32 // transactions whose first row is in it
	// at is the last commit boundary that the batch reaches.
	at     position
	writer *positionWriter
	// moved says that at went on without an event since the last batch.
	moved    bool
	lastEmit time.Time

	tx txState
	// seq is the "sequence" text of the changes at seqLSN, as the batch holds it.
	seq          capture.Value
	originValues capture.Row // likewise
	seqLSN       LSN
	seqBuf       []byte
	// resume is the cut transaction of the checkpoint until it was passed.
	resume *capture.InTx

	// received is what we know the server has sent us all of: the write position of
	// status updates.
	received atomic.Uint64
	// wake asks report for a status update at once.
	wake chan struct{}
}

// txState is the transaction that is being read.
type txState struct {
	open   bool
	skip   bool // emitted before
	final  LSN  // position of its commit record
	xid    uint32
	micros int64 // commit time
	done   uint64
	crc    uint32
	// emitted says that a row of it has reached a batch, in this run or before.
	emitted bool
	// inBatch is its value in the batch at hand.
	inBatch *capture.Tx
	origin  originState
}

// originState is where a transaction comes from when it was replicated to the server.
type originState struct {
	name string
	lsn  LSN
}

// open connects, finds the place to start at, and starts replication there.
func (s *Source) open(ctx context.Context, r capture.Resume, emit capture.EmitFunc) (st *stream, err error) {
	st = &stream{
		src: s, emit: emit, wake: make(chan struct{}, 1), batch: capture.NewBatch(), lastEmit: time.Now(),
		relations: make(map[uint32]*relation), messages: &capture.Table{Origin: s.catalog.origin},
		warned: make(map[string]time.Time),
	}
	defer func() {
		if err != nil {
			st.close()
		}
	}()
	st.conn, err = s.connect(ctx, true, func(r io.Reader, w io.Writer) *pgproto3.Frontend {
		st.hear = &hearing{Reader: r, born: time.Now()}
		st.in = bufio.NewReaderSize(st.hear, readBuffer)
		return pgproto3.NewFrontend(st.in, w)
	})
	if err != nil {
		return st, err
	}
	if st.catalog, err = s.connect(ctx, false, nil); err != nil {
		return st, err
	}
	if st.srv, err = s.identify(ctx, st.conn, st.catalog); err != nil {
		return st, err
	}
	if err := s.ensurePublication(ctx, st.catalog, st.srv); err != nil {
		return st, err
	}
	if err := s.refuse(ctx, st.catalog, st.srv); err != nil {
		return st, err
	}
	if err := st.begin(ctx, r); err != nil {
		return st, err
	}
	return st, st.startReplication(ctx)
}

func (st *stream) close() {
	st.src.scan.stop()
	if st.conn != nil {
		closeConn(st.conn)
	}
	if st.catalog != nil {
		closeConn(st.catalog)
	}
	st.batch.Release()
}

// begin finds the place to start at, makes the slot at the first start, and prepares
// what the scanner needs to know of it.
func (st *stream) begin(ctx context.Context, r capture.Resume) error {
	s := st.src
	sl, err := s.readSlot(ctx, st.catalog, st.srv)
	if err != nil {
		return err
	}
	if st.at, err = s.verify(ctx, st.conn, st.srv, sl, r); err != nil {
		return err
	}
	start := scanStart{resume: r}
	switch {
	case r.At != "":
		st.resume = r.InTx
	case sl != nil && sl.Confirmed == 0:
		return fmt.Errorf("replication slot %q is still being created by process %s", s.cfg.Slot, sl.ActivePID)
	case sl != nil:
		// The slot was made by hand, or the process died before the first checkpoint.
		// Nobody knows which transactions before it are visible by now.
		st.at.End = sl.Confirmed
		s.log.Info("starting at the position of the existing slot", "slot", s.cfg.Slot, "lsn", sl.Confirmed.String())
	default:
		if st.at.End, start.snapshot, err = s.createSlot(ctx, st.conn, st.srv); err != nil {
			return err
		}
		s.log.Info("created the replication slot", "slot", s.cfg.Slot, "lsn", st.at.End.String())
	}
	// Positions are written for the log as it is now: after a switch of timelines the
	// old one is behind us.
	st.at.Source = st.srv.identity
	if st.writer, err = newPositionWriter(st.srv.identity); err != nil {
		return err
	}
	st.received.Store(uint64(st.at.End))
	s.acked.Store(uint64(st.at.End))
	start.lsn = st.at.End
	if err := s.scan.start(start, st.srv, st.wakeReport); err != nil {
		return err
	}
	if r.At == "" {
		st.moved = true
	}
	return nil
}

// createSlot makes the slot and returns where it begins, and the snapshot in which
// exactly the transactions before that place are visible, as pg_current_snapshot prints
// it.
// https://www.postgresql.org/docs/current/protocol-replication.html#PROTOCOL-REPLICATION-CREATE-REPLICATION-SLOT
func (s *Source) createSlot(ctx context.Context, conn *pgconn.PgConn, srv *server) (LSN, string, error) {
	fail := func(err error) (LSN, string, error) {
		return 0, "", fmt.Errorf("create replication slot %q: %w", s.cfg.Slot, err)
	}
	plugin, action := "pgoutput", "USE_SNAPSHOT"
	if s.cfg.SlotFailover && srv.major() >= 17 && !srv.InRecovery { // a standby's own slot cannot have it
		plugin, action = "pgoutput (FAILOVER, SNAPSHOT 'use')", ""
	}
	if _, err := query(ctx, conn, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"); err != nil {
		return fail(err)
	}
	var made pglogrepl.CreateReplicationSlotResult
	// The server waits for every transaction that has written and is open by now.
	doing := "creating the replication slot"
	if srv.InRecovery {
		doing += " on a standby (until SELECT pg_log_standby_snapshot() on the primary, or its next checkpoint)"
	}
	err := s.blockable(ctx, conn, doing, func(ctx context.Context) (err error) {
		made, err = pglogrepl.CreateReplicationSlot(ctx, conn, s.cfg.Slot, plugin,
			pglogrepl.CreateReplicationSlotOptions{Mode: pglogrepl.LogicalReplication, SnapshotAction: action})
		return err
	})
	if err != nil {
		return fail(explain(err))
	}
	row, err := queryRow(ctx, conn, "SELECT pg_current_snapshot()")
	if err != nil {
		return fail(err)
	}
	if _, err := query(ctx, conn, "COMMIT"); err != nil {
		return fail(err)
	}
	lsn, err := pglogrepl.ParseLSN(made.ConsistentPoint)
	if err != nil {
		return fail(err)
	}
	return lsn, row[0], nil
}

func (st *stream) startReplication(ctx context.Context) error {
	// In replication commands a quote is doubled, and nothing else is special.
	name := strings.ReplaceAll(quoteIdent(st.src.cfg.Publication), "'", "''")
	args := []string{"proto_version '1'", "publication_names '" + name + "'"}
	if st.srv.major() >= 14 {
		args = append(args, "messages 'true'")
	}
	for began := time.Now(); ; {
		err := pglogrepl.StartReplication(ctx, st.conn, st.src.cfg.Slot, st.at.End, pglogrepl.StartReplicationOptions{
			Mode: pglogrepl.LogicalReplication, PluginArgs: args,
		})
		if err == nil {
			return nil
		}
		var pg *pgconn.PgError
		if errors.As(err, &pg) && pg.Code == "55006" && time.Since(began) < st.src.patience.slot { // object_in_use
			// The server ends its answer with a prompt, which the library leaves to us.
			if err := awaitPrompt(ctx, st.conn); err != nil {
				return err
			}
			select {
			case <-time.After(20 * time.Millisecond):
				continue
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		return fmt.Errorf("start replication from slot %q at %s: %w", st.src.cfg.Slot, st.at.End, explain(err))
	}
}

// awaitPrompt reads up to ReadyForQuery.
func awaitPrompt(ctx context.Context, conn *pgconn.PgConn) error {
	for {
		msg, err := conn.ReceiveMessage(ctx)
		if err != nil {
			return fmt.Errorf("start replication: %w", err)
		}
		if _, ready := msg.(*pgproto3.ReadyForQuery); ready {
			return nil
		}
	}
}

// explain marks the server's errors that retrying cannot change, and says what to do.
// https://www.postgresql.org/docs/current/errcodes-appendix.html
func explain(err error) error {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return err
	}
	mark := func(sentinel error, remedy string) error {
		return fmt.Errorf("%w: %w; remedy: %s", sentinel, err, remedy)
	}
	switch pg.Code {
	case "58P01": // undefined_file: a segment of the log was removed
		return mark(capture.ErrPositionLost, readAgain)
	case "55000": // object_not_in_prerequisite_state
		if strings.Contains(pg.Message, "wal_level") {
			return mark(capture.ErrMisconfigured, "ALTER SYSTEM SET wal_level = logical; then restart the server")
		}
		// The slot may be invalid, or a standby is missing while the server shuts down.
		// Which, verify finds out at the next start.
	case "42704": // undefined_object: a publication that is not there, or was not when the row was written
		return mark(capture.ErrMisconfigured, publishAgain)
	case "42501": // insufficient_privilege
		return mark(capture.ErrMisconfigured, "grant the user what it lacks; \"headwater check\" names it")
	case "53400": // configuration_limit_exceeded
		return mark(capture.ErrMisconfigured, "drop a slot that is no longer needed, or ALTER SYSTEM SET max_replication_slots to more; then restart the server")
	case "55006": // object_in_use
		return fmt.Errorf("%w; remedy: stop the other reader, or choose another slot", err)
	case "22021", "22P05": // character_not_in_repertoire, untranslatable_character
		err = fmt.Errorf("%w (%s)", err, pg.Where) // the place in the log
		return mark(capture.ErrUnreadable, "repair the text in the table, exclude the table or leave the column out of the publication; then drop the slot, "+readAgain)
	}
	return err
}

// explainRead is explain for what reading a table meets.
func (s *Source) explainRead(table capture.TableID, err error) error {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return err
	}
	switch pg.Code {
	case "42501": // insufficient_privilege
		return fmt.Errorf("%w: %w; remedy: GRANT SELECT ON %s TO %s; GRANT USAGE ON SCHEMA %[5]s TO %[4]s; and BYPASSRLS where row-level security hides rows",
			capture.ErrMisconfigured, err, quoteTable(table), s.cfg.user(), quoteIdent(table.Schema))
	case "22021", "22P05": // character_not_in_repertoire, untranslatable_character
		return fmt.Errorf("%w: %w; remedy: repair the text in the table, or exclude the table", capture.ErrUnreadable, err)
	}
	return err
}

const (
	// readAgain ends a remedy.
	readAgain = "run headwater checkpoint reset, after which the next start reads the tables again"
	// publishAgain is the remedy where the log goes by without a publication.
	publishAgain = "create the publication, drop the slot, " + readAgain + ": a publication must be older than the slot"
)

// run reads messages until something ends it.
func (st *stream) run(ctx context.Context) error {
	if st.moved {
		if err := st.heartbeat(); err != nil {
			return err
		}
	}
	fe := st.conn.Frontend()
	for {
		// Of an open transaction without a row in it the batch says nothing.
		if len(st.batch.Events) > 0 && (!st.tx.open || !st.tx.emitted) && fe.ReadBufferLen() == 0 && st.in.Buffered() == 0 {
			if err := st.flush(); err != nil {
				return err
			}
		}
		msg, err := fe.Receive()
		if err != nil {
			return fmt.Errorf("read the log after %s: %w", st.at.End, err)
		}
		switch msg := msg.(type) {
		case *pgproto3.CopyData:
			if err := st.copyData(ctx, msg.Data); err != nil {
				return err
			}
		case *pgproto3.ErrorResponse:
			return fmt.Errorf("the server stopped sending the log after %s: %w", st.at.End, explain(pgconn.ErrorResponseToPgError(msg)))
		case *pgproto3.CopyDone, *pgproto3.CommandComplete, *pgproto3.ReadyForQuery:
			return fmt.Errorf("the server ended the stream after %s: it is shutting down", st.at.End)
		case *pgproto3.NoticeResponse:
			if err := st.warning(msg); err != nil {
				return err
			}
		case *pgproto3.ParameterStatus:
		default:
			return fmt.Errorf("read the log after %s: unexpected message %T", st.at.End, msg)
		}
	}
}

// warning takes what the server says beside the log. Most of it says what it waits for,
// such as a standby that synchronized_standby_slots names and that is down: the server
// repeats that with every status update, and a person hears of it once a minute. The
// server's routines are told by their names, because texts are translated.
func (st *stream) warning(msg *pgproto3.NoticeResponse) error {
	if msg.Routine == "LoadPublications" { // PostgreSQL 18 skips a publication that is not there
		return fmt.Errorf("%w: the server sends nothing after %s: %s; remedy: %s", capture.ErrMisconfigured, st.at.End, msg.Message, publishAgain)
	}
	if now := time.Now(); now.Sub(st.warned[msg.Routine]) >= st.src.patience.again {
		st.warned[msg.Routine] = now
		st.src.log.Warn("the server warns while it sends the log", "after", st.at.End.String(), "message", msg.Message, "detail", msg.Detail, "hint", msg.Hint)
	}
	return nil
}

// copyData takes one message of the replication protocol:
//
//	'w' start(8) end(8) time(8) data…      a piece of the log
//	'k' end(8) time(8) reply(1)            a keepalive
//
// https://www.postgresql.org/docs/current/protocol-replication.html
func (st *stream) copyData(ctx context.Context, d []byte) error {
	switch {
	case len(d) > 25 && d[0] == 'w':
		return st.message(ctx, LSN(binary.BigEndian.Uint64(d[1:])), d[25:])
	case len(d) == 18 && d[0] == 'k':
		return st.keepalive(LSN(binary.BigEndian.Uint64(d[1:])), int64(binary.BigEndian.Uint64(d[9:]))+pgEpoch, d[17] != 0)
	}
	return fmt.Errorf("%w: after %s the server sent a replication message of %d bytes that begins with %q; headwater does not know it",
		capture.ErrUnreadable, st.at.End, len(d), d[:min(1, len(d))])
}

// keepalive says that everything before end has been sent. The server sent it at that
// time, in microseconds since the Unix epoch.
func (st *stream) keepalive(end LSN, sent int64, reply bool) error {
	if reply {
		st.wakeReport()
	}
	if st.tx.open {
		return nil
	}
	if end > st.at.End {
		st.at.End = end
		st.moved = true
		st.received.Store(uint64(end))
	}
	st.src.metrics.lag.Set(0)
	st.src.scan.keepalive(sent)
	if err := st.watermarks(); err != nil {
		return err
	}
	if st.moved && time.Since(st.lastEmit) >= st.src.cfg.HeartbeatInterval {
		return st.heartbeat()
	}
	return nil
}

// wakeReport asks report for a status update, now.
func (st *stream) wakeReport() {
	select {
	case st.wake <- struct{}{}:
	default:
	}
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// message takes one message of pgoutput, protocol 1, which the server wrote for the
// log record at lsn. It is valid until the next read.
// https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html
func (st *stream) message(ctx context.Context, lsn LSN, m []byte) error {
	switch m[0] {
	case 'I', 'U', 'D', 'T':
		if !st.tx.open {
			return st.unreadable(lsn, "a row change stands outside of a transaction")
		}
		return st.change(ctx, lsn, m)
	case 'B':
		return st.beginTx(lsn, m)
	case 'C':
		return st.commitTx(lsn, m)
	case 'R':
		if err := st.relation(ctx, m); err != nil {
			return fmt.Errorf("read a table definition at %s: %w", lsn, err)
		}
		return nil
	case 'Y':
		return nil // a type's name: the catalog tells us more
	case 'O':
		return st.origin(lsn, m)
	case 'M':
		return st.logicalMessage(lsn, m)
	}
	return st.unreadable(lsn, fmt.Sprintf("a message of the unknown type %q", m[0]))
}

func (st *stream) unreadable(lsn LSN, what string) error {
	return fmt.Errorf("%w: at %s the log holds %s; remedy: run a headwater that knows this server version", capture.ErrUnreadable, lsn, what)
}

// Microseconds from the Unix epoch to PostgreSQL's, 2000-01-01.
const pgEpoch = 946_684_800_000_000

func (st *stream) beginTx(lsn LSN, m []byte) error {
	begin, err := decodeBegin(m)
	if err != nil {
		return st.readError(lsn, err)
	}
	if st.tx.open {
		return st.unreadable(lsn, "a transaction inside of another")
	}
	tx := txState{open: true, final: begin.FinalLSN, micros: begin.Time, xid: begin.XID}
	// Rule R17: only positions of commits are compared.
	tx.skip = tx.final < st.at.End
	st.tx, st.seqLSN = tx, 0
	if st.resume == nil || tx.skip {
		return nil
	}
	if id := inTxID(tx.final, tx.xid); id != st.resume.ID {
		return fmt.Errorf("%w: the checkpoint stands inside of transaction %s, and after %s the log goes on with %s; "+
			"remedy: "+readAgain, capture.ErrPositionLost, st.resume.ID, st.at.End, id)
	}
	st.tx.emitted = true
	st.src.scan.emitted([]uint32{tx.xid})
	return nil
}

func (st *stream) commitTx(lsn LSN, m []byte) error {
	commit, err := decodeCommit(m)
	if err != nil {
		return st.readError(lsn, err)
	}
	if !st.tx.open {
		return st.unreadable(lsn, "the end of a transaction that did not begin")
	}
	if st.tx.skip {
		st.tx = txState{}
		return nil
	}
	if st.resume != nil {
		if st.tx.done < st.resume.Done {
			return st.notRepeated(st.tx.done)
		}
		st.resume = nil
		st.src.scan.open()
	}
	st.at.End, st.at.Last, st.at.CommitTS = commit.EndLSN, commit.EndLSN, st.tx.micros
	st.received.Store(uint64(st.at.End))
	st.moved = true
	if st.tx.emitted {
		*st.batch.Add() = capture.Event{Kind: capture.Commit, Time: st.tx.micros, Tx: st.batchTx()}
		st.batch.LogBytes += len(m)
	}
	st.tx = txState{}
	if err := st.watermarks(); err != nil {
		return err
	}
	switch {
	case st.batch.Size() >= st.src.cfg.BatchBytes/4:
		return st.flush()
	case len(st.batch.Events) == 0 && time.Since(st.lastEmit) >= st.src.cfg.HeartbeatInterval:
		// Transactions without changes of ours keep coming.
		return st.heartbeat()
	}
	return nil
}

// notRepeated: what was emitted of a cut transaction is not what the log says now.
func (st *stream) notRepeated(done uint64) error {
	return fmt.Errorf("%w: %d changes of transaction %s were published before the restart, and the log does not repeat them (they differ at or before change %d): "+
		"the publication or the log was changed meanwhile; remedy: "+readAgain,
		capture.ErrPositionLost, st.resume.Done, st.resume.ID, done)
}

// consume counts one change of the open transaction (rules R5 and R6) and says whether
// it is to be emitted.
func (st *stream) consume(m []byte) (emit bool, err error) {
	tx := &st.tx
	if tx.skip {
		return false, nil
	}
	tx.done++
	tx.crc = crc32.Update(tx.crc, castagnoli, m)
	if st.resume == nil || tx.done > st.resume.Done {
		return true, nil
	}
	if tx.done == st.resume.Done && tx.crc != st.resume.CRC {
		return false, st.notRepeated(tx.done)
	}
	return false, nil
}

// A relation is a table of the log.
type relation struct {
	// def is nil when the table is not captured.
	def *tableDef
	// refusal is why its updates and deletes cannot be written exactly, nil when they can.
	refusal error
}

// relation takes the description of a table, which comes before its first row and after
// each change of its definition.
func (st *stream) relation(ctx context.Context, m []byte) error {
	msg, err := decodeRelation(m)
	if err != nil {
		return err
	}
	rel := &relation{}
	st.relations[msg.OID] = rel
	captured, err := st.captures(ctx, &msg)
	if !captured {
		return err
	}
	err = st.ask(ctx, func(conn *pgconn.PgConn) (err error) {
		rel.def, err = st.src.catalog.fromRelation(ctx, conn, &msg)
		return err
	})
	if err != nil {
		return err
	}
	t := rel.def.table
	for _, k := range t.Key {
		if !msg.Columns[k].Key {
			rel.refusal = fmt.Errorf("%w: the log does not repeat the key column %q of %s in deletes and key changes, which can then not be written under the right key; "+
				"remedy: ALTER TABLE %s REPLICA IDENTITY FULL, "+readAgain,
				capture.ErrUnreadable, t.Columns[k].Name, t.ID, quoteTable(t.ID))
		}
	}
	return nil
}

// captures says whether the table is captured. A partition is by the name of a table
// above it, too, which only the catalog knows.
func (st *stream) captures(ctx context.Context, m *relationMessage) (bool, error) {
	filter := st.src.filter
	if filter.SelectsAny(m.Table) {
		return true, nil
	}
	var rows [][]string
	err := st.ask(ctx, func(conn *pgconn.PgConn) (err error) {
		rows, err = query(ctx, conn, ancestorsOf(strconv.FormatUint(uint64(m.OID), 10)))
		return err
	})
	if err != nil {
		return false, fmt.Errorf("read what %s is a partition of: %w", m.Table, err)
	}
	var ancestors []capture.TableID
	for _, r := range rows {
		ancestors = append(ancestors, capture.TableID{Schema: r[0], Name: r[1]})
	}
	return filter.Selects(m.Table, ancestors...), nil
}

// ask runs f on the connection to the catalog. That rests while the log is read, so it
// may have been closed: then f runs again on a new one.
func (st *stream) ask(ctx context.Context, f func(*pgconn.PgConn) error) error {
	err := f(st.catalog)
	if err == nil || !st.catalog.IsClosed() || ctx.Err() != nil {
		return err
	}
	conn, err := st.src.connect(ctx, false, nil)
	if err != nil {
		return err
	}
	st.catalog = conn
	return f(conn)
}

// change takes a row change or a truncate of the open transaction.
func (st *stream) change(ctx context.Context, lsn LSN, m []byte) error {
	emit, err := st.consume(m)
	if !emit {
		return err
	}
	if m[0] == 'T' {
		return st.truncate(lsn, m)
	}
	if len(m) < 5 {
		return st.unreadable(lsn, "a row message of an unknown form")
	}
	rel := st.relations[binary.BigEndian.Uint32(m[1:])]
	if rel == nil {
		return st.unreadable(lsn, "a row of a table that was not described")
	}
	if rel.def == nil {
		return nil
	}
	// The one copy: values are views into it.
	row, err := decodeRow(st.batch.Copy(m))
	if err != nil {
		return st.readError(lsn, err)
	}
	if rel.refusal != nil && row.Op != capture.Insert {
		return st.readError(lsn, rel.refusal)
	}
	var before, after capture.Row
	if row.Old != nil {
		if before, err = st.tuple(ctx, rel, row.OldKind, row.Old); err != nil {
			return st.rowError(lsn, rel, err)
		}
	}
	if row.New != nil {
		if after, err = st.tuple(ctx, rel, 'N', row.New); err != nil {
			return st.rowError(lsn, rel, err)
		}
	}
	fillUnchanged(after, before)
	ev := st.add(lsn, row.Op, rel.def.table)
	ev.Before, ev.After = before, after
	st.batch.LogBytes += len(m)
	return st.cut()
}

// tuple decodes one image of a row, and mends a definition that has no room for it.
func (st *stream) tuple(ctx context.Context, rel *relation, image byte, tuple []byte) (capture.Row, error) {
	for {
		row, err := rel.def.decodeTuple(st.batch, image, tuple)
		var outdated *outdatedError
		if err == nil || !errors.As(err, &outdated) {
			return row, err
		}
		st.src.log.Info("a row does not fit its table's definition, which is widened", "table", rel.def.table.ID.String(), "reason", outdated.Error())
		def := rel.def
		err = st.ask(ctx, func(conn *pgconn.PgConn) (err error) {
			rel.def, err = st.src.catalog.amend(ctx, conn, def, outdated)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
}

func (st *stream) rowError(lsn LSN, rel *relation, err error) error {
	return fmt.Errorf("decode a row of %s at %s: %w", rel.def.table.ID, lsn, err)
}

// readError says where an error was met.
func (st *stream) readError(lsn LSN, err error) error {
	return fmt.Errorf("read the log at %s: %w", lsn, err)
}

// truncate makes one event per table, under one position.
func (st *stream) truncate(lsn LSN, m []byte) error {
	msg, err := decodeTruncate(m)
	if err != nil {
		return st.readError(lsn, err)
	}
	for i := range msg.Tables() {
		rel := st.relations[msg.Table(i)]
		if rel == nil {
			return st.unreadable(lsn, "a truncate of a table that was not described")
		}
		if rel.def != nil {
			st.add(lsn, capture.Truncate, rel.def.table)
		}
	}
	st.batch.LogBytes += len(m)
	return st.cut()
}

// add appends a change of the open transaction to the batch.
func (st *stream) add(lsn LSN, op capture.Op, t *capture.Table) *capture.Event {
	tx := st.batchTx()
	ev := st.batch.Add()
	ev.Op, ev.Table, ev.Time, ev.Tx = op, t, st.tx.micros, tx
	ev.Origin, ev.Sequence = st.originRow(capture.IntValue(int64(st.tx.xid)), lsn), st.sequence(lsn)
	ev.Ordinal = st.tx.done
	st.rows++
	return ev
}

// originRow is the source block of a change: txId, lsn, xmin, origin and origin_lsn.
// Changes of one transaction at one position share it.
func (st *stream) originRow(txID capture.Value, lsn LSN) capture.Row {
	if lsn == st.seqLSN {
		return st.originValues
	}
	r := st.batch.Row(5)
	r[0], r[1] = txID, capture.IntValue(int64(lsn))
	r[2], r[3], r[4] = capture.NullValue, capture.NullValue, capture.NullValue
	if o := &st.tx.origin; o.name != "" {
		r[3], r[4] = capture.TextValue(o.name), capture.IntValue(int64(o.lsn))
	}
	st.originValues = r
	return r
}

// sequence is the text ["<last commit>","<lsn>"]. Changes at one position share it.
func (st *stream) sequence(lsn LSN) capture.Value {
	if lsn == st.seqLSN {
		return st.seq
	}
	buf := append(st.seqBuf[:0], '[')
	buf = append(appendSequence(buf, st.at.Last), ',')
	st.seqBuf = append(appendSequence(buf, lsn), ']')
	st.seqLSN, st.seq = lsn, capture.StringValue(st.batch.Copy(st.seqBuf))
	return st.seq
}

// appendSequence appends a position as JSON text, 0 as null.
func appendSequence(b []byte, lsn LSN) []byte {
	if lsn == 0 {
		return append(b, "null"...)
	}
	b = strconv.AppendUint(append(b, '"'), uint64(lsn), 10)
	return append(b, '"')
}

// origin notes where the open transaction was replicated from.
func (st *stream) origin(lsn LSN, m []byte) error {
	o, err := decodeOrigin(m)
	if err != nil {
		return st.readError(lsn, err)
	}
	if !st.tx.open {
		return st.unreadable(lsn, "an origin outside of a transaction")
	}
	st.tx.origin = originState{name: string(o.Name), lsn: o.CommitLSN}
	return nil
}

// logicalMessage takes what an application put into the log by
// pg_logical_emit_message.
func (st *stream) logicalMessage(lsn LSN, m []byte) error {
	msg, err := decodeLogicalMessage(m)
	if err != nil {
		return st.readError(lsn, err)
	}
	if msg.Transactional != st.tx.open {
		return st.unreadable(lsn, "a message on the wrong side of a transaction's border")
	}
	if msg.Transactional {
		emit, err := st.consume(m)
		if !emit {
			return err
		}
		st.fill(st.add(lsn, capture.Message, st.messages), &msg)
		return st.cut()
	}
	if msg.LSN <= st.at.Message {
		return nil // emitted before
	}
	// It belongs to no transaction, and becomes the place after which the next one comes.
	st.at.Message, st.at.Last, st.seqLSN = msg.LSN, lsn, 0
	micros := st.at.CommitTS
	if micros == 0 {
		micros = time.Now().UnixMicro()
	}
	ev := st.batch.Add()
	ev.Op, ev.Table, ev.Time = capture.Message, st.messages, micros
	ev.Origin, ev.Sequence = st.originRow(capture.NullValue, lsn), st.sequence(lsn)
	st.fill(ev, &msg)
	st.rows++
	*st.batch.Add() = capture.Event{Kind: capture.Commit, Time: micros}
	if st.batch.Size() >= st.src.cfg.BatchBytes/4 {
		return st.flush()
	}
	return nil
}

// fill sets a message's prefix and content.
func (st *stream) fill(ev *capture.Event, m *logicalMessage) {
	b := st.batch
	b.LogBytes += len(m.Prefix) + len(m.Content)
	ev.After = b.Row(2)
	ev.After[0], ev.After[1] = capture.StringValue(b.Copy(m.Prefix)), capture.BytesValue(b.Copy(m.Content))
}

// batchTx returns the open transaction as the batch at hand holds it.
func (st *stream) batchTx() *capture.Tx {
	tx := &st.tx
	if tx.inBatch == nil {
		id := strconv.AppendUint(st.batch.Alloc(10)[:0], uint64(tx.xid), 10)
		tx.inBatch = st.batch.Tx(unsafe.String(&id[0], len(id)), uint64(tx.xid))
		at := appendLSN(st.batch.Alloc(17)[:0], tx.final)
		tx.inBatch.Commit = unsafe.String(&at[0], len(at))
	}
	if !tx.emitted {
		tx.emitted = true
		st.xids = append(st.xids, tx.xid)
	}
	return tx.inBatch
}

// cut hands on a part of the open transaction once it is large enough.
func (st *stream) cut() error {
	if st.batch.Size() < st.src.cfg.BatchBytes {
		return nil
	}
	st.batch.InTx = &capture.InTx{ID: inTxID(st.tx.final, st.tx.xid), Done: st.tx.done, CRC: st.tx.crc}
	return st.flush()
}

// flush hands the batch on.
func (st *stream) flush() error {
	b := st.batch
	b.End = st.writer.write(&st.at)
	// Views must know of a transaction before its rows reach the window.
	st.src.scan.emitted(st.xids)
	st.xids = st.xids[:0]
	for i := len(b.Events) - 1; i >= 0; i-- {
		if b.Events[i].Kind == capture.Commit {
			b.Events[i].Entries = st.src.scan.entries()
			break
		}
	}
	m := st.src.metrics
	m.batches.Inc()
	m.rows.Add(float64(st.rows))
	m.bytes.Add(float64(b.LogBytes))
	m.received.Set(float64(st.at.End))
	if st.at.CommitTS != 0 {
		m.lag.Set(max(0, time.Since(time.UnixMicro(st.at.CommitTS)).Seconds()))
	}
	st.batch, st.rows = capture.NewBatch(), 0
	st.tx.inBatch, st.seqLSN = nil, 0
	st.moved = false
	st.lastEmit = time.Now()
	if err := st.emit(b); err != nil {
		return &emitError{err}
	}
	return nil
}

// heartbeat emits a commit without changes.
func (st *stream) heartbeat() error {
	*st.batch.Add() = capture.Event{Kind: capture.Commit, Time: st.at.CommitTS}
	return st.flush()
}

// watermarks adds those that the stream has passed, as the end of a batch. It is called
// at commit boundaries.
func (st *stream) watermarks() error {
	if !st.src.scan.marksWait() {
		return nil
	}
	ids := st.src.scan.passed(st.at.End)
	if len(ids) == 0 {
		return nil
	}
	for _, id := range ids {
		*st.batch.Add() = capture.Event{Kind: capture.Watermark, Mark: id}
	}
	return st.flush()
}

// emitError is what emit returned: it wins over a context that ended meanwhile.
type emitError struct{ err error }

func (e *emitError) Error() string { return e.err.Error() }
func (e *emitError) Unwrap() error { return e.err }

// report sends status updates (rule R18): at every interval, when the server or a mark
// asks for one, and never waiting for anybody but the socket. It also asks the server
// for a keepalive, which says how far the log has been sent.
func (st *stream) report(ctx context.Context) error {
	interval := st.src.cfg.StatusInterval
	if t := st.srv.SenderTimeout; t > 0 {
		interval = min(interval, t/3)
	}
	interval = min(interval, st.src.cfg.HeartbeatInterval)
	tick := time.NewTimer(0)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-st.wake:
		case <-tick.C:
		}
		if err := st.sendStatus(ctx); err != nil {
			return fmt.Errorf("send a status update: %w", err)
		}
		next := interval
		if st.src.scan.marksWait() {
			next = markPoll
		}
		tick.Reset(next)
	}
}

func (st *stream) sendStatus(ctx context.Context) error {
	acked := LSN(st.src.acked.Load()) // never 0, which would be taken for "as written"
	return pglogrepl.SendStandbyStatusUpdate(ctx, st.conn, pglogrepl.StandbyStatusUpdate{
		WALWritePosition: max(LSN(st.received.Load()), acked),
		WALFlushPosition: acked,
		WALApplyPosition: acked,
		ReplyRequested:   true,
	})
}
