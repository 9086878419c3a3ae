package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/headwaterdb/headwater/capture"
	"github.com/headwaterdb/headwater/checkpoint"
	"github.com/headwaterdb/headwater/publish"
	"github.com/headwaterdb/headwater/schema"
	"github.com/headwaterdb/headwater/schema/registry"
	"github.com/headwaterdb/headwater/snapshot"
)

func TestStatus_IsHealthyWhileProgressIsMadeOrThereIsNothingToDo(t *testing.T) {
	now := time.Now()
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	for _, c := range []struct {
		name     string
		p        publish.Progress
		registry string
		troubled time.Duration
		want     string // what is waited for; "" is healthy
	}{
		{"StartsJustNow", publish.Progress{Stage: publish.Fencing, Since: ago(time.Second)}, "", 0, ""},
		{"CannotFence", publish.Progress{Stage: publish.Fencing, Since: ago(time.Hour)}, "", 0, "Kafka: fencing earlier writers, for 1h0m0s"},
		{"CannotVerify", publish.Progress{Stage: publish.Verifying, Since: ago(time.Minute)}, "", 0, "the database: verifying"},
		{"HasNothingToDo", publish.Progress{Stage: publish.Waiting, Since: ago(time.Hour), LastCommit: ago(time.Hour)}, "", 0, ""},
		{"LeavesTheQueueAlone", publish.Progress{Stage: publish.Waiting, Since: ago(time.Hour), LastCommit: ago(time.Hour), QueueBytes: 1}, "", 0, "Kafka: waiting for the source, for"},
		{"CommitsRegularly", publish.Progress{Stage: publish.Producing, Since: ago(time.Hour), LastCommit: ago(time.Second)}, "", 0, ""},
		{"CannotCommit", publish.Progress{Stage: publish.Committing, Since: ago(time.Minute), LastCommit: ago(time.Minute)}, "", 0, "Kafka: committing, for 1m0s"},
		{"HasNoRegistry", publish.Progress{Stage: publish.Waiting, Since: ago(time.Second)}, "the schema registry at x", 0, "the schema registry at x"},
		{"StumbledOnce", publish.Progress{Stage: publish.Stopped, Since: ago(time.Second)}, "", 2 * time.Second, ""},
		{"StumblesAgainAndAgain", publish.Progress{Stage: publish.Claiming, Since: ago(0), LastCommit: ago(0)}, "", time.Minute, "an end of the trouble that began 1m0s ago: no route"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := waitingFor(c.p, c.registry, c.troubled, "no route", now)
			if (got == "") != (c.want == "") || !strings.HasPrefix(got, c.want) {
				t.Errorf("waits for %q, want %q", got, c.want)
			}
		})
	}
}

// A pipeline whose claims succeed while its database is away commits all the time, and
// carries nothing.
func TestStatus_ClaimsAloneAreNoProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p publish.Progress
		var log bytes.Buffer
		s := &status{
			cfg: &Config{}, progress: func() publish.Progress { return p }, tables: func() snapshot.Progress { return snapshot.Progress{} },
			waiting: func() string { return "" }, log: slog.New(slog.NewTextHandler(&log, nil)),
		}
		for range 20 {
			s.begin()
			p = publish.Progress{Stage: publish.Verifying, Since: time.Now(), Commits: p.Commits + 1, LastCommit: time.Now()}
			time.Sleep(5 * time.Second)
			p.Stage = publish.Stopped
			s.accident(errors.New("connection refused"))
		}
		if r := s.report(time.Now()); r.Healthy || !strings.Contains(r.Waiting, "connection refused") {
			t.Errorf("after 100 s: healthy %v, waits for %q", r.Healthy, r.Waiting)
		}
		s.begin()
		p = publish.Progress{Stage: publish.Waiting, Since: time.Now(), Commits: p.Commits + 1, LastCommit: time.Now()}
		if r := s.report(time.Now()); r.Healthy {
			t.Error("healthy by its claim")
		}
		p.Commits++
		if r := s.report(time.Now()); !r.Healthy || r.Accident != "connection refused" {
			t.Errorf("after a commit: healthy %v, last accident %q", r.Healthy, r.Accident)
		}
		s.report(time.Now())
		if strings.Count(log.String(), "the pipeline works again") != 1 {
			t.Errorf("the log: %s", &log)
		}
	})
}

func TestStatus_WatchdogNoticesAHangAndNoWait(t *testing.T) {
	now := time.Now()
	old := now.Add(-time.Hour)
	for stage, want := range map[publish.Stage]bool{
		publish.Stopped: false, publish.Fencing: false, publish.Loading: false, publish.Verifying: false, publish.Waiting: false,
		publish.Claiming: true, publish.Producing: true, publish.Committing: true,
	} {
		if got := hung(publish.Progress{Stage: stage, Since: old}, time.Minute, now); got != want {
			t.Errorf("%s for an hour: hung %v", stage, got)
		}
		if hung(publish.Progress{Stage: stage, Since: now.Add(-2 * time.Minute), QueueBytes: 1}, time.Minute, now) {
			t.Errorf("%s for two minutes: hung", stage)
		}
	}
	if !hung(publish.Progress{Stage: publish.Waiting, Since: old, QueueBytes: 1}, time.Minute, now) {
		t.Error("a queue that nobody takes from is no hang")
	}
}

func TestStatus_Pages(t *testing.T) {
	now := time.Now()
	waiting := ""
	s := &status{
		cfg: &Config{Name: "shop"}, waiting: func() string { return waiting },
		progress: func() publish.Progress {
			return publish.Progress{
				Stage: publish.Waiting, Since: now, Position: `{"end_lsn":"0/1"}`, InTx: &capture.InTx{ID: "7", Done: 3},
				Seq: 9, Commits: 2, LastCommit: now, Records: 5, Lag: 1500 * time.Millisecond,
			}
		},
		tables: func() snapshot.Progress {
			return snapshot.Progress{Done: 1, Left: 1, Tables: []snapshot.TableProgress{
				{ID: capture.TableID{Schema: "public", Name: "orders"}, State: "reading", Rows: 10, Estimate: 40, Rate: 5, Left: 6 * time.Second},
			}}
		},
	}
	w := httptest.NewRecorder()
	s.serveStatus(w, nil)
	var r report
	if err := json.Unmarshal(w.Body.Bytes(), &r); err != nil {
		t.Fatal(err)
	}
	if !r.Healthy || r.Pipeline != "shop" || r.Checkpoint != 9 || r.LagSeconds != 1.5 || r.InTx.Done != 3 || !strings.Contains(string(r.Position), "0/1") {
		t.Errorf("/status: %s", w.Body)
	}
	if r.Snapshot == nil || r.Snapshot.Left != 1 || r.Snapshot.Tables[0] != (tableReport{"public.orders", "reading", 10, 40, 5, 6}) {
		t.Errorf("/status, snapshot: %s", w.Body)
	}
	if got := r.line(); got != "reading the tables, 1 of 2 done; 5 records published" {
		t.Errorf("systemd is told %q", got)
	}
	w = httptest.NewRecorder()
	s.serveHealth(w, nil)
	if w.Code != http.StatusOK || w.Body.String() != "ok: waiting for the source\n" {
		t.Errorf("/healthz: %d %q", w.Code, w.Body)
	}
	waiting = "the schema registry at x: it answers 500"
	w = httptest.NewRecorder()
	s.serveHealth(w, nil)
	if w.Code != http.StatusServiceUnavailable || w.Body.String() != "waiting for the schema registry at x: it answers 500\n" {
		t.Errorf("/healthz: %d %q", w.Code, w.Body)
	}
}

// idle is a status that nobody asks.
func idle() *status {
	return &status{progress: func() publish.Progress { return publish.Progress{} }}
}

func TestSupervise_StartsAgainAfterAccidentsMoreAndMoreSlowly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		var at []time.Duration
		answer := fmt.Errorf("read the log: %w", capture.ErrPositionLost)
		err := supervise(t.Context(), func(context.Context) error {
			at = append(at, time.Since(began))
			switch len(at) {
			case 20: // a long calm run
				time.Sleep(2 * calm)
			case 25:
				return answer
			}
			return errors.New("connection reset")
		}, idle(), slog.New(slog.DiscardHandler), prometheus.NewRegistry())
		if !errors.Is(err, capture.ErrPositionLost) || len(at) != 25 {
			t.Fatalf("after %d runs: %v", len(at), err)
		}
		pause := func(n int) time.Duration { return at[n] - at[n-1] }
		if p := pause(1); p < 50*time.Millisecond || p > 150*time.Millisecond {
			t.Errorf("first pause %v", p)
		}
		if p := pause(15); p < 15*time.Second || p > 45*time.Second {
			t.Errorf("late pause %v", p)
		}
		if p := pause(20) - 2*calm; p > 150*time.Millisecond {
			t.Errorf("pause after a calm run %v", p)
		}
	})
}

func TestSupervise_SaysTheSameThingOnceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		runs := 0
		var log bytes.Buffer
		err := supervise(ctx, func(context.Context) error {
			if runs++; runs == 15 {
				return errors.New("another")
			}
			return errors.New("connection\n\trefused")
		}, idle(), slog.New(slog.NewTextHandler(&log, nil)), prometheus.NewRegistry())
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		if n := strings.Count(log.String(), `because="connection; refused"`); n < 6 || n > 12 {
			t.Errorf("%d lines about %d runs in 10 minutes:\n%s", n, runs, &log)
		}
		if strings.Count(log.String(), "because=another") != 1 {
			t.Errorf("another accident is not said:\n%s", &log)
		}
	})
}

func TestSupervise_EndsWithItsContextAndWithTheSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		err := supervise(ctx, func(context.Context) error { return errors.New("x") }, idle(), slog.New(slog.DiscardHandler), prometheus.NewRegistry())
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("at the end of the context: %v", err)
		}
		err = supervise(t.Context(), func(context.Context) error { return nil }, idle(), slog.New(slog.DiscardHandler), prometheus.NewRegistry())
		if err != nil {
			t.Errorf("at the end of the source: %v", err)
		}
	})
}

func TestExitCode_StandsInTheREADME(t *testing.T) {
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range exitCodes {
		if line := fmt.Sprintf("| %d | %s |", c.code, c.meaning); !strings.Contains(string(text), line) {
			t.Errorf("README.md has no line %s", line)
		}
	}
}

func TestExitCode_TellsWhoCanAct(t *testing.T) {
	for _, c := range []struct {
		err  error
		want int
	}{
		{nil, exitOK},
		{errors.New("x"), exitError},
		{errConfig, exitUsage},
		{usage(errors.New("x")), exitUsage},
		{errFound, exitCheck},
		{capture.ErrPositionLost, exitStopped},
		{capture.ErrMisconfigured, exitStopped},
		{capture.ErrUnreadable, exitStopped},
		{checkpoint.ErrUnusable, exitStopped},
		{publish.ErrRefused, exitStopped},
		{publish.ErrConfigChanged, exitStopped},
		{&schema.IncompatibleError{Subject: "s"}, exitStopped},
		{registry.ErrRefused, exitStopped},
		{publish.ErrSuperseded, exitSuperseded},
		{publish.ErrFenced, exitError},
	} {
		if c.err != nil {
			c.err = fmt.Errorf("step: %w", c.err)
		}
		if got := exitCode(c.err); got != c.want {
			t.Errorf("%v: exit code %d, want %d", c.err, got, c.want)
		}
		if c.err == nil {
			continue
		}
		if got := exitCode(logged{c.err}); got != c.want {
			t.Errorf("%v, logged: exit code %d, want %d", c.err, got, c.want)
		}
	}
}
