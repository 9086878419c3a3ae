package main

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	saslplain "github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sr"
)

// schema is the newest record schema of a subject.
func (r *rig) schema(t *testing.T, subject string) string {
	t.Helper()
	client, err := sr.NewClient(sr.URLs(r.registry.URL()), sr.BearerToken(marked))
	if err != nil {
		t.Fatal(err)
	}
	s, err := client.SchemaByVersion(t.Context(), subject, -1)
	if err != nil {
		t.Fatal(err)
	}
	return s.Schema.Schema
}

// topics is what each topic holds: of every record key, value and headers in one, committed
// or not.
func (r *rig) topics(t *testing.T) map[string][][]byte {
	t.Helper()
	login := []kgo.Opt{kgo.SeedBrokers(r.kafka.ListenAddrs()...), kgo.SASL(saslplain.Auth{User: "headwater", Pass: marked}.AsMechanism())}
	asked, err := kgo.NewClient(login...)
	if err != nil {
		t.Fatal(err)
	}
	defer asked.Close()
	ends, err := kadm.NewClient(asked).ListEndOffsets(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	from, left := map[string]map[int32]kgo.Offset{}, map[string]map[int32]int64{}
	ends.Each(func(o kadm.ListedOffset) {
		if from[o.Topic] == nil {
			from[o.Topic], left[o.Topic] = map[int32]kgo.Offset{}, map[int32]int64{}
		}
		from[o.Topic][o.Partition], left[o.Topic][o.Partition] = kgo.NewOffset().AtStart(), o.Offset
	})
	in, err := kgo.NewClient(append(login, kgo.ConsumePartitions(from), kgo.KeepControlRecords(), kgo.FetchIsolationLevel(kgo.ReadUncommitted()))...)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	all := map[string][][]byte{}
	for unread := true; unread; {
		fetches := in.PollFetches(t.Context())
		if err := fetches.Err(); err != nil {
			t.Fatal(err)
		}
		fetches.EachRecord(func(rec *kgo.Record) {
			whole := slices.Concat(rec.Key, rec.Value)
			for _, h := range rec.Headers {
				whole = slices.Concat(whole, []byte(h.Key), h.Value)
			}
			all[rec.Topic] = append(all[rec.Topic], whole)
			if rec.Offset+1 >= left[rec.Topic][rec.Partition] {
				left[rec.Topic][rec.Partition] = 0
			}
		})
		unread = false
		for _, partitions := range left {
			for _, end := range partitions {
				unread = unread || end > 0
			}
		}
	}
	return all
}

// What columns leaves out stands in no topic, no record schema and no output, whether rows are
// read or streamed, also under the name of a partition.
func TestProgram_ColumnsAreLeftOut(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.config = strings.Replace(r.config, "name: shop", "name: discreet", 1) // slots have one name per server
	url, _, do := database(t)
	exec := func(sql string) {
		t.Helper()
		do(strings.ReplaceAll(sql, "$", marked))
	}
	exec(`CREATE TABLE users (id int PRIMARY KEY, password text DEFAULT '$', password_hint text, name text NOT NULL);
		ALTER TABLE users REPLICA IDENTITY FULL; ALTER TABLE users ALTER password SET STORAGE EXTERNAL;
		CREATE TABLE orders (id int PRIMARY KEY, card text) PARTITION BY RANGE (id); CREATE TABLE orders_1 PARTITION OF orders FOR VALUES FROM (0) TO (1000);
		INSERT INTO users SELECT n, repeat('$', 300), '$', 'Ada ' || n FROM generate_series(1, 50) n; INSERT INTO orders VALUES (1, '$')`)
	columns := func(exclude string) string {
		return write(t, fmt.Sprintf(r.config, url)+"columns: {exclude: ["+exclude+"]}\n")
	}
	command := func(code int, file, name string, says ...string) {
		t.Helper()
		c := start(t, secrets, name, "--config", file)
		c.exits(code)
		for _, text := range says {
			c.says(text)
		}
	}
	command(exitCheck, columns(`"public.users.*d", "public.orders.card"`), "check",
		`columns: problem: the source cannot be captured as configured: table public.users: the setting columns leaves out "id", which belongs to the record key`, "remedy: let columns.include")
	command(exitStopped, columns(`"public.users.*d", "public.orders.card"`), "run", `the setting columns leaves out "id"`)
	command(exitOK, columns(`"public.users.pasword"`), "check", `columns: warning: columns.exclude: "public.users.pasword" matches no column of a captured table`)

	file := columns(`"public.users.password*", "public.orders.card", "public.users.not_yet"`)
	command(exitOK, file, "check", `columns: warning: columns.exclude: "public.users.not_yet" matches no column`)
	command(exitOK, file, "snapshot")
	run := start(t, secrets, "run", "--config", file)
	run.says(`public.users.not_yet\" matches no column of a captured table`)
	exec(`INSERT INTO users VALUES (101, repeat('$', 300), '$', 'Bea'); UPDATE users SET name = 'Bea B.' WHERE id = 101; UPDATE users SET password_hint = '$ $' WHERE id = 101;
		UPDATE users SET id = 102 WHERE id = 101; DELETE FROM users WHERE id = 102; INSERT INTO orders VALUES (2, '$')`)
	const rows, changes = 51, 1 + 1 + 1 + 3 + 2 + 1 // a key change is three records, a delete two
	await(t, "all records", func() bool { return r.records(t) == rows+changes })
	run.signal(syscall.SIGTERM)
	run.exits(exitOK)

	for _, subject := range []string{"shop.public.users-value", "shop.public.orders_1-value"} {
		text := r.schema(t, subject)
		if !strings.Contains(text, `"name":"id"`) || strings.Contains(text, "password") || strings.Contains(text, "card") || strings.Contains(text, marked) {
			t.Errorf("the record schema of %s: %s", subject, text)
		}
	}
	names := 0
	for topic, all := range r.topics(t) {
		for _, b := range all {
			if bytes.Contains(b, []byte(marked)) {
				t.Errorf("topic %s holds what is left out: %q", topic, b)
			}
			if bytes.Contains(b, []byte("Ada ")) || bytes.Contains(b, []byte("Bea")) {
				names++
			}
		}
	}
	if names < 50+5 {
		t.Errorf("only %d records hold a name", names)
	}
}
