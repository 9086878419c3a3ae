package mysql

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/go-mysql-org/go-mysql/mysql"
	"github.com/go-mysql-org/go-mysql/replication"

	"github.com/headwaterdb/headwater/capture"
)

// heartbeatPeriod is how often a server that has nothing to send says so. A snapshot's first
// mark waits for one: only then is known how far a new connection has read.
const heartbeatPeriod = 200 * time.Millisecond

// Stream reads the log from r on. At the first start it begins with what is committed
// after the call, and emits that place before anything else (rule R28 of
// publish/DESIGN.md).
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
		if parent.Err() != nil {
			return context.Cause(parent)
		}
		return err
	}
	defer st.close()

	var beside sync.WaitGroup
	beside.Go(func() { st.watch(ctx) })
	defer func() {
		cancel(nil)
		beside.Wait()
	}()
	// Reading has no context of its own: the end of ctx makes the socket time out.
	defer context.AfterFunc(ctx, st.conn.net.interrupt)()
	st.conn.net.timeout = s.cfg.ReadTimeout

	s.scan.connect(st.conn.net.wake)
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
	}
	return err
}

// A stream is one run of Stream. All but watch belongs to its goroutine.
type stream struct {
	src  *Source
	srv  *server
	conn *conn
	// catalog is an ordinary session, side one that holds the pipeline's lock.
	catalog, side *conn
	emit          capture.EmitFunc

	batch *capture.Batch
	rows  int // changes in it
	// at is the last commit boundary that the batch reaches.
	at     position
	writer *positionWriter
	// moved says that at went on without an event since the last batch.
	moved    bool
	lastEmit time.Time

	// read is the end of the last event, start the beginning of the present one, began when
	// its file was begun.
	read, start place
	began       uint32
	// again is where what MariaDB sends once more ends in each of its domains, floor the
	// number of the place before which all was emitted, 0 when no place tells. numbers are
	// the last of each domain and server.
	again map[uint32]gtid
	floor uint64
	// resumed is where reading goes on in the server's own files: what lies before that is not
	// sent. It is zero once the first transaction has come.
	resumed place
	numbers map[mariaSource]uint64
	// checksums says that events end with a CRC-32.
	checksums bool

	// tables are the table maps of the statement at hand by their id, known the last one
	// of each table.
	tables map[uint64]*logTable
	known  map[capture.TableID]*logTable
	// nameless says that the log does not name columns, as far as we know. proofs are the
	// definitions of tables in such a log, as long as nothing speaks against them, and ahead is
	// what is known of the part of the log that they are proven by.
	nameless bool
	proofs   map[capture.TableID]*definition
	ahead    stretch
	reader   rowReader
	// skipped takes rows that are counted and not emitted.
	skipped *capture.Batch
	// op is how a row's operation goes into the checksum. A slice of its own would be an
	// allocation a row.
	op [2]byte

	tx txState
	// prepared are the rows of XA transactions that wait for their outcome.
	prepared      map[string]*preparedTx
	preparedBytes int
	// resume is the cut transaction of the checkpoint until it was passed.
	resume *capture.InTx

	// received is the number of the place up to which everything has come.
	received atomic.Uint64
	unpack   payloadReader
}

// txState is the transaction that is being read.
type txState struct {
	open bool
	// begun says that it goes on until its commit; a statement that stands alone ends it
	// otherwise.
	begun bool
	skip  bool // emitted before
	gtid  gtid
	id    string // the GTID, or the place where it begins
	begin place
	// micros is when it was committed, thread the session that made it, 0 when unknown.
	micros int64
	thread uint32
	// held takes the rows of an XA transaction until its outcome.
	held *preparedTx
	// done counts its rows, tables say that rows of ours were among them.
	done uint64
	crc  uint32
	ours bool
	// emitted says that a row of it has reached a batch, in this run or before.
	emitted bool
	// inBatch is its value in the batch at hand.
	inBatch *capture.Tx
}

// A logTable is a table of the log.
type logTable struct {
	tm *tableMap
	// plan is nil when the table is not captured.
	plan *plan
	// table is what is shown: the plan's, but for the columns that are left out, ascending.
	table   *capture.Table
	left    []int
	history history
	// gone says that the catalog did not know the table any more, lent that the names of its
	// columns are the catalog's.
	gone, lent bool
}

// open connects, finds the place to start at, and asks for the log from there.
func (s *Source) open(ctx context.Context, r capture.Resume, emit capture.EmitFunc) (st *stream, err error) {
	st = &stream{
		src: s, emit: emit, batch: capture.NewBatch(), skipped: capture.NewBatch(), lastEmit: time.Now(),
		tables: make(map[uint64]*logTable), known: make(map[capture.TableID]*logTable), proofs: make(map[capture.TableID]*definition),
		prepared: make(map[string]*preparedTx),
	}
	defer func() {
		if err != nil {
			st.close()
		}
	}()
	if st.catalog, err = s.connect(ctx); err != nil {
		return st, err
	}
	if st.srv, err = s.identify(ctx, st.catalog); err != nil {
		return st, err
	}
	for _, c := range []**conn{&st.conn, &st.side} {
		if *c, err = s.connectTo(ctx, st.srv); err != nil {
			return st, err
		}
	}
	if err := s.refuse(ctx, st.catalog, st.srv); err != nil {
		return st, err
	}
	if f := st.srv.unnamed(); f != nil {
		st.nameless = true
		s.warn(f)
	}
	if err := st.lock(ctx); err != nil {
		return st, err
	}
	if err := st.begin(ctx, r); err != nil {
		return st, err
	}
	d, err := st.srv.dumpFrom(&st.at)
	if err != nil {
		return st, err
	}
	st.passOver(d.gtids)
	d.id, d.name, d.heartbeat = s.cfg.ServerID, s.replicaName(), min(heartbeatPeriod, s.cfg.HeartbeatInterval)
	st.checksums = st.srv.vars["binlog_checksum"] == "CRC32"
	if err := st.conn.startDump(ctx, &d); err != nil {
		return st, fmt.Errorf("ask for the log from %s: %w", st.at.At, explain(err))
	}
	return st, nil
}

func (st *stream) close() {
	st.src.scan.stop()
	if st.src.scanner != nil {
		st.src.scanner.close() // the next run may be with another server
	}
	for _, c := range []*conn{st.conn, st.catalog, st.side} {
		if c != nil {
			c.close()
		}
	}
	st.batch.Release()
	st.skipped.Release()
	st.unpack.Close()
}

// replicaName is the pipeline's name in the server's lists of replicas and locks, which
// take 60 bytes.
func (s *Source) replicaName() string {
	name := "headwater:" + s.cfg.Pipeline
	return name[:min(len(name), 60)]
}

// lock takes a lock that says that the pipeline runs. It keeps nobody out of anything:
// the checkpoint does that. But two that run under one name, or one server id, would
// throw each other out of the log for ever, and this tells why.
func (st *stream) lock(ctx context.Context) error {
	name := quoteText(st.src.replicaName())
	row, err := st.side.queryRow(ctx, "SELECT GET_LOCK("+name+", 2), IS_USED_LOCK("+name+")")
	if err != nil {
		return fmt.Errorf("take the pipeline's lock: %w", err)
	}
	if row[0] != "1" {
		from := ""
		if rows, err := st.side.query(ctx, "SELECT host FROM information_schema.processlist WHERE id = "+row[1]); err == nil && len(rows) == 1 {
			from = " from " + rows[0][0]
		}
		return fmt.Errorf("the pipeline %q is running already: session %s%s holds its lock on the server", st.src.cfg.Pipeline, row[1], from)
	}
	return st.src.refuseServerID(ctx, st.side, st.srv)
}

// begin finds the place to start at, and prepares what the scanner needs to know of it.
func (st *stream) begin(ctx context.Context, r capture.Resume) error {
	s := st.src
	var err error
	if st.at, err = s.verify(ctx, st.catalog, st.srv, r); err != nil {
		return err
	}
	if r.At == "" {
		if err := st.firstStart(ctx); err != nil {
			return err
		}
	}
	st.resume = r.InTx
	// Positions are written for the server that we read from: files are its own.
	moved := r.At != "" && st.at.Source.Server != st.srv.identity().Server
	st.at.Source = st.srv.identity()
	if st.writer, err = newPositionWriter(st.at.Source); err != nil {
		return err
	}
	start := scanStart{resume: r, at: st.at.At, gtids: st.at.GTIDs}
	if start.end, err = st.srv.end(ctx, st.catalog); err != nil {
		return err
	}
	if moved {
		// Places of another server mean nothing here. This one is for people, and not before
		// anything that the set holds.
		st.at.At, st.at.Began = start.end, 0
	}
	st.standAt()
	st.received.Store(st.at.At.number())
	if err := s.scan.start(start, st.srv); err != nil {
		return err
	}
	if r.At == "" {
		st.moved = true
	}
	return nil
}

// standAt notes the place of the position, if it is one of this server.
func (st *stream) standAt() {
	if st.at.GTIDs == nil || st.at.Began == 0 {
		return
	}
	if st.resumed = st.at.At; len(st.at.Prepared) > 0 {
		st.resumed = st.at.Prepared[0].place
	}
	if st.srv.flavour == mariaDB {
		st.floor = st.at.At.number()
	}
}

// firstStart begins with what is committed from now on. MySQL's set is taken before the
// place: what is logged between the two is sent, and passes the place. MariaDB's belongs to
// the place.
func (st *stream) firstStart(ctx context.Context) error {
	// Rows of a transaction that is prepared already lie before the place.
	if rows, err := st.catalog.query(ctx, "XA RECOVER"); err == nil && len(rows) > 0 {
		return fmt.Errorf("the server has %d XA transactions that are prepared and not decided, whose rows are in the log already: waiting for them before the pipeline begins; XA RECOVER lists them", len(rows))
	}
	var err error
	if st.srv.flavour == mySQL {
		if st.at.GTIDs, err = st.srv.executed(ctx, st.catalog); err != nil {
			return err
		}
	}
	if st.at.At, err = st.srv.end(ctx, st.catalog); err != nil {
		return err
	}
	if st.srv.flavour == mariaDB {
		if st.at.GTIDs, err = executedAt(ctx, st.catalog, st.at.At); err != nil {
			return err
		}
	}
	if st.at.Began, err = st.src.fileBegan(ctx, st.srv, st.at.At.File); err != nil {
		return err
	}
	st.src.log.Info("starting at the present end of the log", "place", st.at.At.String())
	return nil
}

// run reads events until something ends it.
func (st *stream) run(ctx context.Context) error {
	if st.moved {
		if err := st.heartbeat(); err != nil {
			return err
		}
	}
	for {
		// Of an open transaction without a row in it the batch says nothing.
		if st.conn.net.r.Buffered() == 0 && len(st.batch.Events) > 0 && (!st.tx.open || !st.tx.emitted) {
			if err := st.flush(); err != nil {
				return err
			}
		}
		p, err := st.conn.readPacket()
		switch {
		case errors.Is(err, errWoken):
			// A mark was set, and the log may have passed it already.
			if !st.tx.open {
				if err := st.watermarks(); err != nil {
					return err
				}
			}
			continue
		case errors.Is(err, os.ErrDeadlineExceeded):
			return fmt.Errorf("read the log after %s: the server has been silent for %s, although it should send a heartbeat every %s: the connection is dead", st.read, st.src.cfg.ReadTimeout, heartbeatPeriod)
		case err != nil:
			return fmt.Errorf("read the log after %s: %w", st.read, err)
		case len(p) == 0:
			return fmt.Errorf("read the log after %s: an empty packet", st.read)
		}
		switch p[0] {
		case mysql.OK_HEADER:
			if err := st.event(ctx, p[1:]); err != nil {
				return err
			}
		case mysql.ERR_HEADER:
			return fmt.Errorf("the server stopped sending the log after %s: %w", st.read, st.stopped(answerError(p)))
		case mysql.EOF_HEADER:
			return fmt.Errorf("the server ended the log after %s: it is shutting down", st.read)
		default:
			return st.unreadable(fmt.Sprintf("a packet of the unknown kind %d", p[0]))
		}
	}
}

// stopped explains why the server sends no more of the log. A crash of the server cuts a log
// in the middle of an event, and MariaDB leaves it so. It goes on with the next file for
// whoever asks for what follows the last whole transaction, so it is asked once more.
func (st *stream) stopped(err error) error {
	if strings.Contains(err.Error(), cutShort) && st.src.cutAt != st.read {
		st.src.cutAt = st.read
		return err
	}
	return explain(err)
}

// A header is that of an event:
//
//	timestamp(4) type(1) server_id(4) size(4) position(4) flags(2)
//
// https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_replication_binlog_event.html
type header struct {
	timestamp uint32
	typ       replication.EventType
	server    uint32
	size      uint32
	position  uint32 // where the event ends, as far as 32 bits tell; 0 is unknown
	flags     uint16
}

func parseHeader(e []byte) (header, bool) {
	if len(e) < replication.EventHeaderSize {
		return header{}, false
	}
	le := binary.LittleEndian
	return header{le.Uint32(e), replication.EventType(e[4]), le.Uint32(e[5:]), le.Uint32(e[9:]), le.Uint32(e[13:]), le.Uint16(e[17:])}, true
}

// artificial says that the event is made for us and stands in no file.
func (h *header) artificial() bool { return h.flags&replication.LOG_EVENT_ARTIFICIAL_F != 0 }

// counts says that the event has a place in the file from which the server sends. The beginning
// of a file is sent again, without a position, where reading begins behind it.
func (h *header) counts() bool {
	return !h.artificial() && (h.typ != replication.FORMAT_DESCRIPTION_EVENT || h.position != 0)
}

// saysNothing says that the event is of a type that matters to nobody who reads rows.
func (h *header) saysNothing() bool {
	switch h.typ {
	case replication.STOP_EVENT, replication.ROWS_QUERY_EVENT, replication.PREVIOUS_GTIDS_EVENT, replication.IGNORABLE_EVENT,
		replication.TRANSACTION_CONTEXT_EVENT, replication.VIEW_CHANGE_EVENT,
		// What a statement needs, of which the statement itself tells.
		replication.INTVAR_EVENT, replication.RAND_EVENT, replication.USER_VAR_EVENT,
		replication.BEGIN_LOAD_QUERY_EVENT, replication.APPEND_BLOCK_EVENT, replication.DELETE_FILE_EVENT,
		replication.MARIADB_ANNOTATE_ROWS_EVENT, replication.MARIADB_BINLOG_CHECKPOINT_EVENT, replication.MARIADB_GTID_LIST_EVENT,
		replication.MARIADB_START_ENCRYPTION_EVENT:
		return true
	}
	return h.flags&replication.LOG_EVENT_IGNORABLE_F != 0
}

// event takes one event. It is valid until the next read.
func (st *stream) event(ctx context.Context, e []byte) error {
	h, ok := parseHeader(e)
	if !ok || int(h.size) != len(e) {
		return st.unreadable("an event whose size is not that of its packet")
	}
	if h.typ == replication.FORMAT_DESCRIPTION_EVENT {
		// The fifth byte from its end says whether events end with a checksum. It has room
		// for one itself in any case.
		if len(e) < replication.EventHeaderSize+5 {
			return st.unreadable("the beginning of a file that is too short")
		}
		st.checksums = e[len(e)-5] == byte(replication.BINLOG_CHECKSUM_ALG_CRC32)
		st.began = h.timestamp
	}
	body := e[replication.EventHeaderSize:]
	if st.checksums {
		if len(body) < 4 || crc32.ChecksumIEEE(e[:len(e)-4]) != binary.LittleEndian.Uint32(e[len(e)-4:]) {
			return fmt.Errorf("%w: an event of the type %s after %s is damaged: its checksum is wrong; remedy: %s", capture.ErrUnreadable, h.typ, st.read, checkLog)
		}
	}
	if st.checksums || h.typ == replication.FORMAT_DESCRIPTION_EVENT {
		body = body[:len(body)-4]
	}
	switch h.typ {
	case replication.ROTATE_EVENT:
		return st.rotate(body)
	case replication.HEARTBEAT_EVENT, replication.HEARTBEAT_LOG_EVENT_V2:
		return st.silence(&h, body)
	}
	if h.counts() {
		switch h.typ {
		case replication.GTID_EVENT, replication.ANONYMOUS_GTID_EVENT, replication.GTID_TAGGED_LOG_EVENT, replication.MARIADB_GTID_EVENT:
			st.passUnsent(h.position - h.size)
			st.resumed = place{}
		}
		st.read = st.read.after(&h)
		st.start = place{File: st.read.File, Pos: st.read.Pos - uint64(h.size)}
	}
	return st.dispatch(ctx, &h, body)
}

// after is where the event h ends that begins at p.
func (p place) after(h *header) place {
	return place{File: p.File, Pos: forward(p.Pos, h.size, h.position)}
}

// forward counts on to the end of an event. The header tells it in 32 bits, and MariaDB
// not at all inside of transactions. Files are larger where one transaction is.
func forward(pos uint64, size, low uint32) uint64 {
	if low == 0 {
		return pos + uint64(size)
	}
	end := pos&^(1<<32-1) | uint64(low)
	if end < pos {
		end += 1 << 32
	}
	return end
}

// passUnsent takes up the count where the first transaction stands that is sent in a file of
// which the beginning is not: low is its place in 32 bits. The rest of it is that of the position,
// next to which the transaction stands.
func (st *stream) passUnsent(low uint32) {
	p := st.resumed
	if p.File != st.read.File || p.Pos>>32 == 0 {
		return
	}
	// The distance fits into 32 bits, with a sign: one that is logged late stands before the place.
	st.read.Pos = uint64(int64(p.Pos) + int64(int32(low-uint32(p.Pos))))
}

// rotate begins the next file.
func (st *stream) rotate(body []byte) error {
	next, ok := rotated(body)
	if !ok {
		return st.unreadable("a change of files that names none")
	}
	if next.File != st.read.File {
		st.began = 0 // its beginning comes next
	}
	st.read = next
	return nil
}

// rotated reads where the next file begins: position(8) name.
func rotated(body []byte) (place, bool) {
	if len(body) < 9 {
		return place{}, false
	}
	return place{File: string(body[8:]), Pos: binary.LittleEndian.Uint64(body)}, true
}

// silence is a heartbeat: everything up to a place has been sent.
func (st *stream) silence(h *header, body []byte) error {
	if st.tx.open {
		return nil
	}
	if h.typ == replication.HEARTBEAT_EVENT && string(body) == st.read.File {
		if h.position == uint32(st.resumed.Pos) {
			st.passUnsent(h.position) // nothing came since
		}
		st.read.Pos = forward(st.read.Pos, 0, h.position)
	}
	if read, at := st.read.number(), st.at.At.number(); read > at || read == at && st.at.Began == 0 && st.began != 0 {
		st.boundary()
	}
	st.src.metrics.lag.Set(0)
	if err := st.watermarks(); err != nil {
		return err
	}
	return st.beat()
}

// boundary moves the position to the end of what was read, between two transactions.
func (st *stream) boundary() {
	st.at.At, st.at.Began = st.read, st.began
	st.received.Store(st.read.number())
	st.moved = true
}

// beat emits a position without changes, when it is time.
func (st *stream) beat() error {
	if st.moved && st.resume == nil && len(st.batch.Events) == 0 && time.Since(st.lastEmit) >= st.src.cfg.HeartbeatInterval {
		return st.heartbeat()
	}
	return nil
}

// dispatch takes an event out of the log or out of a compressed transaction.
func (st *stream) dispatch(ctx context.Context, h *header, body []byte) error {
	if isRows(h.typ) {
		return st.rowsEvent(ctx, h, body)
	}
	switch h.typ {
	case replication.TABLE_MAP_EVENT:
		return st.tableMap(ctx, h, body)
	case replication.GTID_EVENT, replication.ANONYMOUS_GTID_EVENT, replication.GTID_TAGGED_LOG_EVENT:
		return st.mysqlBegin(h, body)
	case replication.MARIADB_GTID_EVENT:
		return st.mariaBegin(h, body)
	case replication.XID_EVENT:
		if !st.tx.open {
			return st.unreadable("the end of a transaction that did not begin")
		}
		return st.commit()
	case replication.QUERY_EVENT, replication.MARIADB_QUERY_COMPRESSED_EVENT:
		return st.query(ctx, h, body)
	case replication.EXECUTE_LOAD_QUERY_EVENT:
		return st.loadQuery(ctx)
	case replication.XA_PREPARE_LOG_EVENT:
		return st.prepare(ctx, body)
	case replication.TRANSACTION_PAYLOAD_EVENT:
		return st.payload(ctx, body)
	case replication.INCIDENT_EVENT:
		return st.incident(body)
	case replication.FORMAT_DESCRIPTION_EVENT:
		if st.tx.open && !h.artificial() {
			// A server that crashed while it wrote a transaction begins a new file.
			return st.abandon()
		}
		return nil
	}
	if h.saysNothing() {
		return nil
	}
	return st.unreadable(fmt.Sprintf("an event of the unknown type %d", h.typ))
}

func (st *stream) unreadable(what string) error {
	return fmt.Errorf("%w: at %s the log holds %s; remedy: run a headwater that knows this server version", capture.ErrUnreadable, st.start, what)
}

// readError says where an error was met.
func (st *stream) readError(err error) error {
	return fmt.Errorf("read the log at %s: %w", st.start, err)
}

// incident: the server says that it lost changes.
func (st *stream) incident(body []byte) error {
	text := ""
	if len(body) > 3 {
		text = " (" + string(body[3:]) + ")"
	}
	return fmt.Errorf("%w: at %s the log says that changes are missing from it%s; remedy: %s", capture.ErrUnreadable, st.start, text, readAnew)
}

// abandon gives up a transaction whose end never came into the log.
func (st *stream) abandon() error {
	if st.tx.ours && !st.tx.skip {
		return fmt.Errorf("%w: the log breaks off inside of the transaction %s, which was partly published: the server crashed; remedy: %s", capture.ErrPositionLost, st.tx.id, readAnew)
	}
	st.leave()
	return nil
}

// mysqlBegin takes the GTID event that every transaction of MySQL begins with, also
// where it is anonymous.
func (st *stream) mysqlBegin(h *header, body []byte) error {
	g, micros, err := parseMySQLGTID(h, body)
	if err != nil {
		return st.unreadable("a GTID that cannot be read: " + err.Error())
	}
	return st.beginTx(txState{micros: micros, gtid: g})
}

// mariaBegin takes the GTID event that every transaction of MariaDB begins with:
//
//	number(8) domain(4) flags(1) …
//
// Without the flag "standalone", rows follow up to their commit.
// https://mariadb.com/kb/en/gtid_event/
func (st *stream) mariaBegin(h *header, body []byte) error {
	const preparedXA = 64 // FL_PREPARED_XA: rows follow that wait for their outcome
	r := cursor{rest: body}
	tx := txState{micros: int64(h.timestamp) * 1e6}
	tx.gtid = gtid{maria: true, number: r.uint64(), domain: r.uint32(), server: h.server}
	flags := r.uint8()
	tx.begun = flags&replication.BINLOG_MARIADB_FL_STANDALONE == 0
	if r.failed {
		return st.unreadable("a GTID that is too short")
	}
	if err := st.beginTx(tx); err != nil {
		return err
	}
	if flags&preparedXA != 0 {
		st.beginXA()
	}
	return nil
}

func (st *stream) beginTx(tx txState) error {
	if st.tx.open {
		return st.unreadable("a transaction inside of another")
	}
	tx.open, tx.begin = true, st.start
	if len(st.tables) >= maxTables {
		clear(st.tables) // every statement describes its own again
	}
	if tx.gtid.isZero() {
		tx.id = tx.begin.String()
	} else {
		tx.id = tx.gtid.String()
	}
	// Rule R17: only positions of whole transactions are compared.
	switch {
	case st.at.GTIDs == nil:
		tx.skip = tx.begin.number() < st.at.At.number()
	case st.srv.flavour == mariaDB:
		var err error
		if tx.skip, err = st.sentAgain(&tx); err != nil {
			return err
		}
	default:
		tx.skip = hasGTID(st.at.GTIDs, &tx.gtid)
	}
	if tx.skip && slices.ContainsFunc(st.at.Prepared, func(p prepared) bool {
		if st.at.GTIDs == nil {
			return p.place == tx.begin
		}
		return p.GTID == tx.id // places are those of the server that it was read from
	}) {
		tx.skip = false // read again for its rows
	}
	st.tx = tx
	if st.resume == nil || tx.skip {
		return nil
	}
	if tx.id == st.resume.ID {
		st.tx.emitted = true
		st.src.scan.emitted("", place{}, tx.id, tx.begin)
	}
	return nil
}

// passOver notes what comes again when MariaDB is asked for the log from a set on: in each
// domain all up to the last transaction that we have passed.
func (st *stream) passOver(from mysql.GTIDSet) {
	set, ok := from.(*mysql.MariadbGTIDSet)
	if !ok {
		return
	}
	st.again, st.numbers = make(map[uint32]gtid), make(map[mariaSource]uint64)
	for domain, last := range st.at.GTIDs.(*mysql.MariadbGTIDSet).Sets {
		if first := set.Sets[domain]; first == nil || *first != *last {
			st.again[domain] = gtid{maria: true, domain: domain, server: last.ServerID, number: last.SequenceNumber}
		}
	}
	for _, g := range set.Sets {
		st.numbers[mariaSource{g.DomainID, g.ServerID}] = g.SequenceNumber
	}
}

// sentAgain says whether we have passed the transaction before. The order of the log
// decides, as it does for MariaDB itself: without gtid_strict_mode a domain's numbers fall
// when another server writes. Only what one server repeats cannot be told apart.
func (st *stream) sentAgain(tx *txState) (bool, error) {
	source := mariaSource{tx.gtid.domain, tx.gtid.server}
	before := st.numbers[source]
	st.numbers[source] = max(before, tx.gtid.number)
	if last, ok := st.again[tx.gtid.domain]; ok {
		if last == tx.gtid {
			delete(st.again, tx.gtid.domain)
		}
		return true, nil
	}
	if tx.begin.number() < st.floor {
		return true, nil
	}
	if tx.gtid.number <= before {
		return false, fmt.Errorf("%w: at %s the log holds the transaction %s, and before it one with the number %d of the same domain and server: a position could not tell the two apart; "+
			"remedy: SET GLOBAL gtid_strict_mode = ON, let no session set gtid_seq_no, and %s", capture.ErrUnreadable, st.start, tx.id, before, readAnew)
	}
	return false, nil
}

// leave ends the open transaction. What it held and nobody waits for is let go.
func (st *stream) leave() {
	if held := st.tx.held; held != nil {
		st.forget(held)
	}
	st.tx = txState{}
}

// expected wants the transaction that was cut to come before any other one with rows of
// ours. Others may: a replica has transactions of its own, and its own order.
func (st *stream) expected() error {
	if st.resume == nil || st.tx.skip || st.tx.id == st.resume.ID {
		return nil
	}
	return fmt.Errorf("%w: the checkpoint stands inside of transaction %s, and after %s the log goes on with %s; remedy: %s",
		capture.ErrPositionLost, st.resume.ID, st.at.At, st.tx.id, readAnew)
}

// commit ends the open transaction.
func (st *stream) commit() error {
	tx := &st.tx
	if tx.skip {
		st.leave()
		return nil
	}
	if err := st.pass(&tx.gtid); err != nil {
		return err
	}
	if st.resume != nil {
		if tx.id != st.resume.ID {
			st.leave()
			return nil // no place to stand at: the other one is cut
		}
		if tx.done < st.resume.Done {
			return st.notRepeated(tx.done)
		}
		st.resume = nil
		st.src.scan.open()
	}
	st.boundary()
	st.at.CommitTS = tx.micros
	if tx.emitted {
		*st.batch.Add() = capture.Event{Kind: capture.Commit, Time: tx.micros, Tx: st.batchTx()}
		st.batch.LogBytes += replication.EventHeaderSize
	}
	st.leave()
	if err := st.watermarks(); err != nil {
		return err
	}
	if st.batch.Size() >= st.src.cfg.BatchBytes/4 {
		return st.flush()
	}
	return st.beat()
}

// pass adds a transaction to those that are behind us.
func (st *stream) pass(g *gtid) error {
	if st.at.GTIDs == nil || g.isZero() {
		return nil
	}
	if err := addGTID(st.at.GTIDs, g); err != nil {
		return st.readError(err)
	}
	return nil
}

// notRepeated: what was emitted of a cut transaction is not what the log says now.
func (st *stream) notRepeated(done uint64) error {
	return fmt.Errorf("%w: %d changes of transaction %s were published before the restart, and the log does not repeat them (they differ at or before change %d): "+
		"the log was changed meanwhile, or another server logs other images of rows; remedy: %s",
		capture.ErrPositionLost, st.resume.Done, st.resume.ID, done, readAnew)
}

// A queryEvent is a statement in the log:
//
//	thread(4) time(4) schema_length(1) error(2) status_length(2) status schema 0 statement
type queryEvent struct {
	thread               uint32
	status, schema, text []byte
}

func parseQuery(typ replication.EventType, body []byte) (q queryEvent, err error) {
	r := cursor{rest: body}
	q.thread = r.uint32()
	r.bytes(4)
	schemaLen := int(r.uint8())
	r.bytes(2)
	q.status = r.bytes(int(r.uint16()))
	q.schema = r.bytes(schemaLen)
	r.bytes(1)
	q.text = r.rest
	if r.failed {
		err = errors.New("it is too short")
	} else if typ == replication.MARIADB_QUERY_COMPRESSED_EVENT {
		q.text, err = inflateRows(q.text)
	}
	return q, err
}

// query takes a statement.
func (st *stream) query(ctx context.Context, h *header, body []byte) error {
	q, err := parseQuery(h.typ, body)
	if err != nil {
		return st.unreadable("a statement of an unknown form: " + err.Error())
	}
	if !st.tx.open {
		return st.unreadable("a statement outside of a transaction")
	}
	tx, text := &st.tx, q.text
	if tx.thread == 0 {
		tx.thread = q.thread
	}
	s := readStatement(q.schema, text, dialectOf(q.status, st.srv.foldsNames()))
	if err := st.redefine(ctx, &s); err != nil {
		return err
	}
	switch s.kind {
	case stBegin:
		tx.begun = true
		return nil
	case stCommit:
		return st.commit()
	case stRollback:
		if st.hasRows() {
			return st.undone("ROLLBACK")
		}
		return st.commit()
	case stRollbackTo:
		if st.hasRows() {
			return st.undone("ROLLBACK TO SAVEPOINT")
		}
		return nil
	case stSavepoint, stXAEnd:
		return nil
	case stXAStart:
		st.beginXA()
		return nil
	case stXACommit, stXARollback:
		return st.decide(ctx, s.xid, s.kind == stXACommit)
	case stTruncate:
		if err := st.truncate(ctx, s.table); err != nil {
			return err
		}
	case stPartition:
		st.tellPartitions(s.table)
	case stDefinition:
		if s.opens {
			tx.begun = true
		}
	case stRows:
		if err := st.refuseStatement(ctx, &s, text); err != nil {
			return err
		}
	case stIllegible:
		if !tx.skip {
			return fmt.Errorf("%w: at %s the log empties a table by a statement (%s) that is no text of the character set of its session; remedy: %s", capture.ErrUnreadable, st.start, beginning(text), readAnew)
		}
	case stUnknown:
		if !tx.skip {
			return st.unreadable(fmt.Sprintf("the statement %q, which headwater does not know", beginning(text)))
		}
	}
	if tx.begun {
		return nil
	}
	return st.commit()
}

// beginning is enough of a statement to recognise it by, without the values in it.
func beginning(sql []byte) string {
	w := words{rest: sql}
	var out []string
	for range 3 {
		if t := w.next(); t.text != nil {
			out = append(out, string(t.text))
		}
	}
	return strings.Join(out, " ") + " …"
}

// hasRows says whether rows of ours were among the open transaction's, published or held.
func (st *stream) hasRows() bool {
	tx := &st.tx
	return !tx.skip && (tx.ours || tx.held != nil && len(tx.held.events) > 0)
}

// undone: rows were logged and then taken back by a statement, because tables without
// transactions were changed between them.
func (st *stream) undone(by string) error {
	return fmt.Errorf("%w: at %s the transaction %s takes rows back by %s after they were logged, which happens when a transaction also changes tables without transactions; remedy: keep the two apart, and %s",
		capture.ErrUnreadable, st.start, st.tx.id, by, readAnew)
}

// refuseStatement stops at a statement that changes rows and logs none, unless it provably
// changes none of ours.
func (st *stream) refuseStatement(ctx context.Context, s *statement, text []byte) error {
	if st.tx.skip {
		return nil
	}
	var doubt string
	err := st.ask(ctx, func(c *conn) (err error) {
		doubt, err = st.src.harmful(ctx, c, s)
		return err
	})
	if err != nil {
		return st.readError(err)
	}
	if doubt == "" {
		return nil
	}
	return fmt.Errorf("%w: at %s the log holds a statement (%s) in place of the rows that it changes, and %s; "+
		"remedy: SET GLOBAL binlog_format = 'ROW', let no session set another one, and %s", capture.ErrUnreadable, st.start, beginning(text), doubt, readAnew)
}

// loadQuery is a LOAD DATA statement, of which nothing says that it changes no rows of ours.
func (st *stream) loadQuery(ctx context.Context) error {
	if !st.tx.open {
		return st.unreadable("a LOAD DATA statement outside of a transaction")
	}
	return st.refuseStatement(ctx, &statement{kind: stRows}, []byte("LOAD DATA"))
}

// payload takes a compressed transaction: all that stands between its GTID and the next.
// Its events have the place of the whole.
func (st *stream) payload(ctx context.Context, body []byte) error {
	if !st.tx.open {
		return st.unreadable("a compressed transaction that did not begin")
	}
	if st.tx.skip {
		st.tx = txState{}
		return nil
	}
	if err := st.unpack.reset(body); err != nil {
		return st.readError(err)
	}
	for {
		e, err := st.unpack.next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return st.readError(err)
		}
		h, ok := parseHeader(e)
		if !ok {
			return st.unreadable("an event that is too short in a compressed transaction")
		}
		if err := st.dispatch(ctx, &h, e[replication.EventHeaderSize:]); err != nil {
			return err
		}
	}
	if st.tx.open {
		return st.unreadable("a compressed transaction that does not end")
	}
	return nil
}

// tellPartitions says once that rows came or went without being logged.
func (st *stream) tellPartitions(id capture.TableID) {
	if st.tx.skip || !st.src.captures(id) {
		return
	}
	st.src.log.Warn("rows of a table came or went by whole partitions or files, which the log does not show as rows: the topic keeps what it has",
		"table", id.String(), "place", st.start.String())
}

// truncate is a change of its own when the table is captured.
func (st *stream) truncate(ctx context.Context, id capture.TableID) error {
	if st.tx.skip || !st.src.captures(id) {
		return nil
	}
	emit, err := st.consume(id, capture.Truncate, nil)
	if !emit {
		return err
	}
	var def *capture.Table
	if t := st.known[id]; t != nil {
		def = t.table
	} else if err := st.ask(ctx, func(c *conn) error {
		p, err := st.src.catalog.fromTable(ctx, c, st.srv, id)
		if p != nil {
			def = p.table
		}
		return err
	}); err != nil {
		return st.readError(err)
	}
	if def == nil {
		st.src.log.Warn("a table was truncated that is gone by now, and whose columns the log has not told: no record says so", "table", id.String())
		return nil
	}
	st.add(capture.Truncate, def, &header{typ: replication.QUERY_EVENT, server: st.tx.gtid.server}, 0)
	return nil
}

// ask runs f on the session for the catalog. That rests while the log is read, so it may
// have been closed: then f runs again on a new one.
func (st *stream) ask(ctx context.Context, f func(*conn) error) error {
	err := f(st.catalog)
	var my *mysql.MyError
	if err == nil || errors.As(err, &my) || ctx.Err() != nil || errors.Is(err, capture.ErrUnreadable) || errors.Is(err, capture.ErrMisconfigured) {
		return err
	}
	c, err := st.src.connectTo(ctx, st.srv)
	if err != nil {
		return err
	}
	st.catalog.close()
	st.catalog = c
	return f(c)
}

// tableMap takes the description of the table that rows follow of.
func (st *stream) tableMap(ctx context.Context, h *header, body []byte) error {
	tx := &st.tx
	if !tx.open {
		return st.unreadable("the description of a table outside of a transaction")
	}
	if tx.skip {
		return nil
	}
	if tx.held != nil && !tx.held.replaying {
		return st.hold(ctx, h, body)
	}
	id := tableMapID(body)
	if t := st.tables[id]; t != nil && t.tm.says(body) {
		return nil
	}
	tm, err := parseTableMap(body, st.srv.flavour == mariaDB)
	if err != nil {
		return st.readError(err)
	}
	if !st.src.captures(tm.table) || isSequence(tm) {
		st.tables[id] = &logTable{tm: tm}
		return nil
	}
	var t *logTable
	if st.nameless = !tm.named; st.nameless {
		t, err = st.unnamed(ctx, tm)
	} else {
		err = st.ask(ctx, func(c *conn) (err error) {
			t, err = st.src.catalog.fromLog(ctx, c, st.srv, tm, st.known[tm.table])
			return err
		})
	}
	if err != nil {
		return st.readError(err)
	}
	st.tables[id] = t
	if t.plan == nil {
		return nil
	}
	if old := st.known[tm.table]; old == nil || old.table != t.table {
		for _, i := range t.plan.drift {
			if !t.gone {
				st.src.log.Info("the catalog describes a column otherwise than the log: its default and comment are left out", "table", tm.table.String(), "column", tm.columns[i].name)
			}
		}
	}
	if len(st.known) >= maxTables {
		clear(st.known)
	}
	st.known[tm.table] = t
	return nil
}

// maxTables bounds how many tables are remembered.
const maxTables = 10_000

// consume counts one row of the open transaction (rules R5 and R6 of publish/DESIGN.md)
// and says whether it is to be emitted.
func (st *stream) consume(id capture.TableID, op capture.Op, images []byte) (emit bool, err error) {
	if err := st.expected(); err != nil {
		return false, err
	}
	tx := &st.tx
	tx.done++
	tx.ours = true
	st.op[0] = byte(op)
	tx.crc = crc32.Update(tx.crc, castagnoli, st.op[:])
	tx.crc = crc32.Update(tx.crc, castagnoli, unsafe.Slice(unsafe.StringData(id.Schema), len(id.Schema)))
	tx.crc = crc32.Update(tx.crc, castagnoli, unsafe.Slice(unsafe.StringData(id.Name), len(id.Name)))
	tx.crc = crc32.Update(tx.crc, castagnoli, images)
	if st.resume == nil || tx.done > st.resume.Done {
		return true, nil
	}
	if tx.done == st.resume.Done && tx.crc != st.resume.CRC {
		return false, st.notRepeated(tx.done)
	}
	return false, nil
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// rowsEvent takes rows of one table.
func (st *stream) rowsEvent(ctx context.Context, h *header, body []byte) error {
	tx := &st.tx
	if !tx.open {
		return st.unreadable("a row outside of a transaction")
	}
	if tx.skip {
		return nil
	}
	if tx.held != nil && !tx.held.replaying {
		return st.hold(ctx, h, body)
	}
	e, err := parseRows(h.typ, body)
	if err != nil {
		return st.readError(err)
	}
	if e.none {
		return nil
	}
	t := st.tables[e.table]
	if t == nil {
		return st.unreadable("a row of a table that was not described")
	}
	if t.plan == nil {
		return nil
	}
	if tx.done == 0 {
		if err := st.expected(); err != nil {
			return err
		}
	}
	if slices.ContainsFunc(t.plan.unseen, func(i int) bool {
		return i < e.columns && (e.before != nil && carries(e.before, i) || e.after != nil && carries(e.after, i))
	}) {
		t.plan.left, t.plan.unseen = nil, nil // MySQL leaves out nothing else
		t.show(st.src.catalog)
	}
	if i := t.wasGenerated(&e); i >= 0 {
		return st.readError(generatedError(t.plan.table, i, written))
	}
	// Rows that were emitted before are decoded for where they end.
	b := st.batch
	skipping := st.resume != nil && tx.done < st.resume.Done
	if skipping {
		b = st.skipped
	}
	whole := e
	st.reader.reset(t.plan, b, &e)
	for index := 0; ; index++ {
		rest := st.reader.rest
		if !st.reader.next() {
			break
		}
		if err := t.history.check(t.plan.table, st.reader.before, st.reader.after); err != nil {
			return st.readError(err)
		}
		emit, err := st.consume(t.table.ID, e.op, rest[:len(rest)-len(st.reader.rest)])
		if err != nil {
			return err
		}
		if !emit {
			continue
		}
		if skipping {
			// The rest is for the batch.
			skipping = false
			whole.rows = whole.rows[len(whole.rows)-len(rest):]
			e = whole
			st.reader.reset(t.plan, st.batch, &e)
			if !st.reader.next() {
				break
			}
		}
		if err := st.row(t, &e, h, index); err != nil {
			return err
		}
	}
	if err := st.reader.err; err != nil {
		return st.readError(err)
	}
	if st.skipped.Size() > st.src.cfg.BatchBytes {
		st.skipped.Release()
		st.skipped = capture.NewBatch()
	}
	if !skipping {
		st.batch.LogBytes += int(h.size)
	}
	return st.cut()
}

// row emits the row that the reader stands at.
func (st *stream) row(t *logTable, e *rowsEvent, h *header, index int) error {
	op, before, after := e.op, st.reader.before, st.reader.after
	if err := t.complete(e, before, after); err != nil {
		return st.readError(err)
	}
	op, before, after, shown := t.history.view(op, before, after)
	if !shown {
		return nil
	}
	ev := st.add(op, t.table, h, index)
	ev.Before, ev.After = t.row(before), t.row(after)
	return nil
}

// carries says whether an image has a value of column i.
func carries(image []byte, i int) bool { return image[i/8]>>(i%8)&1 != 0 }

// complete makes up for images that do not carry every column.
func (t *logTable) complete(e *rowsEvent, before, after capture.Row) error {
	def := t.plan.table
	if before != nil {
		for _, k := range def.Key {
			if !carries(e.before, k) {
				return fmt.Errorf("%w: the log does not repeat the key column %q of %s in old rows, so changes of it could not be written under the right key; "+
					"remedy: SET GLOBAL binlog_row_image = 'FULL', let no session set another one, and %s", capture.ErrUnreadable, def.Columns[k].Name, def.ID, readAnew)
			}
		}
	}
	for i := range after {
		switch {
		case carries(e.after, i) || slices.Contains(t.left, i):
		case before == nil:
			return imageError(def, i)
		case t.plan.columns[i].values != written && t.tm.mariadb:
			return generatedError(def, i, t.plan.columns[i].values)
		case carries(e.before, i):
			after[i] = before[i]
		default:
			after[i] = capture.UnchangedValue
		}
	}
	return nil
}

// imageError: the log of an insert leaves a column out which has its default then, and
// what that was the log does not say.
func imageError(t *capture.Table, i int) error {
	return fmt.Errorf("%w: the log leaves column %q out of a new row of %s (binlog_row_image = MINIMAL), where the server has put its default; "+
		"remedy: SET GLOBAL binlog_row_image = 'FULL', let no session set another one, and %s", capture.ErrUnreadable, t.Columns[i].Name, t.ID, readAnew)
}

// wasGenerated returns a column that is an ordinary one by the catalog, and of which the images of
// a change show that MariaDB made its values then: both lack it, and the old row's has what no
// binlog_row_image would have beside an ordinary column that it lacks. It returns -1 if there is none.
func (t *logTable) wasGenerated(e *rowsEvent) int {
	if !t.tm.mariadb || e.before == nil || e.after == nil {
		return -1
	}
	blob := func(i int) bool {
		switch t.tm.columns[i].typ {
		case typeBlob, typeBlobCompressed, typeGeometry:
			return true
		}
		return false
	}
	// MINIMAL leaves out all but the key, if there is one, and NOBLOB such columns outside of it.
	full := func(blobs bool) bool {
		for i := range t.tm.columns {
			if carries(e.before, i) && (!blobs || blob(i)) && !slices.Contains(t.tm.key, i) {
				return true
			}
		}
		return len(t.tm.key) == 0
	}
	for i := range min(e.columns, len(t.tm.columns)) {
		if !carries(e.before, i) && !carries(e.after, i) && t.plan.columns[i].values == written && !slices.Contains(t.left, i) && full(blob(i)) {
			return i
		}
	}
	return -1
}

// generatedError: MariaDB leaves a generated column out of an image that is not full, also where
// what it is made of has changed.
func generatedError(t *capture.Table, i int, v valueSource) error {
	how, remedy := "is generated", "SET GLOBAL binlog_row_image = 'FULL', let no session set another one, and "+readAnew
	switch v {
	case untold:
		how = "may have been generated when the row was changed, since the catalog does not describe it alike any more"
	case written:
		how, remedy = "was a generated one when the row was changed, since all others of its kind are there", readAnew
	}
	return fmt.Errorf("%w: the log leaves column %q out of a changed row of %s, and the column %s, so that nothing tells whether its value has changed; remedy: %s",
		capture.ErrUnreadable, t.Columns[i].Name, t.ID, how, remedy)
}

// add appends a change of the open transaction to the batch.
func (st *stream) add(op capture.Op, t *capture.Table, h *header, index int) *capture.Event {
	tx := st.batchTx()
	ev := st.batch.Add()
	ev.Op, ev.Table, ev.Time, ev.Tx, ev.Ordinal = op, t, st.tx.micros, tx, st.tx.done
	ev.Origin = st.originRow(h, index)
	st.rows++
	return ev
}

// originRow is the source block of a change: server_id, gtid, file, pos, row, thread and
// query.
func (st *stream) originRow(h *header, index int) capture.Row {
	r := st.batch.Row(originFields)
	r[0], r[1] = capture.IntValue(int64(h.server)), capture.NullValue
	if !st.tx.gtid.isZero() {
		r[1] = capture.TextValue(st.tx.inBatch.ID)
	}
	r[2], r[3], r[4] = capture.TextValue(st.start.File), capture.IntValue(int64(st.start.Pos)), capture.IntValue(int64(index))
	r[5], r[6] = capture.NullValue, capture.NullValue
	if st.tx.thread != 0 {
		r[5] = capture.IntValue(int64(st.tx.thread))
	}
	return r
}

// batchTx returns the open transaction as the batch at hand holds it.
func (st *stream) batchTx() *capture.Tx {
	tx := &st.tx
	if tx.inBatch == nil {
		id := st.batch.Copy([]byte(tx.id))
		tx.inBatch = st.batch.Tx(unsafe.String(&id[0], len(id)), tx.begin.number())
	}
	tx.emitted = true
	return tx.inBatch
}

// cut hands on a part of the open transaction once it is large enough.
func (st *stream) cut() error {
	if st.batch.Size() < st.src.cfg.BatchBytes || !st.tx.emitted {
		return nil
	}
	st.batch.InTx = &capture.InTx{ID: st.tx.id, Done: st.tx.done, CRC: st.tx.crc}
	return st.flush()
}

// flush hands the batch on.
func (st *stream) flush() error {
	b := st.batch
	var err error
	if b.End, err = st.writer.write(&st.at); err != nil {
		return err
	}
	// Views must know of a transaction before its rows reach the window.
	partial := ""
	if b.InTx != nil {
		partial = st.tx.id
	}
	st.src.scan.emitted(b.End, st.at.At, partial, st.tx.begin)
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
	m.file.Set(float64(st.at.At.number() >> 40))
	m.offset.Set(float64(st.at.At.Pos))
	if st.at.CommitTS != 0 {
		m.lag.Set(max(0, time.Since(time.UnixMicro(st.at.CommitTS)).Seconds()))
	}
	st.batch, st.rows = capture.NewBatch(), 0
	st.tx.inBatch = nil
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
	// Not at.At: what was logged and not executed when we began lies before that.
	ids := st.src.scan.passed(st.read)
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

// watchInterval is how often the backlog is measured.
const watchInterval = 5 * time.Second

// watch measures the backlog until ctx ends, and keeps the session alive that holds the
// pipeline's lock. What fails is tried again later: nothing depends on it.
func (st *stream) watch(ctx context.Context) {
	tick := time.NewTicker(watchInterval)
	defer tick.Stop()
	for {
		logs, err := listLogs(ctx, st.side)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			st.src.log.Debug("could not look at the end of the log", "error", err)
		} else {
			st.src.metrics.backlog.Set(float64(backlog(logs, st.received.Load())))
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// backlog is how much of the files lies behind the place with this number.
func backlog(logs []place, number uint64) (n uint64) {
	for _, l := range logs {
		start := place{File: l.File}.number()
		switch end := l.number(); {
		case start > number:
			n += l.Pos
		case end > number:
			n += end - number
		}
	}
	return n
}
