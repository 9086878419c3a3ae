package main

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/headwaterdb/headwater/capture"
	"github.com/headwaterdb/headwater/snapshot"
)

func TestProgress_DrawsABarForEachTable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := func(name, state string, rows, estimate int64) snapshot.TableProgress {
			return snapshot.TableProgress{ID: capture.TableID{Schema: "public", Name: name}, State: state, Rows: rows, Estimate: estimate}
		}
		began := time.Now()
		progress := func() snapshot.Progress {
			switch s := time.Since(began); {
			case s < time.Second:
				return snapshot.Progress{}
			case s < 5*time.Second: // more rows than the database thought
				return snapshot.Progress{Tables: []snapshot.TableProgress{table("a", "reading", int64(s/time.Millisecond), 2000), table("b", "waiting", 0, -1)}}
			case s < 9*time.Second:
				return snapshot.Progress{Tables: []snapshot.TableProgress{table("a", "done", 5000, 2000), table("b", "reading", int64(s/time.Millisecond), -1)}}
			}
			return snapshot.Progress{Tables: []snapshot.TableProgress{table("a", "done", 5000, 2000), table("b", "done", 9001, -1)}}
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		var out bytes.Buffer
		if err := showProgress(ctx, progress, &out); err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		if len(lines) != 2 || !strings.Contains(lines[0], "public.a") || !strings.Contains(lines[0], "5000/5000") ||
			!strings.Contains(lines[1], "public.b") || !strings.Contains(lines[1], "9001") {
			t.Errorf("drawn: %q", out.String())
		}
	})
}
