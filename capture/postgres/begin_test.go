package postgres

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/headwaterdb/headwater/capture"
)

// The last chunk's entry may be lost after the snapshot called itself done: the next
// Stream then reads tables again, and its views must know what it emitted (rule R25).
func TestScanner_BeginTakesALateFinishBack(t *testing.T) {
	t.Parallel()
	src := New(Config{}, nil, prometheus.NewRegistry())
	scanner := src.Scanner()
	start := func() bool {
		t.Helper()
		if err := src.scan.start(scanStart{resume: capture.Resume{At: "{}"}}, &server{}, func() {}); err != nil {
			t.Fatal(err)
		}
		defer src.scan.stop()
		return src.scan.tracking
	}
	scanner.Finish()
	if start() {
		t.Error("a stream that reads no table keeps what only views need")
	}
	scanner.Finish()
	scanner.Begin()
	if !start() {
		t.Error("a stream that reads tables keeps nothing for its views")
	}
}
