package mysql

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/headwaterdb/headwater/capture"
)

// A log of rows still holds statements: those that begin and end transactions, those
// that change definitions, and, where somebody set binlog_format for his session, those
// that change rows. We need to know which of them it is, the table that a TRUNCATE
// empties, and whether rows that we should have carry no row events. That takes the
// words of a statement and no grammar: a parser of all that two servers understand would
// be larger than this package and fail on what is newer than itself.

// A statementKind says what a statement in the log does.
type statementKind uint8

const (
	// stUnknown is a statement whose first word we do not know.
	stUnknown statementKind = iota
	stNothing
	stBegin
	stCommit
	stRollback
	stSavepoint
	stRollbackTo
	stXAStart
	stXAEnd
	stXACommit
	stXARollback
	stTruncate
	// stDefinition changes definitions or settings, and no rows that a log could show.
	stDefinition
	// stPartition takes rows away, or brings some, by whole partitions or files.
	stPartition
	// stRows changes rows without row events.
	stRows
)

// A statement is what we need to know of one.
type statement struct {
	kind statementKind
	// table is what stTruncate empties and stPartition is about.
	table capture.TableID
	// xid is the XA transaction, as the server writes it.
	xid string
	// opens says that rows follow: CREATE TABLE … SELECT.
	opens bool
	// names are the tables that stRows may be about, and more.
	names []capture.TableID
}

// parseStatement reads a statement that ran in the database schema.
func parseStatement(schema, sql []byte) statement {
	// The usual ones, without taking them apart.
	switch string(sql) {
	case "BEGIN":
		return statement{kind: stBegin}
	case "COMMIT":
		return statement{kind: stCommit}
	}
	w := words{rest: sql}
	first := w.next()
	if first.text == nil {
		return statement{kind: stNothing}
	}
	switch first.upper() {
	case "BEGIN", "START": // START TRANSACTION
		return statement{kind: stBegin}
	case "COMMIT":
		return statement{kind: stCommit}
	case "SAVEPOINT", "RELEASE":
		return statement{kind: stSavepoint}
	case "ROLLBACK":
		for t := w.next(); t.text != nil; t = w.next() {
			if t.upper() == "TO" {
				return statement{kind: stRollbackTo}
			}
		}
		return statement{kind: stRollback}
	case "XA":
		return parseXA(&w)
	case "TRUNCATE":
		t := w.next()
		if t.upper() == "TABLE" {
			t = w.next()
		}
		return statement{kind: stTruncate, table: w.name(schema, t)}
	case "ALTER":
		return parseAlter(schema, &w)
	case "CREATE":
		return statement{kind: stDefinition, opens: w.endsWith("START", "TRANSACTION")}
	case "INSERT", "REPLACE", "UPDATE", "DELETE", "LOAD", "WITH", "MERGE", "CALL", "DO", "TABLE", "VALUES", "SELECT", "EXECUTE", "HANDLER":
		return statement{kind: stRows, names: w.names(schema)}
	case "DROP", "RENAME", "GRANT", "REVOKE", "SET", "ANALYZE", "OPTIMIZE", "REPAIR", "CHECK", "FLUSH", "INSTALL", "UNINSTALL",
		"COMMENT", "RESET", "PURGE", "CHANGE", "CACHE", "LOCK", "UNLOCK", "IMPORT", "RESTART", "CLONE", "USE", "BINLOG", "SIGNAL", "BACKUP", "REFRESH":
		return statement{kind: stDefinition}
	}
	return statement{}
}

func parseXA(w *words) statement {
	var s statement
	switch w.next().upper() {
	case "START", "BEGIN":
		s.kind = stXAStart
	case "END", "PREPARE":
		s.kind = stXAEnd
	case "COMMIT":
		s.kind = stXACommit
	case "ROLLBACK":
		s.kind = stXARollback
	default:
		return s
	}
	s.xid = string(bytes.TrimSpace(bytes.TrimSuffix(bytes.TrimSpace(w.rest), []byte("ONE PHASE"))))
	return s
}

// parseAlter tells the statements that move rows by whole partitions or files.
func parseAlter(schema []byte, w *words) statement {
	s := statement{kind: stDefinition}
	var t token
	for t = w.next(); t.text != nil && t.upper() != "TABLE"; t = w.next() {
		switch t.upper() {
		case "ONLINE", "OFFLINE", "IGNORE":
		default:
			return s
		}
	}
	if t = w.next(); t.upper() == "IF" {
		w.next()
		t = w.next()
	}
	s.table = w.name(schema, t)
	before := ""
	for t = w.next(); t.text != nil; t = w.next() {
		switch t.upper() {
		case "PARTITION", "TABLESPACE":
			switch before {
			case "DROP", "TRUNCATE", "EXCHANGE", "IMPORT", "DISCARD":
				s.kind = stPartition
			}
		}
		before = t.upper()
	}
	return s
}

// parsePrepare reads the body of an XA_PREPARE_LOG_EVENT: one_phase(1), format(4),
// lengths(4, 4) of the two parts of the id, the parts. It prints the id as statements do.
func parsePrepare(body []byte) (xid string, onePhase bool, err error) {
	le := binary.LittleEndian
	if len(body) < 13 {
		return "", false, fmt.Errorf("%w: the end of a prepared XA transaction cannot be read", capture.ErrUnreadable)
	}
	global, branch := uint64(le.Uint32(body[5:])), uint64(le.Uint32(body[9:]))
	data := body[13:]
	if uint64(len(data)) < global+branch {
		return "", false, fmt.Errorf("%w: the end of a prepared XA transaction cannot be read", capture.ErrUnreadable)
	}
	return fmt.Sprintf("X'%x',X'%x',%d", data[:global], data[global:global+branch], le.Uint32(body[1:])), body[0] != 0, nil
}

// A token is a word, a quoted name or text, or a sign.
type token struct {
	text   []byte
	quoted bool
}

// upper returns a word in upper case, and "" for what is no word.
func (t token) upper() string {
	if t.quoted {
		return ""
	}
	return strings.ToUpper(string(t.text))
}

// words takes a statement apart.
type words struct{ rest []byte }

func isWord(c byte) bool {
	return c >= 0x80 || c == '_' || c == '$' || c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z'
}

// next returns the next token; its text is nil at the end.
func (w *words) next() token {
	w.skip()
	s := w.rest
	if len(s) == 0 {
		return token{}
	}
	switch c := s[0]; {
	case c == '`', c == '"', c == '\'':
		return w.quoted(c)
	case isWord(c):
		n := 1
		for n < len(s) && isWord(s[n]) {
			n++
		}
		w.rest = s[n:]
		return token{text: s[:n]}
	}
	w.rest = s[1:]
	return token{text: s[:1]}
}

// skip passes over blanks and comments. What stands in /*! … */ and /*M! … */ is run,
// and no comment.
func (w *words) skip() {
	for {
		s := bytes.TrimLeft(w.rest, " \t\r\n\f\v\x00")
		w.rest = s
		switch {
		case bytes.HasPrefix(s, []byte("#")), bytes.HasPrefix(s, []byte("-- ")), bytes.HasPrefix(s, []byte("--\n")):
			_, w.rest, _ = bytes.Cut(s, []byte{'\n'})
		case bytes.HasPrefix(s, []byte("/*!")), bytes.HasPrefix(s, []byte("/*M!")):
			_, s, _ = bytes.Cut(s, []byte{'!'})
			w.rest = bytes.TrimLeft(s, "0123456789")
		case bytes.HasPrefix(s, []byte("*/")):
			w.rest = s[2:]
		case bytes.HasPrefix(s, []byte("/*")):
			_, w.rest, _ = bytes.Cut(s[2:], []byte("*/"))
		default:
			return
		}
	}
}

// quoted takes a quoted name or text. Two quotes stand for one, and in texts a backslash
// guards the next character.
func (w *words) quoted(quote byte) token {
	s := w.rest[1:]
	var out []byte
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\\' && quote != '`' && i+1 < len(s):
			i++
			out = append(out, s[i])
		case s[i] == quote && i+1 < len(s) && s[i+1] == quote:
			i++
			out = append(out, quote)
		case s[i] == quote:
			w.rest = s[i+1:]
			return token{text: append(out, ""...), quoted: true}
		default:
			out = append(out, s[i])
		}
	}
	w.rest = nil
	return token{text: out, quoted: true}
}

// name reads on behind the first part of a table's name.
func (w *words) name(schema []byte, first token) capture.TableID {
	w.skip()
	if len(w.rest) > 0 && w.rest[0] == '.' {
		w.next()
		return capture.TableID{Schema: string(first.text), Name: string(w.next().text)}
	}
	return capture.TableID{Schema: string(schema), Name: string(first.text)}
}

// names returns whatever could be the name of a table.
func (w *words) names(schema []byte) []capture.TableID {
	var out []capture.TableID
	for t := w.next(); t.text != nil; t = w.next() {
		if t.quoted || isWord(t.text[0]) {
			out = append(out, w.name(schema, t))
		}
	}
	return out
}

// endsWith says whether the last words are these.
func (w *words) endsWith(want ...string) bool {
	last := make([]string, len(want))
	for t := w.next(); t.text != nil; t = w.next() {
		last = append(last[1:], t.upper())
	}
	for i := range want {
		if last[i] != want[i] {
			return false
		}
	}
	return true
}
