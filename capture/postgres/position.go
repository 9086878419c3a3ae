package postgres

import (
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/jackc/pglogrepl"

	"github.com/headwaterdb/headwater/capture"
)

// LSN is a log sequence number: a byte position in the server's write-ahead log.
type LSN = pglogrepl.LSN

// wireText is how row images travel (rule R27 of publish/DESIGN.md): pgoutput protocol
// 1, every value as text. Another form gets another name, because a transaction that
// was cut must be read again in the form it was cut in.
const wireText = "text"

// identity is the log that a position belongs to.
type identity struct {
	SystemID string `json:"system_identifier"`
	Timeline int32  `json:"timeline"`
	Database uint32 `json:"database"` // OID
	Slot     string `json:"slot"`
	Wire     string `json:"wire"`
}

// position is a [capture.Position] in parts. As JSON, with all fields:
//
//	{"source":{"system_identifier":"7…","timeline":1,"database":16384,"slot":"headwater","wire":"text"},
//	 "end_lsn":"0/16B3748","last_lsn":"0/16B3710","commit_ts":1767225600123456,"msg_lsn":"0/16B3700"}
type position struct {
	Source identity
	// End is the end of the last commit that was emitted whole, or a place in the log
	// before which no commit is left to send.
	End LSN
	// Last is the end of the last commit, or the place of a later message outside
	// transactions: the first number of the next change's "sequence". 0 is unknown.
	Last LSN
	// CommitTS is the time of that commit in microseconds since the Unix epoch, 0 when
	// there was none.
	CommitTS int64
	// Message is the last message outside transactions that was emitted; the server
	// sends those between End and itself again.
	Message LSN
}

type storedPosition struct {
	Source   identity `json:"source"`
	End      string   `json:"end_lsn"`
	Last     string   `json:"last_lsn,omitempty"`
	CommitTS int64    `json:"commit_ts,omitempty"`
	Message  string   `json:"msg_lsn,omitempty"`
}

func parsePosition(p capture.Position) (position, error) {
	var s storedPosition
	if err := json.Unmarshal([]byte(p), &s); err != nil {
		return position{}, fmt.Errorf("%w: the checkpoint's position is not one of PostgreSQL: %w", capture.ErrPositionLost, err)
	}
	out := position{Source: s.Source, CommitTS: s.CommitTS}
	for _, f := range []struct {
		name, text string
		to         *LSN
	}{{"end_lsn", s.End, &out.End}, {"last_lsn", s.Last, &out.Last}, {"msg_lsn", s.Message, &out.Message}} {
		if f.text == "" && f.name != "end_lsn" {
			continue
		}
		lsn, err := pglogrepl.ParseLSN(f.text)
		if err != nil {
			return position{}, fmt.Errorf("%w: the checkpoint's %s is %q", capture.ErrPositionLost, f.name, f.text)
		}
		*f.to = lsn
	}
	if out.End == 0 {
		return position{}, fmt.Errorf("%w: the checkpoint's end_lsn is %q", capture.ErrPositionLost, s.End)
	}
	return out, nil
}

// A positionWriter writes the positions of one log. One is made per batch, hence by
// appending.
type positionWriter struct{ buf, head []byte }

func newPositionWriter(id identity) (*positionWriter, error) {
	head, err := json.Marshal(id)
	if err != nil {
		return nil, fmt.Errorf("write a position: %w", err)
	}
	return &positionWriter{head: append(append([]byte(`{"source":`), head...), `,"end_lsn":"`...)}, nil
}

func (w *positionWriter) write(p *position) capture.Position {
	b := append(w.buf[:0], w.head...)
	b = append(appendLSN(b, p.End), '"')
	if p.Last != 0 {
		b = append(b, `,"last_lsn":"`...)
		b = append(appendLSN(b, p.Last), '"')
	}
	if p.CommitTS != 0 {
		b = append(b, `,"commit_ts":`...)
		b = strconv.AppendInt(b, p.CommitTS, 10)
	}
	if p.Message != 0 {
		b = append(b, `,"msg_lsn":"`...)
		b = append(appendLSN(b, p.Message), '"')
	}
	w.buf = append(b, '}')
	return capture.Position(w.buf)
}

// appendLSN appends the server's form, X/X.
func appendLSN(b []byte, lsn LSN) []byte {
	start := len(b)
	b = strconv.AppendUint(b, uint64(lsn>>32), 16)
	b = append(b, '/')
	b = strconv.AppendUint(b, uint64(uint32(lsn)), 16)
	for i := start; i < len(b); i++ {
		if b[i] >= 'a' {
			b[i] -= 'a' - 'A'
		}
	}
	return b
}

// inTxID is the id of [capture.InTx]: the commit's position in the log and the xid.
func inTxID(final LSN, xid uint32) string {
	b := appendLSN(make([]byte, 0, 32), final)
	b = append(b, ':')
	return string(strconv.AppendUint(b, uint64(xid), 10))
}
