package checkpoint

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/headwaterdb/headwater/capture"
)

func sample() Checkpoint {
	return Checkpoint{
		Pipeline: "shop", Seq: 184467, Time: time.UnixMilli(1767225600123).UTC(),
		Owner:  Owner{ID: "01JQ0000000000000000000000", Host: "cdc-3", Since: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)},
		At:     `{"end_lsn":"0/16B3748"}`,
		InTx:   &capture.InTx{ID: "0/16B3800", Done: 4096, CRC: 0x9f3a01bc},
		Totals: Totals{Records: 991230, Bytes: 812345678},
		Config: "sha256:00",
	}
}

func TestCheckpoint_StoredFormReturnsEverything(t *testing.T) {
	bare := Checkpoint{Pipeline: "shop", Seq: 1, Time: time.UnixMilli(1).UTC()}
	for _, want := range []Checkpoint{sample(), bare} {
		b, err := want.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		var got Checkpoint
		if err := got.Unmarshal(b); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s\ngives %+v\nwant  %+v", b, got, want)
		}
	}
}

// Stored forms must be read for ever: testdata holds one of every version that was written.
func TestCheckpoint_ReadsEveryVersionEverWritten(t *testing.T) {
	files, err := filepath.Glob("testdata/v*.json")
	if err != nil || len(files) != Version {
		t.Fatalf("%d files for %d versions, %v", len(files), Version, err)
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		var got Checkpoint
		if err := got.Unmarshal(b); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if want := sample(); !reflect.DeepEqual(got, want) {
			t.Errorf("%s gives %+v\nwant %+v", name, got, want)
		}
	}
}

func TestCheckpoint_WritesTheVersionFirst(t *testing.T) {
	cp := sample()
	b, err := cp.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(string(b), `{"v":1,"pipeline":"shop",`) {
		t.Errorf("the stored form is %s", b)
	}
}

func TestCheckpoint_RefusesWhatItDoesNotKnow(t *testing.T) {
	for _, text := range []string{
		``, `x`, `null`, `[]`, `{}`, `{"v":0}`, `{"v":2}`, `{"v":1,"seq":"1"}`,
		`{"v":1,"pipeline":"shop","seq":1,"intx":{"id":"1","done":1,"crc":"zz"}}`,
		`{"v":1,"pipeline":"shop","seq":1,"intx":{"id":"1","done":1,"crc":"9f3a01bc0"}}`,
	} {
		var cp Checkpoint
		if err := cp.Unmarshal([]byte(text)); !errors.Is(err, ErrUnusable) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestCheckpoint_ResumeIsWhatASourceNeeds(t *testing.T) {
	cp := sample()
	cp.Entries = map[string][]byte{"s/a": []byte("1")}
	r := cp.Resume()
	if r.At != cp.At || r.InTx != cp.InTx || string(r.Entries["s/a"]) != "1" {
		t.Errorf("resume %+v", r)
	}
}

func FuzzCheckpoint_UnmarshalDoesNotPanic(f *testing.F) {
	cp := sample()
	b, err := cp.Marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"v":1,"intx":{"crc":""}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var cp Checkpoint
		if err := cp.Unmarshal(b); err != nil && !errors.Is(err, ErrUnusable) {
			t.Errorf("%v does not match ErrUnusable", err)
		}
	})
}
