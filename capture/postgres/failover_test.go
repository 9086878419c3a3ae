package postgres

import (
	"slices"
	"testing"

	"github.com/headwaterdb/headwater/capture"
	"github.com/headwaterdb/headwater/integration/servers"
)

// A pair is a primary and its standby, which keeps failover slots in step.
type pair struct {
	primary, second *servers.Postgres
	before, standby *lab // sessions on the one and the other
}

func newPair(t *testing.T, version string) *pair {
	t.Helper()
	p := &pair{primary: servers.Own(t).PostgresWith(servers.PostgresConfig{Version: version})}
	p.before = labAt(t, p.primary.URL("postgres"))
	p.before.exec(tables)
	settings := map[string]string{}
	if version >= "17" {
		settings["sync_replication_slots"] = "on"
	}
	p.second = servers.Own(t).PostgresWith(servers.PostgresConfig{Version: version, Standby: p.primary, Settings: settings})
	p.standby = labAt(t, p.second.URL("postgres"))
	return p
}

// confirm makes the primary send nothing that the standby has not confirmed. It returns
// the name of the standby's slot.
func (p *pair) confirm() (slot string) {
	l := p.before
	l.t.Helper()
	slot = l.ask(`SELECT slot_name FROM pg_replication_slots WHERE slot_type = 'physical'`)
	l.exec(`ALTER SYSTEM SET synchronized_standby_slots = '`+slot+`'`, `SELECT pg_reload_conf()`)
	l.until(`SELECT current_setting('synchronized_standby_slots') <> ''`)
	return slot
}

// synced waits until the standby has the slot for good. It takes the slot over only
// where its own horizon is not ahead of it, so nothing is written before.
func (p *pair) synced() {
	p.standby.t.Helper()
	p.before.exec(`SELECT pg_log_standby_snapshot()`)
	p.standby.until(`SELECT count(*) = 1 FROM pg_replication_slots WHERE slot_name = 'headwater' AND synced AND NOT temporary`)
}

// fail crashes the primary and promotes the standby.
func (p *pair) fail(t *testing.T) {
	t.Helper()
	if err := p.primary.Kill(); err != nil {
		t.Fatal(err)
	}
	p.standby.exec(`SELECT pg_promote()`)
}

func withFailover(c *Config) { c.SlotFailover = true }

func TestFailover_ASyncedSlotGoesOnWithoutLossOrDuplicate(t *testing.T) {
	t.Parallel()
	for _, version := range []string{"17", "18"} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			p := newPair(t, version)
			l := p.before
			p.confirm()
			s := l.source(small, withFailover)
			first := l.record(s, capture.Resume{}, 0)
			p.synced()
			l.workload()
			whole := l.record(s, first.last(), l.head())
			all := whole.lines()
			// The process dies inside of a transaction, long before the failover.
			i := slices.IndexFunc(whole.pieces, func(p piece) bool { return p.inTx != nil })
			resume := whole.resume(i)

			p.standby.until(`SELECT pg_last_wal_replay_lsn() >= '` + l.head().String() + `'`)
			// Before the promotion there is nothing to stop for.
			standby := p.standby.source(small, withFailover)
			says(t, "Verify on the standby", standby.Verify(t.Context(), resume), nil, "once it is promoted", "target_session_attrs")
			says(t, "Stream on the standby", p.standby.begin(standby, resume), nil, "once it is promoted", "target_session_attrs")
			p.fail(t)

			l = p.standby
			l.exec(`INSERT INTO t VALUES (10, 'after')`)
			rest := l.record(l.source(small, withFailover), resume, l.head())
			got := append((&tape{pieces: whole.pieces[:i+1]}).lines(), rest.lines()...)
			if want := append(all, `insert public.t id=int:10 v="after"`, "commit"); !slices.Equal(got, want) {
				t.Errorf("%d events, want %d; the last are %q", len(got), len(want), got[max(0, len(got)-4):])
			}
			at, err := parsePosition(rest.last().At)
			if err != nil || at.Source.Timeline != 2 {
				t.Errorf("the position is on timeline %d: %v", at.Source.Timeline, err)
			}
			// What was written on the new timeline goes on there.
			l.exec(`INSERT INTO t VALUES (11, 'later')`)
			if got := l.record(l.source(small, withFailover), rest.last(), l.head()).lines(); !slices.Equal(got, []string{`insert public.t id=int:11 v="later"`, "commit"}) {
				t.Errorf("later: %q", got)
			}
		})
	}
}

func TestFailover_AStandbyThatIsDownIsWaitedFor(t *testing.T) {
	t.Parallel()
	p := newPair(t, "17")
	l := p.before
	slot := p.confirm()
	s := l.source(small, withFailover)
	said := impatient(s)
	s.patience.silent = usualPatience.silent
	restart := func(pg *servers.Postgres) {
		t.Helper()
		if err := pg.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	down := func() {
		t.Helper()
		if err := p.second.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
		l.until(`SELECT NOT active FROM pg_replication_slots WHERE slot_name = '` + slot + `'`)
	}
	first := l.record(s, capture.Resume{}, 0)
	down()
	l.exec(`INSERT INTO t VALUES (1, 'while it is down')`)
	r := l.run(s, first.last())
	said.await(t, "the server warns", slot)
	restart(p.second)
	r.await("while it is down")

	// A primary that is shut down meanwhile says the same as an error.
	down()
	l.exec(`INSERT INTO t VALUES (2, 'at the end')`)
	l.until(`SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'walsender' AND wait_event = 'WaitForStandbyConfirmation'`)
	if err := p.primary.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-r.done
	says(t, "the shutdown", r.tape.err, nil, slot)
	restart(p.primary)
	restart(p.second)
	l = labAt(t, l.url)
	if got := l.record(l.source(small, withFailover), r.last(), l.head()).lines(); !slices.Equal(got, []string{`insert public.t id=int:2 v="at the end"`, "commit"}) {
		t.Errorf("after the restart: %q", got)
	}
}

func TestFailover_ASlotThatWasNotSyncedStops(t *testing.T) {
	t.Parallel()
	p := newPair(t, "17")
	first := p.before.record(p.before.source(small), capture.Resume{}, 0)
	p.before.exec(`INSERT INTO t VALUES (1, 'before')`)
	head := p.before.head()
	second := p.before.record(p.before.source(small), first.last(), head)
	p.standby.until(`SELECT pg_last_wal_replay_lsn() >= '` + head.String() + `'`)
	p.fail(t)
	says(t, "after the promotion", p.standby.source(small).Verify(t.Context(), second.last()), capture.ErrPositionLost,
		"did not come along", "remedy: run headwater checkpoint reset", "slot_failover")
}

func TestFailover_AStandbyThatLacksWhatWasPublishedStops(t *testing.T) {
	t.Parallel()
	p := newPair(t, "18")
	l := p.before
	s := l.source(small, withFailover)
	first := l.record(s, capture.Resume{}, 0)
	p.synced()
	// synchronized_standby_slots is not set: nothing keeps us behind the standby.
	p.standby.exec(`ALTER SYSTEM SET primary_conninfo = ''`, `SELECT pg_reload_conf()`)
	p.standby.until(`SELECT count(*) = 0 FROM pg_stat_wal_receiver`)
	l.exec(`INSERT INTO t SELECT generate_series(1, 100), 'nobody else has it'`)
	ahead := l.record(s, first.last(), l.head())
	p.fail(t)
	says(t, "after the promotion", p.standby.source(small, withFailover).Verify(t.Context(), ahead.last()), capture.ErrPositionLost,
		"never had", "remedy:", "synchronized_standby_slots")
}

func TestVerify_AStandbyBeforePostgreSQL16IsWaitedFor(t *testing.T) {
	t.Parallel()
	p := newPair(t, "14")
	first := p.before.record(p.before.source(small), capture.Resume{}, 0)
	p.standby.until(`SELECT count(*) = 1 FROM pg_publication`)
	s := p.standby.source(small)
	says(t, "first start", p.standby.begin(s, capture.Resume{}), capture.ErrMisconfigured, "takes PostgreSQL 16", "let url name the primary")
	says(t, "resume", p.standby.begin(s, first.last()), nil, "takes PostgreSQL 16", "target_session_attrs=read-write")
	if faults, _ := findings(t, s); !mentions(faults, "takes PostgreSQL 16", "primary") {
		t.Errorf("Check: %q", faults)
	}
}

func TestCheck_SaysWhatAFailoverLacks(t *testing.T) {
	for version, want := range map[string][]string{
		"16": {"needs PostgreSQL 17"},
		"17": {"synchronized_standby_slots is empty", "made without failover"},
	} {
		l := newLab(t, version)
		l.exec(tables)
		l.record(l.source(), capture.Resume{}, 0)
		l.idle()
		faults, warnings := findings(t, l.source(withFailover))
		if len(faults) > 0 || len(warnings) != len(want) {
			t.Errorf("PostgreSQL %s: %q and %q", version, faults, warnings)
		}
		for _, w := range want {
			if !mentions(warnings, w) {
				t.Errorf("PostgreSQL %s: no warning says %q: %q", version, w, warnings)
			}
		}
	}
}
