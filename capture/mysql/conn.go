package mysql

import (
	"bufio"
	"context"
	"crypto/md5"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-mysql-org/go-mysql/client"
	"github.com/go-mysql-org/go-mysql/mysql"
	"github.com/go-mysql-org/go-mysql/packet"

	"github.com/headwaterdb/headwater/capture"
)

// A conn is one session with the server. One goroutine uses it.
type conn struct {
	db  *client.Conn
	net *bufferedConn
	id  uint32 // of the session, as the server counts
	// with is the server that it is with, once connectTo has asked.
	with identity
	// patience is how long the server may say nothing before it has answered a query.
	patience time.Duration
	// packet is the memory of the last one that readPacket returned.
	packet []byte
}

// readBuffer is what one read from the socket may bring.
const readBuffer = 256 << 10

// A bufferedConn reads through a buffer whose fill level we can see.
type bufferedConn struct {
	net.Conn
	r *bufio.Reader
	// timeout bounds each read from the socket, when it is not 0; silent says that one took
	// as long.
	timeout time.Duration
	silent  bool
	stopped atomic.Bool
	// woken asks for the end of the wait for a packet; waiting says that none has begun.
	woken   atomic.Bool
	waiting bool
}

func (c *bufferedConn) Read(p []byte) (int, error) { return c.r.Read(p) }

// interrupt ends the read that is going on, and all later ones.
func (c *bufferedConn) interrupt() {
	c.stopped.Store(true)
	_ = c.SetDeadline(time.Unix(1, 0))
}

// errWoken is what readPacket returns after wake. Nothing was read.
var errWoken = errors.New("woken")

// wake ends the wait for a packet that is going on, or the next one. A packet that has begun is
// read to its end before.
func (c *bufferedConn) wake() {
	c.woken.Store(true)
	_ = c.SetReadDeadline(time.Unix(1, 0))
}

// A socket is what a bufferedConn's buffer is filled from.
type socket struct{ *bufferedConn }

func (s socket) Read(p []byte) (int, error) {
	// The clock runs while we wait for the server, not while the server waits for us.
	var deadline time.Time
	if s.timeout > 0 {
		deadline = time.Now().Add(s.timeout)
	}
	for {
		_ = s.SetReadDeadline(deadline)
		if s.stopped.Load() {
			return 0, os.ErrDeadlineExceeded // it was stopped before that
		}
		if s.waiting && s.woken.Swap(false) {
			return 0, errWoken
		}
		n, err := s.Conn.Read(p)
		if n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) || s.stopped.Load() {
			return n, err
		}
		if s.timeout > 0 && !time.Now().Before(deadline) {
			s.silent = true
			return n, err
		}
		// It was woken. Inside of a packet that has to wait, for no longer than the rest.
	}
}

// keepAlive finds a peer that is gone for good in about a minute.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 30 * time.Second, Interval: 10 * time.Second, Count: 3}

// connect opens a session and pins what decides how values print and how long the
// server waits for us (rule R27 of publish/DESIGN.md).
func (s *Source) connect(ctx context.Context) (*conn, error) {
	a, err := s.cfg.address()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", capture.ErrMisconfigured, err)
	}
	tlsConfig, err := s.cfg.tlsConfig(a)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", capture.ErrMisconfigured, err)
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.ConnectTimeout)
	defer cancel()
	var stop func() bool
	dial := func(ctx context.Context, network, addr string) (net.Conn, error) {
		d := net.Dialer{KeepAliveConfig: keepAlive}
		nc, err := d.DialContext(ctx, network, addr)
		if err == nil {
			// The library bounds the dial alone, and not the handshake.
			stop = context.AfterFunc(ctx, func() { _ = nc.SetDeadline(time.Unix(1, 0)) })
		}
		return nc, err
	}
	var db *client.Conn
	err = decoded(func() (err error) {
		db, err = client.ConnectWithDialer(ctx, "tcp", a.String(), a.user, a.password, "", dial, func(c *client.Conn) error {
			c.SetTLSConfig(tlsConfig)
			// Rows are then framed alike by old and new servers; see rows in scan.go.
			c.UnsetCapability(mysql.CLIENT_DEPRECATE_EOF)
			c.UnsetCapability(mysql.CLIENT_QUERY_ATTRIBUTES)
			c.SetAttributes(map[string]string{"program_name": "headwater", "_client_role": "headwater:" + s.cfg.Pipeline})
			return nil
		})
		return err
	})
	if err != nil {
		return nil, connectError(a, err)
	}
	if !stop() {
		_ = db.Close()
		return nil, connectError(a, context.Cause(ctx))
	}
	c := &conn{db: db, id: db.GetConnectionID(), patience: s.cfg.ReadTimeout}
	// Nothing is in flight: the handshake ends with the server's answer.
	c.net = &bufferedConn{Conn: db.Conn.Conn}
	c.net.r = bufio.NewReaderSize(socket{c.net}, readBuffer)
	db.Conn = packet.NewTLSConn(c.net) // the form that adds no buffer of its own
	limit := "max_execution_time"
	if flavourOf(db.GetServerVersion()) == mariaDB {
		limit = "max_statement_time"
	}
	for _, sql := range []string{"SET NAMES utf8mb4", pinned + ", " + s.lockWait() + ", " + limit + " = 0"} {
		if err := c.exec(ctx, sql); err != nil {
			c.close()
			return nil, fmt.Errorf("prepare a session with the server at %s: %w", a, err)
		}
	}
	return c, nil
}

// pinned are settings of every session. net_write_timeout is how long we may be held up
// by whoever takes our batches, or read a table without a key, before the server gives
// up: a day. Days that no calendar has are compared like others, where they are keys. Columns
// that MySQL adds as a primary key are shown, since they are in the log. A view waits for the
// chunk before it, so MariaDB must not end idle transactions.
const pinned = "SET time_zone = '+00:00', sql_mode = 'ALLOW_INVALID_DATES', net_write_timeout = 86400, wait_timeout = 86400, " +
	"sql_select_limit = DEFAULT, autocommit = 1 /*!80030 , show_gipk_in_create_table_and_information_schema = ON */" +
	" /*M!100300 , idle_transaction_timeout = 0, idle_readonly_transaction_timeout = 0 */"

// lockWait is the setting by which a session gives up waiting for a table's lock, about which
// the server says nothing, before that silence is taken for death.
func (s *Source) lockWait() string {
	return fmt.Sprintf("lock_wait_timeout = %d", int(min(time.Minute, s.cfg.ReadTimeout/2).Seconds()))
}

// connectError says in one sentence why there is no connection.
func connectError(a *address, err error) error {
	var my *mysql.MyError
	var unknown x509.UnknownAuthorityError
	var host x509.HostnameError
	var invalid x509.CertificateInvalidError
	var verify *tls.CertificateVerificationError
	switch {
	case errors.As(err, &my):
		switch my.Code {
		case mysql.ER_ACCESS_DENIED_ERROR, mysql.ER_ACCESS_DENIED_NO_PASSWORD_ERROR:
			return fmt.Errorf("%w: the server at %s refuses the password of user %q; remedy: correct password, or ALTER USER '%s'@'…' IDENTIFIED BY '…'", capture.ErrMisconfigured, a, a.user, a.user)
		case mysql.ER_HOST_NOT_PRIVILEGED, mysql.ER_MUST_CHANGE_PASSWORD_LOGIN, errAccountLocked, errSecureTransport:
			return fmt.Errorf("%w: the server at %s does not let user %q in: %s", capture.ErrMisconfigured, a, a.user, my.Message)
		}
	case errors.As(err, &unknown), errors.As(err, &host), errors.As(err, &invalid), errors.As(err, &verify):
		return fmt.Errorf("%w: the certificate of the server at %s is not accepted: %w; remedy: let tls_ca name the authority that signed it, and tls=verify-ca where it does not carry the host's name",
			capture.ErrMisconfigured, a, err)
	case strings.Contains(err.Error(), "auth plugin"):
		return fmt.Errorf("%w: the server at %s wants user %q to log in by a method that headwater does not know (%w); known are caching_sha2_password, sha256_password, mysql_native_password and ed25519",
			capture.ErrMisconfigured, a, a.user, err)
	case strings.Contains(err.Error(), "does not support TLS"):
		return fmt.Errorf("%w: the server at %s does not offer TLS; remedy: let it have a certificate, or put ?tls=disable behind the url", capture.ErrMisconfigured, a)
	}
	return fmt.Errorf("connect to the server at %s: %w", a, err)
}

const (
	errAccountLocked   = 3118 // ER_ACCOUNT_HAS_BEEN_LOCKED
	errSecureTransport = 3159 // ER_SECURE_TRANSPORT_REQUIRED
)

// close ends the session. Nothing is lost with it.
func (c *conn) close() { _ = c.db.Close() }

// within runs f, which the end of ctx interrupts. The session is of no use afterwards.
func (c *conn) within(ctx context.Context, f func() error) error {
	stop := context.AfterFunc(ctx, c.net.interrupt)
	err := f()
	if !stop() {
		return context.Cause(ctx)
	}
	return err
}

// decoded runs f, in which the library decodes what the server sends. The library takes for
// granted that packets are as long as they should be.
func decoded(f func() error) (err error) {
	defer func() {
		switch p := recover().(type) {
		case nil:
		case runtime.Error:
			err = fmt.Errorf("what the server sends cannot be decoded: %w", p)
		default:
			panic(p)
		}
	}()
	return f()
}

// answer is within for f that lets the library ask the server for a short answer.
func (c *conn) answer(ctx context.Context, f func() error) error {
	c.net.timeout = c.patience
	defer func() { c.net.timeout = 0 }()
	err := c.within(ctx, func() error { return decoded(f) })
	if err != nil && ctx.Err() == nil && c.net.silent {
		return fmt.Errorf("the server has been silent for %s: the connection is dead (%w)", c.patience, err)
	}
	return err
}

// query runs one statement and returns its rows as text. NULL is "".
func (c *conn) query(ctx context.Context, sql string) (rows [][]string, err error) {
	err = c.answer(ctx, func() error {
		r, err := c.db.Execute(sql)
		if err != nil {
			return err
		}
		defer r.Close()
		if r.Resultset == nil {
			return nil
		}
		rows = make([][]string, r.RowNumber())
		for i := range rows {
			rows[i] = make([]string, r.ColumnNumber())
			for j := range rows[i] {
				text, err := r.GetString(i, j)
				if err != nil {
					return err
				}
				rows[i][j] = strings.Clone(text)
			}
		}
		return nil
	})
	return rows, err
}

// queryLong is query for an answer that may take the server any time to make.
func (c *conn) queryLong(ctx context.Context, sql string) ([][]string, error) {
	defer func(patience time.Duration) { c.patience = patience }(c.patience)
	c.patience = 0
	return c.query(ctx, sql)
}

// queryRow is query for exactly one row.
func (c *conn) queryRow(ctx context.Context, sql string) ([]string, error) {
	rows, err := c.query(ctx, sql)
	if err != nil {
		return nil, err
	}
	if len(rows) != 1 {
		return nil, fmt.Errorf("the server answers with %d rows, want one", len(rows))
	}
	return rows[0], nil
}

func (c *conn) exec(ctx context.Context, sql string) error {
	_, err := c.query(ctx, sql)
	return err
}

// send writes one command.
func (c *conn) send(command byte, payload ...[]byte) error {
	data := []byte{0, 0, 0, 0, command}
	for _, p := range payload {
		data = append(data, p...)
	}
	c.db.ResetSequence()
	return c.db.WritePacket(data)
}

// readPacket returns the next packet of the server's answer. It is valid until the next
// call.
func (c *conn) readPacket() ([]byte, error) {
	const whole = 1<<24 - 1 // a packet of this length goes on in the next one
	c.packet = c.packet[:0]
	if cap(c.packet) > 4<<20 {
		c.packet = nil // one huge row does not stay resident for ever
	}
	for {
		c.net.waiting = len(c.packet) == 0
		head, err := c.net.r.Peek(4)
		c.net.waiting = false
		if err != nil {
			return nil, err
		}
		n := int(head[0]) | int(head[1])<<8 | int(head[2])<<16
		_, _ = c.net.r.Discard(4)
		at := len(c.packet)
		c.packet = append(c.packet, make([]byte, n)...)
		if _, err := io.ReadFull(c.net.r, c.packet[at:]); err != nil {
			return nil, err
		}
		if n < whole {
			return c.packet, nil
		}
	}
}

// answerError makes the error of an ERR packet:
//
//	0xff code(2) '#' state(5) message
//
// https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_basic_err_packet.html
func answerError(p []byte) error {
	r := cursor{rest: p}
	r.bytes(1)
	e := &mysql.MyError{Code: r.uint16()}
	if r.failed {
		return errors.New("the server answers with an error that is too short to tell which")
	}
	text := string(r.rest)
	if len(text) > 5 && text[0] == '#' {
		e.State, text = text[1:6], text[6:]
	}
	e.Message = text
	return e
}

// A dumpRequest asks the server for its log: from a GTID set on, or from a place.
type dumpRequest struct {
	flavour flavour
	// id and name are what the server's list of replicas shows; a name has 60 bytes at most.
	id   uint32
	name string
	// gtids is what must not be sent, when it is not nil.
	gtids mysql.GTIDSet
	// file and pos are where to begin otherwise.
	file string
	pos  uint32
	// heartbeat is how often a silent server says so.
	heartbeat time.Duration
	// once ends the answer where the log ends now.
	once bool
}

// startDump makes the session one that receives the log. Events keep their checksums:
// a server that is asked for none changes the size that events carry, by which we count
// where they stand.
//
// https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_replication.html
func (c *conn) startDump(ctx context.Context, d *dumpRequest) error {
	sets := []string{
		"SET @master_binlog_checksum = @@global.binlog_checksum, @source_binlog_checksum = @@global.binlog_checksum",
		// In nanoseconds. A silent line and a dead one look alike without it.
		fmt.Sprintf("SET @master_heartbeat_period = %[1]d, @source_heartbeat_period = %[1]d", d.heartbeat.Nanoseconds()),
	}
	if d.flavour == mariaDB {
		// 4 is MARIA_SLAVE_CAPABILITY_GTID.
		sets = append(sets, "SET @mariadb_slave_capability = 4")
		if d.gtids != nil {
			sets = append(sets, "SET @slave_connect_state = '"+d.gtids.String()+"'", "SET @slave_gtid_strict_mode = 1")
		}
	} else if !d.once {
		// A server ends the older session of the same replica when the newer one comes.
		id := replicaUUID(d.name)
		sets = append(sets, fmt.Sprintf("SET @slave_uuid = '%[1]s', @replica_uuid = '%[1]s'", id))
	}
	for _, sql := range sets {
		if err := c.exec(ctx, sql); err != nil {
			return fmt.Errorf("prepare for reading the log: %w", err)
		}
	}
	return c.answer(ctx, func() error {
		if !d.once {
			if err := c.register(d); err != nil {
				return fmt.Errorf("register as a replica: %w", err)
			}
		}
		return c.dump(d)
	})
}

// replicaUUID is the identity of a pipeline's replica.
func replicaUUID(name string) string {
	h := md5.Sum([]byte(name))
	h[6], h[8] = h[6]&0x0f|0x30, h[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", h[:4], h[4:6], h[6:8], h[8:10], h[10:])
}

// register puts us on the server's list of replicas.
func (c *conn) register(d *dumpRequest) error {
	b := binary.LittleEndian.AppendUint32(nil, d.id)
	b = append(append(b, byte(len(d.name))), d.name...)
	b = append(b, 0, 0)                   // user and password, which are not shown
	b = append(b, 0, 0)                   // port
	b = append(b, 0, 0, 0, 0, 0, 0, 0, 0) // rank and the primary's id
	if err := c.send(mysql.COM_REGISTER_SLAVE, b); err != nil {
		return err
	}
	_, err := c.db.ReadOKPacket()
	return err
}

func (c *conn) dump(d *dumpRequest) error {
	const (
		nonBlocking = 1 // BINLOG_DUMP_NON_BLOCK
		// MariaDB leaves the texts of statements out otherwise, and then events inside of
		// a transaction, which do not tell where they stand, cannot be counted.
		annotate = 2 // BINLOG_SEND_ANNOTATE_ROWS_EVENT
	)
	var flags uint16
	if d.once {
		flags = nonBlocking
	}
	if d.flavour == mariaDB {
		flags |= annotate
	}
	le := binary.LittleEndian
	if d.gtids != nil && d.flavour == mySQL {
		set := d.gtids.Encode()
		b := le.AppendUint16(nil, flags)
		b = le.AppendUint32(b, d.id)
		b = le.AppendUint32(b, 0) // no file name
		b = le.AppendUint64(b, 4)
		b = le.AppendUint32(b, uint32(len(set)))
		return c.send(mysql.COM_BINLOG_DUMP_GTID, b, set)
	}
	b := le.AppendUint32(nil, max(d.pos, 4))
	b = le.AppendUint16(b, flags)
	b = le.AppendUint32(b, d.id)
	return c.send(mysql.COM_BINLOG_DUMP, b, []byte(d.file))
}

func quoteIdent(name string) string { return "`" + strings.ReplaceAll(name, "`", "``") + "`" }

func quoteTable(id capture.TableID) string { return quoteIdent(id.Schema) + "." + quoteIdent(id.Name) }

// quoteText makes a literal of text, whatever sql_mode says about backslashes.
func quoteText(text string) string {
	if text == "" {
		return "''"
	}
	return "_utf8mb4 0x" + fmt.Sprintf("%x", text)
}

func parseUint(text string) (uint64, error) { return strconv.ParseUint(text, 10, 64) }
