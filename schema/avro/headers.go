package avro

import (
	"cmp"
	"slices"
	"strconv"

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
	headerPosition        = "headwater.pos"
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

// withPosition adds the header that tells a repeated record from a new one, where the
// configuration asks for it and the change stands in a source transaction: the place of
// its commit, and the change's number within it. Records of one key change share it.
func (e *Encoder) withPosition(headers []publish.Header, ev *capture.Event) []publish.Header {
	if !*e.cfg.Format.Positions || ev.Tx == nil || ev.Ordinal == 0 {
		return headers
	}
	commit := cmp.Or(ev.Tx.Commit, ev.Tx.ID)
	// Headers outlive the batch, so room for many is taken at once, and never twice.
	if n := len(commit) + 21; cap(e.posText)-len(e.posText) < n {
		e.posText = make([]byte, 0, max(16<<10, n))
	}
	if n := len(headers) + 1; cap(e.posHeaders)-len(e.posHeaders) < n {
		e.posHeaders = make([]publish.Header, 0, max(512, n))
	}
	text, all := len(e.posText), len(e.posHeaders)
	e.posText = strconv.AppendUint(append(append(e.posText, commit...), '/'), ev.Ordinal, 10)
	e.posHeaders = append(append(e.posHeaders, headers...), publish.Header{Key: headerPosition, Value: slices.Clip(e.posText[text:])})
	return slices.Clip(e.posHeaders[all:])
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
