package postgres

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/headwaterdb/headwater/capture"
	"github.com/headwaterdb/headwater/integration/servers"
)

// findings runs Check and prints what it finds, one line each.
func findings(t *testing.T, s *Source) (faults, warnings []string) {
	t.Helper()
	err := s.Check(t.Context())
	if err == nil {
		return nil, nil
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		t.Fatalf("Check fails: %v", err)
	}
	for _, e := range joined.Unwrap() {
		var f *capture.Finding
		if !errors.As(e, &f) {
			t.Fatalf("no finding: %v", e)
		}
		if f.Warning {
			warnings = append(warnings, f.Error())
		} else {
			faults = append(faults, f.Error())
		}
	}
	return faults, warnings
}

func mentions(lines []string, all ...string) bool {
	for _, l := range lines {
		ok := true
		for _, w := range all {
			ok = ok && strings.Contains(l, w)
		}
		if ok {
			return true
		}
	}
	return false
}

func TestCheck_FindsNothingWhereNothingIsWrong(t *testing.T) {
	eachVersion(t, func(t *testing.T, version string) {
		l := newLab(t, version)
		l.exec(tables)
		s := l.source()
		for range 2 { // before the first start, and after it
			if faults, warnings := findings(t, s); len(faults)+len(warnings) > 0 {
				t.Errorf("found %q and %q", faults, warnings)
			}
			l.record(s, capture.Resume{}, 0)
			l.idle()
		}
	})
}

func TestCheck_FindsEverythingAtOnce(t *testing.T) {
	eachVersion(t, func(t *testing.T, version string) {
		l := newLab(t, version)
		l.exec(`CREATE TABLE nopk (a int UNIQUE NOT NULL); CREATE TABLE halfkey (a int UNIQUE); CREATE TABLE nothing (id int PRIMARY KEY); CREATE TABLE bare (a int)`,
			`CREATE TABLE gen (id int PRIMARY KEY, g int GENERATED ALWAYS AS (id + 1) STORED)`,
			`ALTER TABLE nothing REPLICA IDENTITY NOTHING`)
		faults, warnings := findings(t, l.source(func(c *Config) {
			c.PublicationMode, c.SlotMode = PublicationExisting, SlotExisting
			c.Tables.Include = []string{"public.*", "absent.*"}
		}))
		for _, want := range [][]string{
			{`no publication "headwater"`, "CREATE PUBLICATION"},
			{`no replication slot "headwater"`, "pg_create_logical_replication_slot"},
			{"public.nopk", `ALTER TABLE "public"."nopk" REPLICA IDENTITY USING INDEX "nopk_a_key"`},
			{"public.halfkey", `ALTER TABLE "public"."halfkey" REPLICA IDENTITY FULL`},
			{"public.nothing", `ALTER TABLE "public"."nothing" REPLICA IDENTITY DEFAULT`},
		} {
			if !mentions(faults, want...) {
				t.Errorf("no fault says %q: %q", want, faults)
			}
		}
		for _, want := range [][]string{{"public.bare", "REPLICA IDENTITY FULL"}, {`"absent.*" matches no table`}, {"generated columns g", "public.gen"}} {
			if !mentions(warnings, want...) {
				t.Errorf("no warning says %q: %q", want, warnings)
			}
		}
		if len(faults) != 5 || len(warnings) != 3 {
			t.Errorf("%d faults and %d warnings: %q, %q", len(faults), len(warnings), faults, warnings)
		}
		// At start the same tables are refused.
		if err := l.follow(l.source(), capture.Resume{}, func(piece) error { return errEnough }); !errors.Is(err, capture.ErrMisconfigured) || !strings.Contains(err.Error(), "nopk") {
			t.Errorf("Stream: %v", err)
		}
	})
}

// A glob that matches nothing, and a publication that lacks a table, would else look like tables in
// which nothing happens.
func TestStream_SaysWhatWillNotCome(t *testing.T) {
	t.Parallel()
	l := newLab(t, "18")
	l.exec(`CREATE TABLE orders (id int PRIMARY KEY); CREATE TABLE parts (id int PRIMARY KEY)`, `CREATE PUBLICATION headwater FOR TABLE parts`)
	for _, c := range []struct {
		include, want []string
	}{
		{[]string{"public.order"}, []string{`"public.order" matches no table, and those of the database are public.orders, public.parts`, "no table is captured"}},
		{nil, []string{"the publication lacks tables", `ALTER PUBLICATION "headwater" ADD TABLE ONLY "public"."orders"`}},
	} {
		var said strings.Builder
		s := l.source(func(cfg *Config) { cfg.PublicationMode, cfg.Tables.Include = PublicationExisting, c.include })
		s.log = slog.New(slog.NewTextHandler(&said, nil))
		if err := l.follow(s, capture.Resume{}, func(piece) error { return errEnough }); !errors.Is(err, errEnough) {
			t.Errorf("%q: got %v", c.include, err)
		}
		for _, want := range c.want {
			if log := strings.ReplaceAll(said.String(), `\"`, `"`); !strings.Contains(log, want) {
				t.Errorf("%q: the log does not say %q:\n%s", c.include, want, log)
			}
		}
	}
}

func TestCheck_NamesWhatTheUserMayNot(t *testing.T) {
	for _, version := range []string{"13", "18"} {
		l := newLab(t, version)
		role := "r_" + l.ask(`SELECT current_database()`)
		l.exec(tables, `CREATE ROLE `+role+` LOGIN`, `ALTER TABLE u ENABLE ROW LEVEL SECURITY; GRANT SELECT ON u TO `+role, `REVOKE ALL ON SCHEMA public FROM PUBLIC; GRANT USAGE ON SCHEMA public TO `+role)
		asRole := func(c *Config) { c.URL = strings.Replace(c.URL, "postgres@", role+"@", 1) }
		s := l.source(asRole)
		s.Scanner()
		faults, _ := findings(t, s)
		for _, want := range [][]string{
			{role, "must not read the log", "ALTER ROLE", "REPLICATION"},
			{"must not create publication", "GRANT CREATE ON DATABASE"},
			{"does not own", "public.t"},
			{"must not read", `"public"."t"`, "GRANT SELECT"},
			{"row-level security", "public.u"},
		} {
			if !mentions(faults, want...) {
				t.Errorf("PostgreSQL %s: no fault says %q: %q", version, want, faults)
			}
		}
		l.exec(`DROP OWNED BY ` + role + `; DROP ROLE ` + role)
	}
}

func TestCheck_NamesServerSettings(t *testing.T) {
	t.Parallel()
	pg := servers.Own(t).PostgresWith(servers.PostgresConfig{Version: "15", Settings: map[string]string{"wal_level": "replica", "max_replication_slots": "1", "max_wal_senders": "2"}})
	l := labAt(t, pg.Database(t))
	l.exec(tables, `SELECT pg_create_physical_replication_slot('taken')`)
	faults, _ := findings(t, l.source())
	if !mentions(faults, "wal_level is replica", "ALTER SYSTEM SET wal_level = logical") || !mentions(faults, "max_replication_slots", "ALTER SYSTEM") {
		t.Errorf("found %q", faults)
	}
	if err := l.follow(l.source(), capture.Resume{}, func(piece) error { return errEnough }); !errors.Is(err, capture.ErrMisconfigured) || !strings.Contains(err.Error(), "ALTER SYSTEM SET wal_level = logical") {
		t.Errorf("Stream: %v", err)
	}
}

func TestConnect_SaysInOneSentenceWhatIsWrong(t *testing.T) {
	t.Parallel()
	pg := servers.Own(t).PostgresWith(servers.PostgresConfig{Version: "17"})
	l := labAt(t, pg.Database(t))
	l.exec(`CREATE ROLE "with password" LOGIN REPLICATION PASSWORD 'right'`)
	hba := filepath.Join(pg.Dir, "pg_hba.conf")
	rules, err := os.ReadFile(hba)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(hba, append([]byte("host all \"with password\" all scram-sha-256\nhost all kept_out all reject\n"), rules...), 0o600); err != nil {
		t.Fatal(err)
	}
	l.exec(`CREATE ROLE kept_out LOGIN`, `SELECT pg_reload_conf()`)
	l.until(`SELECT count(*) = 2 FROM pg_hba_file_rules WHERE user_name && ARRAY['with password', 'kept_out']`)
	for _, c := range []struct {
		user, password, database string
		want                     string
	}{
		{"with%20password", "wr0ng", "", `refuses the password of user "with password"`},
		{"kept_out", "", "", `does not let user "kept_out" in`},
		{"nobody", "", "", `role "nobody" does not exist`},
		{"postgres", "", "absent", `has no database "absent"`},
	} {
		s := l.source(func(cfg *Config) {
			cfg.URL = strings.Replace(cfg.URL, "postgres@", c.user+"@", 1)
			if c.database != "" {
				cfg.URL = fmt.Sprintf("postgres://%s@127.0.0.1:%d/%s?sslmode=disable", c.user, pg.Port, c.database)
			}
			cfg.Password = capture.Secret(c.password)
		})
		faults, _ := findings(t, s)
		if len(faults) != 1 || !strings.Contains(faults[0], c.want) || strings.Contains(faults[0], "wr0ng") {
			t.Errorf("Check: %q, want %q", faults, c.want)
		}
		if err := s.Verify(t.Context(), capture.Resume{}); !errors.Is(err, capture.ErrMisconfigured) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("Verify: %v, want %q", err, c.want)
		}
	}
}

// Definitions are known before the first start, and are those of the rows afterwards.
func TestDefinitions_AreThoseOfWhatIsCaptured(t *testing.T) {
	t.Parallel()
	l := newLab(t, "15")
	l.exec(`CREATE TABLE root (id int PRIMARY KEY, ssn text) PARTITION BY RANGE (id); CREATE TABLE mid PARTITION OF root FOR VALUES FROM (0) TO (10) PARTITION BY RANGE (id)`,
		`CREATE TABLE leaf PARTITION OF mid FOR VALUES FROM (0) TO (5)`, `CREATE TABLE g (id int PRIMARY KEY, b int GENERATED ALWAYS AS (id * 2) STORED, "Größe" text)`, `CREATE TABLE other (id int PRIMARY KEY)`)
	s := l.source(func(c *Config) { c.Tables.Include = []string{"public.root", "public.g"} })
	list := func() (got string) {
		t.Helper()
		tables, err := s.Definitions(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range tables {
			got += fmt.Sprint(d.ID, " ", d.PartOf)
			for i := range d.Columns {
				got += " " + d.Columns[i].Name
			}
			got += fmt.Sprintln(d.Key)
		}
		return got
	}
	const want = "public.g [] id Größe[0]\npublic.leaf [public.mid public.root] id ssn[0]\n"
	if got := list(); got != want {
		t.Errorf("before the first start\n%swant\n%s", got, want)
	}
	first := l.record(s, capture.Resume{}, 0)
	if got := list(); got != want {
		t.Errorf("after it\n%swant\n%s", got, want)
	}
	l.exec(`INSERT INTO root VALUES (1, 'x')`)
	second := l.record(s, first.last(), l.head())
	if got, want := strings.Join(second.lines(), "; "), `insert public.leaf id=int:1 ssn="x"; commit`; got != want {
		t.Errorf("the log holds %s, want %s", got, want)
	}
}

func TestStream_PublishesWhatIsCaptured(t *testing.T) {
	eachVersion(t, func(t *testing.T, version string) {
		l := newLab(t, version)
		l.exec(`CREATE SCHEMA "S x"; CREATE TABLE "S x"."T ü" (id int PRIMARY KEY); CREATE TABLE other (id int PRIMARY KEY)`,
			`CREATE TABLE parted (id int PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE leaf PARTITION OF parted FOR VALUES FROM (0) TO (10)`)
		only := func(globs ...string) func(*Config) { return func(c *Config) { c.Tables.Include = globs } }
		first := l.record(l.source(only("S x.*", "public.parted")), capture.Resume{}, 0)
		// A partition that is attached later, and a table that is captured later.
		l.exec(`CREATE TABLE leaf2 PARTITION OF parted FOR VALUES FROM (10) TO (20)`, `INSERT INTO "S x"."T ü" VALUES (1)`, `INSERT INTO parted VALUES (1), (11)`, `INSERT INTO other VALUES (1)`)
		second := l.record(l.source(only("S x.*", "public.parted", "*.other")), first.last(), l.head())
		l.exec(`INSERT INTO other VALUES (2)`)
		third := l.record(l.source(only("S x.*", "public.parted", "*.other")), second.last(), l.head())
		got := strings.Join(append(second.lines(), third.lines()...), "; ")
		want := `insert S x.T ü id=int:1; commit; insert public.leaf id=int:1; insert public.leaf2 id=int:11; commit; insert public.other id=int:2; commit`
		if got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	})
}

func TestStream_NamesMayHoldAnyCharacter(t *testing.T) {
	for _, version := range []string{"13", "18"} {
		l := newLab(t, version)
		l.exec(`CREATE SCHEMA "s'\x"; CREATE TABLE "s'\x"."t ""\'" ("c '\""" int PRIMARY KEY)`)
		odd := func(c *Config) { c.Publication = `pub '\" ü` }
		r := l.start(capture.Resume{}, odd)
		l.exec(`INSERT INTO "s'\x"."t ""\'" VALUES (1)`)
		r.await(`insert s'\x.t "\' c '\"=int:1`)
		if rows, _ := r.read(`s'\x.t "\'`, 1<<20, true); len(rows) != 1 {
			t.Errorf("PostgreSQL %s: read %q", version, rows)
		}
	}
}

func TestStream_AMissingPublicationIsAnError(t *testing.T) {
	eachVersion(t, func(t *testing.T, version string) {
		l := newLab(t, version)
		l.exec(tables)
		first := l.record(l.source(), capture.Resume{}, 0)
		l.exec(`DROP PUBLICATION headwater`)
		existing := func(c *Config) { c.PublicationMode = PublicationExisting }
		if err := l.follow(l.source(existing), first.last(), func(piece) error { return nil }); !errors.Is(err, capture.ErrMisconfigured) || !strings.Contains(err.Error(), "CREATE PUBLICATION") {
			t.Errorf("got %v", err)
		}
	})
}

func TestConfig_ReportsEveryMistake(t *testing.T) {
	c := Config{
		URL: "postgres://u:s3cret@:x/", Slot: "No", SlotMode: "?", PublicationMode: "?", Publication: strings.Repeat("x", 64),
		Tables: capture.Tables{Include: []string{"nodot"}}, HeartbeatInterval: 1, StatusInterval: 1, ConnectTimeout: 1, BatchBytes: 1,
	}
	err := c.Validate()
	for _, want := range []string{"url:", "slot:", "slot_mode:", "publication:", "publication_mode:", "tables.include:", "heartbeat_interval:", "status_interval:", "connect_timeout:", "batch_bytes:"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not reported: %v", want, err)
		}
	}
	c.URL = "postgres://u:s3cret@host:5/db"
	c.Password = "s3cret"
	encoded, jsonErr := json.Marshal(c)
	if jsonErr != nil {
		t.Fatal(jsonErr)
	}
	if text := fmt.Sprintf("%v %+v %#v %s %s %v", c, c, c, c.LogValue(), encoded, err); strings.Contains(text, "s3cret") {
		t.Errorf("the password is printed: %s", text)
	}
}
