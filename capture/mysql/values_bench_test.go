package mysql

import (
	"encoding/binary"
	"encoding/json"
	"testing"

	"github.com/go-mysql-org/go-mysql/replication"

	"github.com/headwaterdb/headwater/capture"
)

// benchTable and benchRow are a row of ten columns and about 180 bytes.
func benchTable(b *testing.B) *plan {
	b.Helper()
	names := []string{"id", "customer", "status", "amount", "created", "updated", "name", "address", "note", "flags"}
	types := []byte{typeLongLong, typeLong, typeTiny, typeNewDecimal, typeDatetime2, typeTimestamp2, typeVarchar, typeVarchar, typeBlob, typeLong}
	meta := []byte{12, 2, 6, 0, 0x90, 1, 0xfc, 3, 2}
	body := []byte{1, 0, 0, 0, 0, 0, 1, 0, 4, 's', 'h', 'o', 'p', 0, 6, 'o', 'r', 'd', 'e', 'r', 's', 0, byte(len(types))}
	body = append(append(body, types...), byte(len(meta)))
	body = append(append(body, meta...), 0xfe, 3)
	var list []byte
	for _, n := range names {
		list = append(append(list, byte(len(n))), n...)
	}
	body = append(append(body, optColumnName, byte(len(list))), list...)
	body = append(body, optDefaultCharset, 3, 0xfc, 255, 0) // utf8mb4
	m, err := parseTableMap(body, false)
	if err != nil {
		b.Fatal(err)
	}
	p, err := newPlan(nil, m, nil)
	if err != nil {
		b.Fatal(err)
	}
	return p
}

func benchRow(id uint64) []byte {
	le := binary.LittleEndian
	row := []byte{0, 0}
	row = le.AppendUint64(row, id)
	row = le.AppendUint32(row, 4711)
	row = append(row, 3)
	row = append(row, 0x80, 0, 0, 0x04, 0xd2, 56) // 1234.56
	row = append(row, datetime(2024, 7, 1, 12, 34, 56)...)
	row = append(row, 0, 0x30, 0x39)
	row = binary.BigEndian.AppendUint32(row, 1_720_000_000)
	row = le.AppendUint16(row, 11)
	row = append(row, "Jane Public"...)
	row = le.AppendUint16(row, 40)
	row = append(row, "12 Some Street, 34567 Sometown, Anywhere"...)
	row = le.AppendUint16(row, 80)
	row = append(row, "Please leave it with the neighbours if nobody is at home, thank you very much. -"...)
	return le.AppendUint32(row, 0x55)
}

func benchEvent(b *testing.B, rows int) (body []byte, size int) {
	b.Helper()
	body = []byte{1, 0, 0, 0, 0, 0, 1, 0, 2, 0, 10, 0xff, 3}
	for i := range rows {
		row := benchRow(uint64(i))
		size = len(row)
		body = append(body, row...)
	}
	return body, size
}

// BenchmarkDecode_Row decodes events of 40 rows; a step is one row.
func BenchmarkDecode_Row(b *testing.B) {
	p := benchTable(b)
	const rows = 40
	body, size := benchEvent(b, rows)
	b.SetBytes(int64(size))
	b.ReportAllocs()
	batch := capture.NewBatch()
	var r rowReader
	decoded := 0
	for decoded < b.N {
		e, err := parseRows(replication.WRITE_ROWS_EVENTv2, body)
		if err != nil {
			b.Fatal(err)
		}
		r.reset(p, batch, &e)
		for r.next() {
			decoded++
		}
		if r.err != nil {
			b.Fatal(r.err)
		}
		if batch.Size() > 1<<20 {
			batch.Release()
			batch = capture.NewBatch()
		}
	}
}

// BenchmarkText_Row decodes the same row as a query returns it.
func BenchmarkText_Row(b *testing.B) {
	r := textReader{p: benchTable(b)}
	var packet []byte
	for _, s := range []string{
		"1", "4711", "3", "1234.56", "2024-07-01 12:34:56.012345", "2024-07-03 09:46:40", "Jane Public",
		"12 Some Street, 34567 Sometown, Anywhere", "Please leave it with the neighbours if nobody is at home, thank you very much. -", "85",
	} {
		packet = append(append(packet, byte(len(s))), s...)
	}
	b.SetBytes(int64(len(packet)))
	b.ReportAllocs()
	batch := capture.NewBatch()
	for b.Loop() {
		if _, _, err := r.row(batch, packet); err != nil {
			b.Fatal(err)
		}
		if batch.Size() > 1<<20 {
			batch.Release()
			batch = capture.NewBatch()
		}
	}
}

// BenchmarkJSON renders a document of ten members.
func BenchmarkJSON(b *testing.B) {
	doc := []byte{jsonSmallObject, 10, 0, 0, 0}
	const entry = 4 + 3
	at := 4 + 10*entry
	for i := range 10 {
		doc = binary.LittleEndian.AppendUint16(doc, uint16(at+6*i))
		doc = append(doc, 6, 0)
	}
	for i := range 10 {
		if i%2 == 0 {
			doc = append(doc, jsonInt16, byte(i), 1)
			continue
		}
		doc = append(doc, jsonString)
		doc = binary.LittleEndian.AppendUint16(doc, uint16(at+60+20*(i/2)))
	}
	for i := range 10 {
		doc = append(append(doc, "field"...), byte('0'+i))
	}
	for range 5 {
		doc = append(append(doc, 19), "a text of 19 bytes."...)
	}
	binary.LittleEndian.PutUint16(doc[3:], uint16(len(doc)-1))
	if text, err := appendJSON(nil, doc); err != nil || !json.Valid(text) {
		b.Fatalf("%s, %v", text, err)
	}
	var out []byte
	b.SetBytes(int64(len(doc)))
	b.ReportAllocs()
	for b.Loop() {
		var err error
		if out, err = appendJSON(out[:0], doc); err != nil {
			b.Fatal(err)
		}
	}
}
