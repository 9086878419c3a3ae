package avro

import (
	"github.com/headwaterdb/headwater/capture"
	"github.com/headwaterdb/headwater/publish"
)

// Names of record headers. Those with underscores are Debezium's.
const (
	headerOldKey          = "__debezium.oldkey"
	headerNewKey          = "__debezium.newkey"
	headerUnavailable     = "headwater.unavailable"
	headerUnrepresentable = "headwater.unrepresentable"
	headerArrayDims       = "headwater.array.dims"
)

// contextHeaders names the pipeline. All records of a table share the slice.
func (e *Encoder) contextHeaders(connector string) []publish.Header {
	if !*e.cfg.Format.ContextHeaders {
		return nil
	}
	const prefix = "__debezium.context."
	h := []publish.Header{
		{Key: prefix + "connectorLogicalName", Value: []byte(e.cfg.Naming.Prefix)},
		{Key: prefix + "taskId", Value: []byte("0")},
		{Key: prefix + "connectorName", Value: []byte(connector)},
	}
	if e.cfg.RunID != "" {
		h = append(h, publish.Header{Key: prefix + "runId", Value: []byte(e.cfg.RunID)})
	}
	return h
}

// keyHeader is what the parts of a key change carry before all other headers: the
// other key, as Connect prints a struct.
func (e *Encoder) keyHeader(name string, p *plan, row, fallback capture.Row) publish.Header {
	return publish.Header{Key: name, Value: appendKeyText(nil, p.key, row, fallback)}
}

// withMarks adds the headers of what was marked in the record at hand. Records
// without marks share headers.
func (e *Encoder) withMarks(headers []publish.Header) []publish.Header {
	if !e.marks.any() {
		return headers
	}
	all := make([]publish.Header, len(headers), len(headers)+3)
	copy(all, headers)
	for _, m := range []struct {
		name  string
		value []byte
	}{
		{headerUnavailable, e.marks.unavailable},
		{headerUnrepresentable, e.marks.unrepresentable},
		{headerArrayDims, e.marks.dims},
	} {
		if len(m.value) > 0 {
			all = append(all, publish.Header{Key: m.name, Value: append([]byte(nil), m.value...)})
		}
	}
	return all
}
