package avro

import (
	"context"
	"errors"
	"fmt"

	"github.com/headwaterdb/headwater/capture"
	"github.com/headwaterdb/headwater/publish"
	"github.com/headwaterdb/headwater/schema"
)

// A plan is how the changes of one table definition become records.
type plan struct {
	table *capture.Table
	topic string
	// refused says why the table is left out. Nothing else is set then.
	refused error

	keyHead, valueHead []byte // framing with the schema id
	key                []column
	row                []column
	source             *sourceBlock
	headers            []publish.Header // context, shared by all records
	headerBytes        int
	part               partitioner
}

func (p *plan) keyed() bool { return len(p.key) > 0 }

// plan returns the plan of a table definition, and makes it on first sight.
func (e *Encoder) plan(ctx context.Context, t *capture.Table) (*plan, error) {
	if e.last != nil && e.last.table == t {
		return e.last, nil
	}
	p := e.plans[t]
	if p == nil {
		var err error
		if p, err = e.compile(ctx, t); err != nil {
			return nil, err
		}
		e.plans[t] = p
	}
	e.last = p
	return p, nil
}

func (e *Encoder) compile(ctx context.Context, t *capture.Table) (*plan, error) {
	rec, err := e.builder.Table(t)
	if errors.Is(err, schema.ErrTableRefused) {
		return &plan{table: t, refused: err}, nil
	}
	if err != nil {
		return nil, err
	}
	for _, n := range rec.Notices {
		e.notice(n.Kind, n.Column, n.Text)
	}
	if owner, ok := e.owners[rec.Topic]; ok && owner != t.ID {
		e.notice(schema.NoticeTopicShared, "", fmt.Sprintf("tables %s and %s both go to topic %s, because Kafka does not allow some characters of their names", owner, t.ID, rec.Topic))
	}
	e.owners[rec.Topic] = t.ID
	if owner, ok := e.names[rec.Envelope.Name]; ok && owner != t.ID {
		e.notice(schema.NoticeNameShared, "", fmt.Sprintf("the record schemas of tables %s and %s are both named %s, because Avro does not allow some characters of their names", owner, t.ID, rec.Envelope.Name))
	}
	e.names[rec.Envelope.Name] = t.ID

	p := &plan{table: t, topic: rec.Topic}
	keyID := 0
	if rec.Key != nil {
		if keyID, err = e.register(ctx, t, schema.KeySubject(rec.Topic), rec.Key, rec.Key); err != nil {
			return nil, err
		}
		p.keyHead = appendHeader(nil, keyID)
		if p.key, err = e.columns(t, rec.Key, true); err != nil {
			return nil, err
		}
	}
	valueID, err := e.register(ctx, t, schema.ValueSubject(rec.Topic), rec.Envelope, rec.Row)
	if err != nil {
		return nil, err
	}
	p.valueHead = appendHeader(nil, valueID)
	if p.row, err = e.columns(t, rec.Row, false); err != nil {
		return nil, err
	}
	pinned, err := e.pin(ctx, rec.Topic, keyID)
	if err != nil {
		return nil, err
	}
	p.part = newPartitioner(pinned, rec.Topic, keyID, e.cfg.PartitionBy)
	p.source = newSourceBlock(e.cfg.Version, e.cfg.Naming.Prefix, t)
	p.headers = e.contextHeaders(t.Origin.Connector)
	for _, h := range p.headers {
		p.headerBytes += len(h.Key) + len(h.Value)
	}
	return p, nil
}

// columns compiles the fields of a key or row.
func (e *Encoder) columns(t *capture.Table, rec *schema.Type, key bool) ([]column, error) {
	cols := make([]column, len(rec.Fields))
	for i, f := range rec.Fields {
		c := &cols[i]
		*c = column{typ: f.Type, index: f.Column, name: f.Name, optional: f.Optional}
		if f.Optional && f.Default == nil {
			c.some, c.none = second, first
		} else {
			c.some, c.none = first, second
		}
		if err := e.substitutes(c, &t.Columns[f.Column], key); err != nil {
			return nil, fmt.Errorf("table %s, field %s: %w", t.ID, f.Name, err)
		}
	}
	return cols, nil
}

// substitutes fills in what stands for values without payload.
func (e *Encoder) substitutes(c *column, tc *capture.Column, key bool) error {
	encode := func(v *capture.Value) ([]byte, error) {
		var b []byte
		if c.optional {
			b = append(b, c.some)
		}
		return e.appendValue(b, c.typ, v, c.name)
	}
	var err error
	if c.zero, err = encode(&c.typ.Zero); err != nil {
		return fmt.Errorf("zero of the type: %w", err)
	}
	byDefault := c.zero
	if c.typ.Default != nil {
		if byDefault, err = encode(c.typ.Default); err != nil {
			return fmt.Errorf("default: %w", err)
		}
	}
	switch {
	case !c.optional:
		c.absent = byDefault
	case e.cfg.Format.NullAsDefault && c.typ.Default != nil:
		c.null, c.absent = byDefault, byDefault
	default:
		c.null, c.absent = []byte{c.none}, []byte{c.none}
		if c.typ.Form == schema.FormGeometry && !tc.Nullable {
			c.absent = c.zero // nullable in the record schema only
		}
	}
	if key {
		return nil // a key never holds a placeholder
	}
	if v, ok := e.builder.Unavailable(c.typ); ok {
		if c.unavailable, err = encodeUnavailable(e, c, &v); err != nil {
			return fmt.Errorf("unavailable.value.placeholder: %w", err)
		}
	} else if c.optional {
		c.unavailable = []byte{c.none}
	}
	return nil
}

// encodeUnavailable writes the placeholder. Where binary values are encoded as text,
// the placeholder is not.
func encodeUnavailable(e *Encoder, c *column, v *capture.Value) ([]byte, error) {
	var b []byte
	if c.optional {
		b = append(b, c.some)
	}
	switch c.typ.Form {
	case schema.FormBase64, schema.FormBase64URL, schema.FormHex:
		return appendBytes(b, v.Bytes()), nil
	}
	return e.appendValue(b, c.typ, v, c.name)
}
