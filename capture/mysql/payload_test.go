package mysql

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/go-mysql-org/go-mysql/replication"
	"github.com/klauspost/compress/zstd"

	"github.com/headwaterdb/headwater/capture"
)

// makePayload makes the body of a TRANSACTION_PAYLOAD_EVENT.
func makePayload(t testing.TB, compression byte, inside []byte) []byte {
	t.Helper()
	data := inside
	if compression == compressionZSTD {
		w, err := zstd.NewWriter(nil)
		if err != nil {
			t.Fatal(err)
		}
		data = w.EncodeAll(inside, nil)
	}
	// The uncompressed size is left out: nobody should need it.
	body := []byte{payloadCompression, 1, compression}
	if compression == compressionNone {
		body = []byte{payloadCompression, 3, 0xfc, compression, 0}
	}
	return append(append(body, 0), data...)
}

func testEvent(typ replication.EventType, size int) []byte {
	return append(eventHeader(typ, size), bytes.Repeat([]byte{byte(typ)}, size)...)
}

func TestPayload_YieldsTheEventsInside(t *testing.T) {
	want := [][]byte{testEvent(19, 10), testEvent(30, 3<<20), testEvent(30, 0), testEvent(16, 8)}
	var r payloadReader
	defer r.Close()
	for range 2 { // a reader serves many payloads
		for _, compression := range []byte{compressionZSTD, compressionNone} {
			if err := r.reset(makePayload(t, compression, bytes.Join(want, nil))); err != nil {
				t.Fatal(err)
			}
			for i, w := range want {
				if got, err := r.next(); err != nil || !bytes.Equal(got, w) {
					t.Fatalf("event %d: %d bytes, %v; want %d", i, len(got), err, len(w))
				}
			}
			if _, err := r.next(); err != io.EOF {
				t.Fatalf("after the last event: %v", err)
			}
		}
	}
}

func TestPayload_WhatIsBrokenIsAnError(t *testing.T) {
	whole := bytes.Join([][]byte{testEvent(19, 10), testEvent(30, 100)}, nil)
	lying := testEvent(30, 10)
	binary.LittleEndian.PutUint32(lying[9:], 1<<30)
	short := testEvent(30, 0)
	binary.LittleEndian.PutUint32(short[9:], 18)
	damaged := makePayload(t, compressionZSTD, whole)
	damaged[len(damaged)/2] ^= 0xff
	for name, body := range map[string][]byte{
		"an event that is cut":         makePayload(t, compressionZSTD, whole[:len(whole)-1]),
		"a header that is cut":         makePayload(t, compressionZSTD, whole[:10]),
		"an event of a gigabyte":       makePayload(t, compressionZSTD, lying),
		"an event below its header":    makePayload(t, compressionNone, short),
		"damaged data":                 damaged,
		"no data at all":               {},
		"a field that is cut":          {payloadCompression, 9, 0},
		"a compression not known here": {payloadCompression, 1, 7, 0},
		"data that is no zstd":         {payloadCompression, 1, compressionZSTD, 0, 1, 2, 3, 4, 5},
	} {
		var r payloadReader
		err := r.reset(body)
		for err == nil {
			_, err = r.next()
		}
		if !errors.Is(err, capture.ErrUnreadable) {
			t.Errorf("%s: %v", name, err)
		}
		if cap(r.event) > 1<<20 {
			t.Errorf("%s: takes %d bytes", name, cap(r.event))
		}
		r.Close()
	}
}

func TestPayload_CompressedTransactionsHaveTheSameRows(t *testing.T) {
	// MySQL compresses since 8.0.20.
	forServers(t, typeServers[1:], func(t *testing.T, l *typeLab) {
		_, name, _ := strings.Cut(t.Name(), "/")
		l.exec("CREATE TABLE p (id int PRIMARY KEY, v varchar(2000))")
		write := func() { l.exec("INSERT INTO p VALUES (1, repeat('é', 1500)), (2, repeat('x', 100)), (3, NULL)") }
		plain := l.log(write)
		l.exec("DELETE FROM p")
		var compressed []loggedEvent
		if l.mariadb {
			// Row events of at least 256 bytes, each by itself.
			l.exec("SET GLOBAL log_bin_compress = ON")
			compressed = l.log(write)
			l.exec("SET GLOBAL log_bin_compress = OFF")
		} else {
			l.exec("SET binlog_transaction_compression = ON")
			compressed = l.log(write)
		}
		b := capture.NewBatch()
		defer b.Release()
		want, err := decodeLog(plain, l.mariadb, b, nil)
		if err != nil {
			t.Fatal(err)
		}
		got, err := decodeLog(compressed, l.mariadb, b, nil)
		if err != nil {
			t.Fatal(err)
		}
		if transcript(got) != transcript(want) || transcript(got) != threeRows {
			t.Errorf("got\n%swant\n%s", transcript(got), threeRows)
		}
		if l.mariadb && compressed[len(compressed)-1].typ != replication.MARIADB_WRITE_ROWS_COMPRESSED_EVENT_V1 {
			t.Errorf("the last event is of the type %s", compressed[len(compressed)-1].typ)
		}
		if !l.mariadb && len(l.compressed) != 1 {
			t.Errorf("the log has %d compressed transactions, want 1", len(l.compressed))
		}
		if *update && l.mariadb {
			writeEvents(t, "compressed-"+name+".events.zst", compressed)
		} else if *update {
			writeTestdata(t, "payload-"+name+".bin", l.compressed[0])
		}
	})
}

// threeRows is what the compressed transactions mean.
var threeRows = "id int\nv varchar(2000)\n\tinsert int:1 \"" + strings.Repeat("é", 49) + "\xc3… 3002\n\tinsert int:2 \"" + strings.Repeat("x", 100) + "\"\n\tinsert int:3 null\n"

// recordedPayloads are the compressed transactions of testdata.
func recordedPayloads(t testing.TB) map[string][]byte {
	t.Helper()
	files, err := filepath.Glob("testdata/payload-*.bin")
	if err != nil || len(files) == 0 {
		t.Fatalf("no recorded compressed transactions: %v", err)
	}
	out := make(map[string][]byte)
	for _, file := range files {
		if out[file], err = os.ReadFile(file); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// TestPayload_RecordedOnesMeanWhatTheyMeantThen includes MariaDB's compressed rows.
func TestPayload_RecordedOnesMeanWhatTheyMeantThen(t *testing.T) {
	logs := make(map[string][]loggedEvent)
	for file, body := range recordedPayloads(t) {
		var r payloadReader
		defer r.Close()
		err := r.reset(body)
		for err == nil {
			var e []byte
			if e, err = r.next(); err == nil && (e[4] == byte(replication.TABLE_MAP_EVENT) || isRows(replication.EventType(e[4]))) {
				logs[file] = append(logs[file], loggedEvent{replication.EventType(e[4]), bytes.Clone(e[replication.EventHeaderSize:])})
			}
		}
		if err != io.EOF {
			t.Errorf("%s: %v", file, err)
		}
	}
	for _, file := range recordedCompressed(t) {
		logs[file] = readEvents(t, file)
	}
	for file, events := range logs {
		b := capture.NewBatch()
		rows, err := decodeLog(events, isMariaDB(file), b, nil)
		if got := transcript(rows); err != nil || got != threeRows {
			t.Errorf("%s: got\n%s(%v) want\n%s", file, got, err, threeRows)
		}
		b.Release()
	}
}

// TestPayload_IsInflatedPieceByPiece: what a transaction takes is its largest event, and not
// what it is as a whole.
func TestPayload_IsInflatedPieceByPiece(t *testing.T) {
	const events, size = 2000, 100 << 10 // 200 MB
	one := testEvent(30, size)
	var compressed bytes.Buffer
	w, err := zstd.NewWriter(&compressed)
	if err != nil {
		t.Fatal(err)
	}
	for range events {
		if _, err := w.Write(one); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	var r payloadReader
	defer r.Close()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if err := r.reset(append([]byte{payloadCompression, 1, compressionZSTD, 0}, compressed.Bytes()...)); err != nil {
		t.Fatal(err)
	}
	n := 0
	for ; err == nil; n++ {
		_, err = r.next()
	}
	runtime.ReadMemStats(&after)
	if err != io.EOF || n-1 != events {
		t.Errorf("%d events came: %v", n-1, err)
	}
	if took := after.TotalAlloc - before.TotalAlloc; took > events*size/5 {
		t.Errorf("%d MB of events took %d MB", events*size>>20, took>>20)
	}
}

func FuzzPayload(f *testing.F) {
	inside := bytes.Join([][]byte{testEvent(19, 10), testEvent(30, 200)}, nil)
	f.Add(makePayload(f, compressionZSTD, inside))
	f.Add(makePayload(f, compressionNone, inside))
	for _, body := range recordedPayloads(f) {
		f.Add(body)
	}
	var r payloadReader
	f.Fuzz(func(t *testing.T, body []byte) {
		err := r.reset(body)
		for err == nil {
			_, err = r.next()
		}
		if err != io.EOF && !errors.Is(err, capture.ErrUnreadable) {
			t.Errorf("an error that stops nothing: %v", err)
		}
	})
}
