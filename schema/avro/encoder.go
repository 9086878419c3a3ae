package avro

import (
	"context"
	"unsafe"

	"github.com/headwaterdb/headwater/capture"
	"github.com/headwaterdb/headwater/publish"
	"github.com/headwaterdb/headwater/schema"
)

var _ publish.Encoder = (*Encoder)(nil)

// An Encoder turns batches into records. It is used from one goroutine at a time.
type Encoder struct {
	cfg      Config
	builder  *schema.Builder
	registry Registry
	topics   Topics

	skip                      [capture.Message + 1]bool
	tombstones                bool
	numericZero, infinityNull bool

	// What was learned since Resume. The plan of a definition that is no longer in
	// force stays: definitions change seldom, and a replay needs it again.
	plans    map[*capture.Table]*plan
	last     *plan
	messages map[*capture.Table]*messagePlan
	pins     map[string]*pin
	owners   map[string]capture.TableID // of topics
	names    map[string]capture.TableID // owners of full schema names
	noticed  map[noticeKey]bool

	// Room for the headers that name positions, see withPosition.
	posHeaders []publish.Header
	posText    []byte

	// What belongs to the batch at hand.
	clock       []byte // the envelope's ts_ms, ts_us, ts_ns
	clockMillis int    // where ts_ms ends in clock
	entries     []capture.Entry
	table       capture.TableID // of the event at hand
	marks       marks           // of the record at hand
	tail        readTail        // of the row of a table that was written last
}

// A readTail is what appendTail wrote for a row that was read from its table. The rows of
// a chunk share it.
type readTail struct {
	source   *sourceBlock
	snapshot capture.SnapshotMark
	time     int64
	origin   *capture.Value // the first of them
	sequence capture.Value
	bytes    []byte
}

func (t *readTail) fits(s *sourceBlock, ev *capture.Event) bool {
	return t.source == s && t.snapshot == ev.Snapshot && t.time == ev.Time &&
		t.origin == unsafe.SliceData(ev.Origin) && t.sequence == ev.Sequence
}

func (t *readTail) keep(s *sourceBlock, ev *capture.Event, b []byte) {
	*t = readTail{s, ev.Snapshot, ev.Time, unsafe.SliceData(ev.Origin), ev.Sequence, append(t.bytes[:0], b...)}
}

type noticeKey struct {
	kind   schema.NoticeKind
	table  capture.TableID
	column string
}

// New returns an Encoder. It sets cfg's defaults and validates it.
func New(cfg Config, registry Registry, topics Topics) (*Encoder, error) {
	cfg.SetDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	builder, err := schema.NewBuilder(cfg.Format, cfg.Naming, cfg.Columns)
	if err != nil {
		return nil, err
	}
	skipped, err := cfg.Format.SkippedOps()
	if err != nil {
		return nil, err
	}
	e := &Encoder{
		cfg: cfg, builder: builder, registry: registry, topics: topics,
		tombstones:   *cfg.Format.Tombstones,
		numericZero:  cfg.Format.NumericSpecial == "zero",
		infinityNull: cfg.Format.TemporalInfinity == "null",
		noticed:      make(map[noticeKey]bool),
	}
	for op, code := range map[capture.Op]byte{capture.Insert: 'c', capture.Update: 'u', capture.Delete: 'd', capture.Truncate: 't'} {
		e.skip[op] = skipped[code]
	}
	e.forget()
	return e, nil
}

func (e *Encoder) forget() {
	e.plans = make(map[*capture.Table]*plan)
	e.last = nil
	e.messages = make(map[*capture.Table]*messagePlan)
	e.pins = make(map[string]*pin)
	e.owners = make(map[string]capture.TableID)
	e.names = make(map[string]capture.TableID)
	e.entries = nil
}

// Resume implements [publish.Encoder]. It takes up how topics are partitioned.
func (e *Encoder) Resume(_ context.Context, entries map[string][]byte) error {
	pins, err := readPins(entries)
	if err != nil {
		return err
	}
	e.forget()
	e.pins = pins
	return nil
}

// Check reports why a table definition would be refused, without registering it.
func (e *Encoder) Check(t *capture.Table) error {
	_, err := e.builder.Table(t)
	return err
}

// Encode implements [publish.Encoder]. An error that matches [capture.ErrUnreadable]
// names table, column, key and remedy; one that matches [schema.ErrIncompatible] the
// table, the fields and the remedy.
func (e *Encoder) Encode(ctx context.Context, b *capture.Batch, out *publish.Encoded) error {
	now := e.cfg.Now()
	e.clock = appendLong(append(e.clock[:0], second), now.UnixMilli())
	e.clockMillis = len(e.clock)
	e.clock = appendLong(append(e.clock, second), now.UnixMicro())
	e.clock = appendLong(append(e.clock, second), now.UnixNano())
	e.tail.source = nil

	for i := range b.Events {
		ev := &b.Events[i]
		if ev.Kind != capture.Change {
			continue
		}
		e.table = ev.Table.ID
		out.Reserve(recordRoom)
		if err := e.change(ctx, ev, out); err != nil {
			return err
		}
	}
	out.Entries = append(out.Entries, e.entries...)
	e.entries = e.entries[:0]
	return nil
}

// recordRoom is reserved for the records of each change. Larger ones are copied once as
// they grow.
const recordRoom = 4 << 10

// change appends the records of one change.
func (e *Encoder) change(ctx context.Context, ev *capture.Event, out *publish.Encoded) error {
	if e.skip[ev.Op] {
		if ev.Op == capture.Truncate {
			e.notice(schema.NoticeTruncate, "", "the table was truncated; its topic still holds the rows (skipped.operations)")
		}
		return nil
	}
	if ev.Op == capture.Message {
		return e.message(ctx, ev, out)
	}
	p, err := e.plan(ctx, ev.Table)
	if err != nil {
		return err
	}
	if p.refused != nil {
		e.notice(schema.NoticeRefused, "", p.refused.Error())
		return nil
	}
	if err := wellFormed(ev); err != nil {
		return malformed(p, ev, err)
	}
	switch ev.Op {
	case capture.Insert:
		return e.write(p, ev, out, 'c', nil, ev.After)
	case capture.Read:
		return e.write(p, ev, out, 'r', nil, ev.After)
	case capture.Update:
		return e.update(p, ev, out)
	case capture.Delete:
		return e.write(p, ev, out, 'd', ev.Before, nil)
	}
	return e.truncate(p, ev, out)
}

// wellFormed checks that the images are there that the operation needs.
func wellFormed(ev *capture.Event) error {
	width := len(ev.Table.Columns)
	for _, row := range []capture.Row{ev.Before, ev.After} {
		if row != nil && len(row) != width {
			return errRowWidth
		}
	}
	switch ev.Op {
	case capture.Insert, capture.Read, capture.Update:
		if ev.After == nil {
			return errNoImage
		}
	case capture.Delete:
		if ev.Before == nil {
			return errNoImage
		}
	}
	return nil
}

// update writes one record, or the three of a key change: a delete and its tombstone
// under the old key, an insert under the new one.
func (e *Encoder) update(p *plan, ev *capture.Event, out *publish.Encoded) error {
	if ev.Before == nil || !p.keyed() {
		return e.write(p, ev, out, 'u', ev.Before, ev.After)
	}
	e.marks.reset()
	start := len(out.Buf)
	buf, col, err := e.appendKey(out.Buf, p, ev.Before, ev.After)
	if err != nil {
		return unreadable(p, col, ev, err)
	}
	middle := len(buf)
	if buf, col, err = e.appendKey(buf, p, ev.After, ev.Before); err != nil {
		return unreadable(p, col, ev, err)
	}
	same := string(buf[start:middle]) == string(buf[middle:])
	out.Buf = buf[:start]
	if same {
		return e.write(p, ev, out, 'u', ev.Before, ev.After)
	}
	newKey := e.keyHeader(headerNewKey, p, ev.After, ev.Before)
	if err := e.writeWith(p, ev, out, 'd', ev.Before, nil, &newKey); err != nil {
		return err
	}
	oldKey := e.keyHeader(headerOldKey, p, ev.Before, ev.After)
	return e.writeWith(p, ev, out, 'c', nil, ev.After, &oldKey)
}

// write appends the record of a row, and the tombstone that follows a delete.
func (e *Encoder) write(p *plan, ev *capture.Event, out *publish.Encoded, op byte, before, after capture.Row) error {
	return e.writeWith(p, ev, out, op, before, after, nil)
}

func (e *Encoder) writeWith(p *plan, ev *capture.Event, out *publish.Encoded, op byte, before, after capture.Row, extra *publish.Header) error {
	e.marks.reset()
	buf := out.Buf
	start := len(buf)
	if p.keyed() {
		var col *column
		var err error
		if op == 'd' {
			buf, col, err = e.appendKey(buf, p, ev.Before, ev.After)
		} else {
			buf, col, err = e.appendKey(buf, p, ev.After, ev.Before)
		}
		if err != nil {
			return unreadable(p, col, ev, err)
		}
	}
	keyEnd := len(buf)
	buf = append(buf, p.valueHead...)
	buf, col, err := e.appendImages(buf, p, op, before, after)
	if err != nil {
		return unreadable(p, col, ev, err)
	}
	if buf, err = e.appendTail(buf, p.source, ev, op); err != nil {
		return malformed(p, ev, err)
	}
	out.Buf = buf

	r := publish.Record{
		Topic: p.topic, Partition: p.part.keyless, Value: buf[keyEnd:len(buf):len(buf)],
		Headers: p.headers,
	}
	if p.keyed() {
		r.Key = buf[start:keyEnd:keyEnd]
		r.Partition = p.part.partition(r.Key)
	}
	if extra != nil {
		r.Headers = append([]publish.Header{*extra}, p.headers...)
	}
	r.Headers = e.withMarks(e.withPosition(r.Headers, ev))
	if e.cfg.MaxRecordBytes > 0 {
		if size := recordSize(&r, p); size > e.cfg.MaxRecordBytes {
			return tooLarge(&r, size, e.cfg.MaxRecordBytes, p, ev)
		}
	}
	out.Records = append(out.Records, r)
	if op == 'd' && e.tombstones {
		r.Value = nil
		out.Records = append(out.Records, r)
	}
	return nil
}

// recordOverhead covers what the batch format adds to key, value and headers.
const recordOverhead = 64

func recordSize(r *publish.Record, p *plan) int {
	n := len(r.Key) + len(r.Value) + recordOverhead
	if len(r.Headers) == len(p.headers) {
		return n + p.headerBytes + 4*len(p.headers)
	}
	for _, h := range r.Headers {
		n += len(h.Key) + len(h.Value) + 4
	}
	return n
}

// appendKey appends a serialized key. What the row does not carry is taken from the
// other image.
func (e *Encoder) appendKey(b []byte, p *plan, row, other capture.Row) ([]byte, *column, error) {
	b = append(b, p.keyHead...)
	for i := range p.key {
		c := &p.key[i]
		v := keyValue(c, row, other)
		if v.Kind() == capture.Absent || v.Kind() == capture.Unchanged {
			return b, c, errNoKey
		}
		var err error
		if b, err = e.appendColumn(b, c, v); err != nil {
			return b, c, err
		}
	}
	return b, nil, nil
}

// keyValue returns a key column's value out of row, or out of the other image if the
// log did not repeat it.
func keyValue(c *column, row, other capture.Row) *capture.Value {
	v := &row[c.index]
	if k := v.Kind(); (k == capture.Absent || k == capture.Unchanged) && other != nil {
		return &other[c.index]
	}
	return v
}

// appendImages appends before and after.
func (e *Encoder) appendImages(b []byte, p *plan, op byte, before, after capture.Row) (_ []byte, col *column, err error) {
	if before == nil || op == 'u' && isPartial(p, before) {
		b = append(b, first)
	} else if b, col, err = e.appendRow(append(b, second), p.row, before); err != nil {
		return b, col, err
	}
	if after == nil {
		return append(b, first), nil, nil
	}
	return e.appendRow(append(b, second), p.row, after)
}

// isPartial reports whether an image holds a row's identity alone. An update shows a
// whole row as it was, or none.
//
// A reader also uses Absent for a value that the definition has no room for (a zero
// date that is NOT NULL), so it tells something only where NULL would have done.
func isPartial(p *plan, row capture.Row) bool {
	for i := range row { // columns that records leave out tell it, too
		if row[i].Kind() == capture.Absent && p.table.Columns[i].Nullable {
			return true
		}
	}
	for i := range p.row {
		if row[p.row[i].index].Kind() != capture.Absent && !p.isKey(p.row[i].index) {
			return false
		}
	}
	return len(p.row) > len(p.key)
}

func (p *plan) isKey(index int) bool {
	for i := range p.key {
		if p.key[i].index == index {
			return true
		}
	}
	return false
}

// appendTail appends what follows the images: source, transaction, op and times.
func (e *Encoder) appendTail(b []byte, s *sourceBlock, ev *capture.Event, op byte) ([]byte, error) {
	if op == 'r' && e.tail.fits(s, ev) {
		return append(b, e.tail.bytes...), nil
	}
	start := len(b)
	b, err := s.append(b, ev)
	if err != nil {
		return b, err
	}
	b = append(b, first)    // no transaction block
	b = append(b, 1<<1, op) // a text of one byte
	b = append(b, e.clock...)
	if op == 'r' {
		e.tail.keep(s, ev, b[start:])
	}
	return b, nil
}

// truncate appends an envelope without images and without a key.
func (e *Encoder) truncate(p *plan, ev *capture.Event, out *publish.Encoded) error {
	start := len(out.Buf)
	buf := append(append(out.Buf, p.valueHead...), first, first)
	buf, err := e.appendTail(buf, p.source, ev, 't')
	if err != nil {
		return malformed(p, ev, err)
	}
	out.Buf = buf
	out.Records = append(out.Records, publish.Record{
		Topic: p.topic, Partition: p.part.keyless, Value: buf[start:len(buf):len(buf)], Headers: e.withPosition(p.headers, ev),
	})
	return nil
}

// notice tells something about the table at hand.
func (e *Encoder) notice(kind schema.NoticeKind, column, text string) {
	k := noticeKey{kind, e.table, column}
	e.cfg.Notify(schema.Notice{Kind: kind, Table: e.table, Column: column, Text: text, First: !e.noticed[k]})
	e.noticed[k] = true
}
