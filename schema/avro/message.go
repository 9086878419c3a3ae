package avro

import (
	"context"
	"fmt"

	"github.com/headwaterdb/headwater/capture"
	"github.com/headwaterdb/headwater/publish"
	"github.com/headwaterdb/headwater/schema"
)

// A messagePlan is how messages that applications put into the log become records.
type messagePlan struct {
	topic              string
	keyHead, valueHead []byte
	prefix, content    column
	source             *sourceBlock
	part               partitioner
}

func (e *Encoder) messagePlan(ctx context.Context, t *capture.Table) (*messagePlan, error) {
	if p := e.messages[t]; p != nil {
		return p, nil
	}
	key, value := e.builder.Message(t.Origin)
	p := &messagePlan{topic: e.cfg.Naming.MessageTopic()}
	keyID, err := e.register(ctx, t, schema.KeySubject(p.topic), key, key)
	if err != nil {
		return nil, err
	}
	valueID, err := e.register(ctx, t, schema.ValueSubject(p.topic), value, value)
	if err != nil {
		return nil, err
	}
	p.keyHead, p.valueHead = appendHeader(nil, keyID), appendHeader(nil, valueID)
	message := value.Fields[len(value.Fields)-1].Type
	field := func(i int) column {
		return column{typ: message.Fields[i].Type, index: i, name: message.Fields[i].Name, optional: true, some: second, none: first, null: []byte{first}}
	}
	p.prefix, p.content = field(0), field(1)
	pinned, err := e.pin(ctx, p.topic, keyID)
	if err != nil {
		return nil, err
	}
	p.part = newPartitioner(pinned, p.topic, keyID, e.cfg.PartitionBy)
	p.source = newSourceBlock(e.cfg.Version, e.cfg.Naming.Prefix, t)
	e.messages[t] = p
	return p, nil
}

// message appends the record of a message. It has no images, no context headers, and
// of the times ts_ms alone.
func (e *Encoder) message(ctx context.Context, ev *capture.Event, out *publish.Encoded) error {
	p, err := e.messagePlan(ctx, ev.Table)
	if err != nil {
		return err
	}
	fail := func(err error) error {
		return fmt.Errorf("%w: message for topic %s: %w", capture.ErrUnreadable, p.topic, err)
	}
	if len(ev.After) != 2 {
		return fail(errRowWidth)
	}
	e.marks.reset()
	start := len(out.Buf)
	buf, err := e.appendColumn(append(out.Buf, p.keyHead...), &p.prefix, &ev.After[0])
	if err != nil {
		return fail(err)
	}
	keyEnd := len(buf)
	buf = append(append(buf, p.valueHead...), 1<<1, 'm')
	buf = append(buf, e.clock[:e.clockMillis]...)
	if buf, err = p.source.append(buf, ev); err != nil {
		return fail(err)
	}
	buf = append(buf, first) // no transaction block
	for i, c := range []*column{&p.prefix, &p.content} {
		if buf, err = e.appendColumn(buf, c, &ev.After[i]); err != nil {
			return fail(err)
		}
	}
	out.Buf = buf
	r := publish.Record{Topic: p.topic, Key: buf[start:keyEnd:keyEnd], Value: buf[keyEnd:len(buf):len(buf)], Headers: e.withPosition(nil, ev)}
	r.Partition = p.part.partition(r.Key)
	if size := len(r.Key) + len(r.Value) + recordOverhead; e.cfg.MaxRecordBytes > 0 && size > e.cfg.MaxRecordBytes {
		return tooLarge(&r, size, e.cfg.MaxRecordBytes, nil, ev)
	}
	out.Records = append(out.Records, r)
	return nil
}
