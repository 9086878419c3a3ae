package avro

import (
	"fmt"

	"github.com/headwaterdb/headwater/capture"
)

// A sourceBlock writes the source block of a table's records.
type sourceBlock struct {
	head  []byte // version, connector, name
	marks [capture.SnapshotLast + 1][]byte
	db    []byte
	own   []sourceField
	tail  []byte // constants after the last field of own
}

// A sourceField is a field whose value comes with the event.
type sourceField struct {
	before   []byte // constants that stand before it
	kind     capture.TypeKind
	optional bool
	name     string
}

var snapshotMarks = [...]string{
	capture.NotSnapshot: "false", capture.SnapshotRow: "true", capture.SnapshotFirst: "first",
	capture.SnapshotFirstInTable: "first_in_data_collection", capture.SnapshotLastInTable: "last_in_data_collection",
	capture.SnapshotLast: "last",
}

func newSourceBlock(version, prefix string, t *capture.Table) *sourceBlock {
	o := t.Origin
	s := &sourceBlock{
		head: appendBytes(appendBytes(appendBytes(nil, version), o.Connector), prefix),
		db:   appendBytes(nil, o.Database),
	}
	for i, m := range snapshotMarks {
		// The field has a default, so the value is the union's first branch.
		s.marks[i] = appendBytes([]byte{first}, m)
	}
	var constants []byte
	for _, f := range o.Fields {
		switch f.From {
		case capture.FromSchema, capture.FromTable:
			name := t.ID.Schema
			if f.From == capture.FromTable {
				name = t.ID.Name
			}
			if f.Optional {
				constants = append(constants, second)
			}
			constants = appendBytes(constants, name)
		default:
			s.own = append(s.own, sourceField{before: constants, kind: f.Type, optional: f.Optional, name: f.Name})
			constants = nil
		}
	}
	s.tail = constants
	return s
}

func (s *sourceBlock) append(b []byte, ev *capture.Event) ([]byte, error) {
	b = append(b, s.head...)
	b = appendLong(b, floorMillis(ev.Time))
	b = append(b, s.marks[ev.Snapshot]...)
	b = append(b, s.db...)
	if ev.Sequence.IsNull() {
		b = append(b, first)
	} else {
		b = appendBytes(append(b, second), ev.Sequence.Bytes())
	}
	b = appendLong(append(b, second), ev.Time)
	b = appendLong(append(b, second), ev.Time*1000)
	if len(ev.Origin) != len(s.own) {
		return b, fmt.Errorf("the reader gave %d source fields of %d", len(ev.Origin), len(s.own))
	}
	for i := range s.own {
		f, v := &s.own[i], &ev.Origin[i]
		b = append(b, f.before...)
		if f.optional {
			if v.IsNull() {
				b = append(b, first)
				continue
			}
			b = append(b, second)
		}
		switch {
		case f.kind == capture.TypeString && v.Kind() == capture.String:
			b = appendBytes(b, v.Bytes())
		case f.kind != capture.TypeString && v.Kind() == capture.Int:
			b = appendLong(b, v.Int())
		default:
			return b, fmt.Errorf("the reader gave %s for the source field %s", v.Kind(), f.name)
		}
	}
	return append(b, s.tail...), nil
}

// floorMillis turns microseconds into milliseconds, also before 1970.
func floorMillis(us int64) int64 {
	ms := us / 1000
	if us%1000 < 0 {
		ms--
	}
	return ms
}
