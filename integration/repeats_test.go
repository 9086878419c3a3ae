package integration

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/headwaterdb/headwater/integration/servers"
)

// With delivery at-least-once records come again after a crash, and what a consumer keeps
// that drops them by their positions is the log.
func TestProgram_RepeatsAreKnownByTheirPositions(t *testing.T) {
	for name, subject := range map[string]func(*testing.T) subject{
		"PostgreSQL-15": func(t *testing.T) subject { return &workPostgres{db: servers.Own(t).Postgres("15")} },
		"MySQL-9":       func(t *testing.T) subject { return &workMySQL{db: servers.Own(t).MySQL("9")} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			repeatProgram(t, &workload{subject: subject(t), orders: 3000})
		})
	}
}

func repeatProgram(t *testing.T, w *workload) {
	const kills, writers = 8, 2
	ctx, kafka, registry := t.Context(), servers.Shared(t).Kafka(), servers.Shared(t).Registry()
	if err := w.create(ctx); err != nil {
		t.Fatal(err)
	}
	if err := w.preload(ctx); err != nil {
		t.Fatal(err)
	}
	source, include := w.config()
	name := fmt.Sprintf("repeats-%d", rand.Uint32())
	p := newPipeline(t, fmt.Sprintf(`
name: %[1]s
source:
  %[2]s
tables: {include: [%[3]q]}
snapshot: {mode: initial, chunk_bytes: 65536}
topics: {prefix: %[1]s, partitions: 3, replication: 1}
registry: {url: %[4]q}
kafka: {brokers: [%[5]q]}
delivery: at-least-once
# Checkpoints are rare, so that much comes again.
publish: {commit_interval: 1s, silence: 500ms, idle_interval: 1s}
`, name, source, include, registry.URL, kafka.Bootstrap[0]))
	p.start("run")
	w.began(t, p)

	workCtx, stopWork := context.WithCancel(ctx)
	worked := make(chan error, 1)
	go func() { worked <- w.work(workCtx, writers) }()
	defer stopWork()
	for n := range kills {
		if n == kills/2 { // the second half follows the log alone
			waitForTables(t, p)
		}
		time.Sleep(500*time.Millisecond + rand.N(time.Second))
		if !p.kill() {
			t.Fatalf("the program ended by itself:\n%s", p.tail(30))
		}
		p.start("run")
	}
	history, held := w.finish(ctx, t, p, stopWork, worked)
	var kept []record
	repeats := map[bool]int{} // by whether a snapshot read the row
	seen := map[string]bool{}
	in := newTopics(t, kafka.Bootstrap, registry.URL)
	if err := in.each(ctx, name, func(rec *kgo.Record) error {
		r, err := in.describe(ctx, name, rec)
		if err != nil {
			return err
		}
		position := ""
		for _, h := range rec.Headers {
			if h.Key == "headwater.pos" {
				position = string(h.Value)
			}
		}
		if (position == "") != (r.op == 'r') {
			return fmt.Errorf("%s %s: a record of operation %q has the position %q", r.table, r.key, r.op, position)
		}
		id := fmt.Sprintf("%s %q %t %s", rec.Topic, rec.Key, rec.Value == nil, position)
		if seen[id] {
			repeats[r.op == 'r']++
			if position != "" {
				return nil
			}
		}
		seen[id] = true
		kept = append(kept, r)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	// A chunk whose rows came before a crash is read again after it. Without a key nothing
	// tells such a row from the one that the log has created meanwhile.
	reads := attempts(t, p)
	for table := range reads {
		reads[table] += kills
	}
	created := map[int64]bool{}
	for _, r := range kept {
		created[r.ver] = created[r.ver] || r.op == 'c'
	}
	kept = slices.DeleteFunc(kept, func(r record) bool { return r.op == 'r' && isKeyless(r.table) && created[r.ver] })
	for i, s := range check(history, kept, held, reads) {
		if i == 20 {
			t.Fatal("…")
		}
		t.Error(s)
	}
	t.Logf("%d kills, %d transactions, %d changes in the log, %d records without %d that came again, and %d read again", kills, w.transactions.Load(), len(history), len(kept), repeats[false], repeats[true])
	if len(history) < 500 || repeats[false] == 0 {
		t.Error("too little happened to prove anything")
	}
}
