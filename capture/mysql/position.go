package mysql

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/go-mysql-org/go-mysql/mysql"
	"github.com/go-mysql-org/go-mysql/replication"
	"github.com/google/uuid"

	"github.com/headwaterdb/headwater/capture"
)

// A flavour is which of the two servers it is, as positions name it.
type flavour string

const (
	mySQL   flavour = "mysql"
	mariaDB flavour = "mariadb"
)

// flavourOf tells it from the version, such as "8.0.33" or "10.11.18-MariaDB-log".
func flavourOf(version string) flavour {
	if strings.Contains(version, "MariaDB") {
		return mariaDB
	}
	return mySQL
}

// wireRows is what the checksum of a cut transaction is taken over (rule R27 of
// publish/DESIGN.md): for each row its table, its operation and its images as the log
// has them, whatever events they came in.
const wireRows = "rows"

// identity is the log that a position belongs to. GTIDs are those of a whole topology,
// files those of one server.
type identity struct {
	Flavour flavour `json:"flavor"`
	// Server is MySQL's server_uuid, or MariaDB's server_id.
	Server string `json:"server"`
	Wire   string `json:"wire"`
}

// A place is where something stands in the files of one server.
type place struct {
	File string `json:"file"`
	Pos  uint64 `json:"pos"`
}

func (p place) String() string { return p.File + ":" + strconv.FormatUint(p.Pos, 10) }

// number orders the places of one server: the number of the file and the offset in it.
// Files have less than a terabyte.
func (p place) number() uint64 {
	n, _ := strconv.ParseUint(p.File[strings.LastIndexByte(p.File, '.')+1:], 10, 24)
	return n<<40 | p.Pos&(1<<40-1)
}

// A position is a [capture.Position] in parts. As JSON, with all fields:
//
//	{"source":{"flavor":"mysql","server":"3e11fa47-…","wire":"rows"},
//	 "gtid":"3e11fa47-71ca-11e1-9e33-c80aa9429562:1-57","file":"binlog.000003","pos":1234,"began":1767220000,"commit_ts":1767225600123456,
//	 "prepared":[{"xid":"X'61',X'',1","gtid":"…","before":"…","file":"…","pos":…}]}
type position struct {
	Source identity
	// GTIDs are all transactions that were emitted or passed: MySQL's set of executed
	// ones, or the last one of each of MariaDB's domains. It is nil where the server has
	// none, and the place counts.
	GTIDs mysql.GTIDSet
	// At is the end of the last commit that was emitted whole, or a place in the log
	// before which nothing is left, on the server Source.
	At place
	// Began is when the file of At was begun, in seconds since the Unix epoch: the files of
	// a log that was reset have the same names again. It is 0 as long as At means nothing,
	// after a move to another server.
	Began uint32
	// CommitTS is the time of that commit in microseconds since the Unix epoch, 0 when
	// there was none.
	CommitTS int64
	// Prepared are the XA transactions that were read and not yet decided. MySQL's GTIDs
	// leave them out, and the server sends them again. Elsewhere reading begins before the
	// oldest, the first of the list, and passes over what lies between and was emitted.
	Prepared []prepared
}

// A prepared is an XA transaction without outcome.
type prepared struct {
	XID  string `json:"xid"`
	GTID string `json:"gtid,omitempty"`
	// Before are MariaDB's GTIDs before it, from which it is read again.
	Before string `json:"before,omitempty"`
	place         // where it begins
}

type storedPosition struct {
	Source identity `json:"source"`
	GTID   *string  `json:"gtid,omitempty"`
	place
	Began    uint32     `json:"began,omitempty"`
	CommitTS int64      `json:"commit_ts,omitempty"`
	Prepared []prepared `json:"prepared,omitempty"`
}

func parsePosition(p capture.Position) (position, error) {
	var s storedPosition
	if err := json.Unmarshal([]byte(p), &s); err != nil {
		return position{}, fmt.Errorf("%w: the checkpoint's position is not one of MySQL or MariaDB: %w", capture.ErrPositionLost, err)
	}
	if s.Source.Flavour != mySQL && s.Source.Flavour != mariaDB || s.File == "" {
		return position{}, fmt.Errorf("%w: the checkpoint's position is not one of MySQL or MariaDB: it names no server or no file", capture.ErrPositionLost)
	}
	out := position{Source: s.Source, At: s.place, Began: s.Began, CommitTS: s.CommitTS, Prepared: s.Prepared}
	if s.GTID != nil {
		set, err := parseGTIDs(s.Source.Flavour, *s.GTID)
		if err != nil {
			return position{}, fmt.Errorf("%w: the checkpoint's gtid %q: %w", capture.ErrPositionLost, *s.GTID, err)
		}
		out.GTIDs = set
	}
	return out, nil
}

// parseGTIDs reads a set as the servers print it, which may break lines.
func parseGTIDs(f flavour, text string) (mysql.GTIDSet, error) {
	text = strings.Join(strings.Fields(text), "")
	if f == mariaDB {
		return mysql.ParseMariadbGTIDSet(text)
	}
	return mysql.ParseMysqlGTIDSet(text)
}

// A positionWriter writes the positions of one log. One is made per batch, hence by
// appending.
type positionWriter struct{ buf, head []byte }

func newPositionWriter(id identity) (*positionWriter, error) {
	head, err := json.Marshal(id)
	if err != nil {
		return nil, fmt.Errorf("write a position: %w", err)
	}
	return &positionWriter{head: append(append([]byte(`{"source":`), head...), ',')}, nil
}

func (w *positionWriter) write(p *position) (capture.Position, error) {
	b := append(w.buf[:0], w.head...)
	if p.GTIDs != nil {
		b = append(b, `"gtid":"`...) // of letters, digits and signs that JSON takes as they are
		b = append(append(b, p.GTIDs.String()...), `",`...)
	}
	file, err := json.Marshal(p.At.File)
	if err != nil {
		return "", fmt.Errorf("write a position: %w", err)
	}
	b = append(append(b, `"file":`...), file...)
	b = strconv.AppendUint(append(b, `,"pos":`...), p.At.Pos, 10)
	if p.Began != 0 {
		b = strconv.AppendUint(append(b, `,"began":`...), uint64(p.Began), 10)
	}
	if p.CommitTS != 0 {
		b = strconv.AppendInt(append(b, `,"commit_ts":`...), p.CommitTS, 10)
	}
	if len(p.Prepared) > 0 {
		list, err := json.Marshal(p.Prepared)
		if err != nil {
			return "", fmt.Errorf("write a position: %w", err)
		}
		b = append(append(b, `,"prepared":`...), list...)
	}
	w.buf = append(b, '}')
	return capture.Position(w.buf), nil
}

// A gtid names one transaction: a server's uuid, perhaps a tag, and a number in MySQL,
// domain, server and number in MariaDB. The zero value is none.
type gtid struct {
	number uint64
	uuid   uuid.UUID
	tag    string
	domain uint32
	server uint32
	maria  bool
}

func (g *gtid) isZero() bool { return g.number == 0 }

// append appends the server's form.
func (g *gtid) append(b []byte) []byte {
	if g.maria {
		b = strconv.AppendUint(b, uint64(g.domain), 10)
		b = strconv.AppendUint(append(b, '-'), uint64(g.server), 10)
		return strconv.AppendUint(append(b, '-'), g.number, 10)
	}
	b = appendUUID(b, &g.uuid)
	if g.tag != "" {
		b = append(append(b, ':'), g.tag...)
	}
	return strconv.AppendUint(append(b, ':'), g.number, 10)
}

func (g *gtid) String() string { return string(g.append(nil)) }

func appendUUID(b []byte, u *uuid.UUID) []byte {
	b = hex.AppendEncode(b, u[:4])
	for _, part := range [][]byte{u[4:6], u[6:8], u[8:10], u[10:]} {
		b = hex.AppendEncode(append(b, '-'), part)
	}
	return b
}

// parseGTID reads the servers' form of one transaction.
func parseGTID(text []byte) (g gtid, ok bool) {
	id, rest, found := bytes.Cut(text, []byte{':'})
	if !found {
		m, err := mysql.ParseMariadbGTID(string(text))
		if err != nil || len(text) == 0 {
			return g, false
		}
		return gtid{maria: true, domain: m.DomainID, server: m.ServerID, number: m.SequenceNumber}, true
	}
	u, err := uuid.ParseBytes(id)
	if err != nil {
		return g, false
	}
	if i := bytes.LastIndexByte(rest, ':'); i >= 0 {
		g.tag, rest = string(rest[:i]), rest[i+1:]
	}
	g.uuid = u
	g.number, err = strconv.ParseUint(string(rest), 10, 63)
	return g, err == nil
}

// parseMySQLGTID reads the body of MySQL's GTID event: the GTID, which is none in an anonymous
// one, and the time of the commit in microseconds.
func parseMySQLGTID(h *header, body []byte) (g gtid, micros int64, err error) {
	const least = 25 // flags(1) uuid(16) number(8)
	var e replication.GTIDEvent
	err = decoded(func() error {
		if h.typ != replication.GTID_TAGGED_LOG_EVENT {
			if len(body) < least {
				return errors.New("it is too short")
			}
			return e.Decode(body)
		}
		var tagged replication.GtidTaggedLogEvent
		err := tagged.Decode(body)
		e = tagged.GTIDEvent
		return err
	})
	if err != nil {
		return g, 0, err
	}
	if micros = int64(e.OriginalCommitTimestamp); micros == 0 {
		micros = int64(h.timestamp) * 1e6
	}
	if h.typ == replication.ANONYMOUS_GTID_EVENT {
		return g, micros, nil
	}
	if e.GNO <= 0 || len(e.SID) != len(g.uuid) {
		return g, 0, errors.New("it names no transaction")
	}
	g = gtid{number: uint64(e.GNO), tag: e.Tag.String()}
	copy(g.uuid[:], e.SID)
	return g, micros, nil
}

// addGTID adds a transaction to a set.
func addGTID(set mysql.GTIDSet, g *gtid) error {
	switch s := set.(type) {
	case *mysql.MariadbGTIDSet:
		if last := s.Sets[g.domain]; last != nil {
			last.ServerID, last.SequenceNumber = g.server, g.number
			return nil
		}
		return s.AddSet(&mysql.MariadbGTID{DomainID: g.domain, ServerID: g.server, SequenceNumber: g.number})
	case *mysql.MysqlGTIDSet:
		// Nearly always the next number after the last one.
		tag := mysql.NewTag(g.tag)
		if in := (*s)[g.uuid][tag]; len(in) > 0 && in[len(in)-1].Stop == int64(g.number) {
			in[len(in)-1].Stop++
			return nil
		}
		s.AddGTIDWithTag(g.uuid, tag, int64(g.number))
	}
	return nil
}

// hasGTID says whether a set of MySQL's holds a transaction. One of MariaDB's does not
// tell: the numbers of a domain need not grow from one server to the next.
func hasGTID(set mysql.GTIDSet, g *gtid) bool {
	s, ok := set.(*mysql.MysqlGTIDSet)
	return ok && (*s)[g.uuid][mysql.NewTag(g.tag)].Contain(mysql.IntervalSlice{{Start: int64(g.number), Stop: int64(g.number) + 1}})
}
