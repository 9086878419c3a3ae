package postgres

import (
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/headwaterdb/headwater/capture"
)

// published are publications, and what they make of the tables, as they are read and as
// the log goes on.
var published = []struct {
	name        string
	since       int // version of the server
	tables      string
	publication string
	read        []string // table by table
	later       []string // statements
	log         []string
}{
	{
		"partitions by their own names", 13, parted,
		`FOR TABLE "Pärt"`,
		[]string{`public.high id=int:2 K=int:11`, `public.low id=int:1 K=int:1`},
		[]string{`INSERT INTO "Pärt" VALUES (3, 3)`, `UPDATE "Pärt" SET "K" = 12 WHERE id = 1`, `DELETE FROM low`},
		[]string{
			`insert public.low id=int:3 K=int:3`, `commit`,
			`delete public.low before id=int:1 K=int:1`, `insert public.high id=int:1 K=int:12`, `commit`,
			`delete public.low before id=int:3 K=int:3`, `commit`,
		},
	},
	{
		"partitions by the name of their root", 13, parted,
		`FOR TABLE "Pärt" WITH (publish_via_partition_root = true)`,
		[]string{`public.Pärt id=int:1 K=int:1`, `public.Pärt id=int:2 K=int:11`},
		[]string{`INSERT INTO high VALUES (3, 13)`, `UPDATE "Pärt" SET "K" = 12 WHERE id = 1`, `TRUNCATE "Pärt"`},
		[]string{
			`insert public.Pärt id=int:3 K=int:13`, `commit`,
			`delete public.Pärt before id=int:1 K=int:1`, `insert public.Pärt id=int:1 K=int:12`, `commit`,
			`truncate public.Pärt`, `commit`,
		},
	},
	{
		"a parent without its children", 13,
		`CREATE TABLE parent (id int PRIMARY KEY); CREATE TABLE child () INHERITS (parent); ALTER TABLE child ADD PRIMARY KEY (id); INSERT INTO parent VALUES (1); INSERT INTO child VALUES (2)`,
		`FOR TABLE ONLY parent`,
		[]string{`public.parent id=int:1`},
		[]string{`INSERT INTO child VALUES (3)`, `INSERT INTO parent VALUES (4)`},
		[]string{`insert public.parent id=int:4`, `commit`},
	},
	{
		"no generated columns", 13,
		`CREATE TABLE g (id int PRIMARY KEY, b int GENERATED ALWAYS AS (a * 2) STORED, a int); INSERT INTO g VALUES (1, DEFAULT, 21)`,
		`FOR TABLE g`,
		[]string{`public.g id=int:1 a=int:21`},
		[]string{`INSERT INTO g VALUES (2, DEFAULT, 22)`},
		[]string{`insert public.g id=int:2 a=int:22`, `commit`},
	},
	{
		"stored generated columns", 18,
		`CREATE TABLE g (id int PRIMARY KEY, b int GENERATED ALWAYS AS (a * 2) STORED, c int GENERATED ALWAYS AS (a * 3) VIRTUAL, a int); INSERT INTO g VALUES (1, DEFAULT, DEFAULT, 21)`,
		`FOR TABLE g WITH (publish_generated_columns = stored)`,
		[]string{`public.g id=int:1 b=int:42 a=int:21`},
		[]string{`INSERT INTO g VALUES (2, DEFAULT, DEFAULT, 22)`, `UPDATE g SET a = 23 WHERE id = 2`},
		[]string{`insert public.g id=int:2 b=int:44 a=int:22`, `commit`, `update public.g id=int:2 b=int:46 a=int:23`, `commit`},
	},
	{
		"a generated column that the list of columns names", 18,
		`CREATE TABLE g (id int PRIMARY KEY, a int, b int GENERATED ALWAYS AS (a * 2) STORED); INSERT INTO g VALUES (1, 21)`,
		`FOR TABLE g (id, b)`,
		[]string{`public.g id=int:1 b=int:42`},
		[]string{`INSERT INTO g VALUES (2, 22)`},
		[]string{`insert public.g id=int:2 b=int:44`, `commit`},
	},
	{
		"a list of columns and a row filter", 15,
		`CREATE TABLE k (id int PRIMARY KEY, "Secret" text, "Größe" text); INSERT INTO k VALUES (1, 's', 'a'), (2, 's', 'b'), (3, 's', NULL)`,
		`FOR TABLE k ("Größe", id) WHERE (id <> 2)`,
		[]string{`public.k id=int:1 Größe="a"`, `public.k id=int:3 Größe=null`},
		[]string{
			`INSERT INTO k VALUES (4, 's', 'd')`, `UPDATE k SET "Größe" = 'x' WHERE id IN (1, 2)`, `UPDATE k SET "Secret" = 't' WHERE id = 3`,
			`DELETE FROM k WHERE id = 2`, `UPDATE k SET id = 2 WHERE id = 4`, `UPDATE k SET id = 5 WHERE id = 2`,
		},
		// A row that leaves what the filter lets through is deleted, one that enters it inserted.
		[]string{
			`insert public.k id=int:4 Größe="d"`, `commit`, `update public.k id=int:1 Größe="x"`, `commit`, `update public.k id=int:3 Größe=null`, `commit`,
			`delete public.k before id=int:4 Größe=absent`, `commit`, `insert public.k id=int:5 Größe="d"`, `commit`,
		},
	},
}

const parted = `CREATE TABLE "Pärt" (id int, "K" int, PRIMARY KEY (id, "K")) PARTITION BY RANGE ("K");
	CREATE TABLE low PARTITION OF "Pärt" FOR VALUES FROM (0) TO (10); CREATE TABLE high PARTITION OF "Pärt" FOR VALUES FROM (10) TO (20);
	INSERT INTO "Pärt" VALUES (1, 1), (2, 11)`

// Tables and log carry rows alike, under the same names and with the same columns.
func TestPublication_DecidesWhatIsReadAndStreamed(t *testing.T) {
	eachVersion(t, func(t *testing.T, version string) {
		major, err := strconv.Atoi(version)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range published {
			if major < c.since {
				continue
			}
			t.Run(c.name, func(t *testing.T) {
				l := newLab(t, version)
				l.exec(c.tables, `CREATE PUBLICATION headwater `+c.publication)
				r := l.start(capture.Resume{}, func(cfg *Config) { cfg.PublicationMode = PublicationExisting })
				targets, err := r.scan.Tables(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				var read []string
				for _, target := range targets {
					rows, _ := r.read(target.ID.String(), 1<<20, true)
					for _, row := range rows {
						read = append(read, strings.TrimPrefix(row, "read "))
					}
				}
				if !slices.Equal(read, c.read) {
					t.Errorf("the tables\n got %q\nwant %q", read, c.read)
				}
				begin := r.last()
				r.end()
				l.exec(c.later...)
				streamed := l.record(l.source(func(cfg *Config) { cfg.PublicationMode = PublicationExisting }), begin, l.head()).lines()
				if !slices.Equal(streamed, c.log) {
					t.Errorf("the log\n got %q\nwant %q", streamed, c.log)
				}
			})
		}
	})
}

// The catalog is newer than the rows, or older, or as old.
func TestStream_RowsHaveTheDefinitionOfTheirTime(t *testing.T) {
	eachVersion(t, func(t *testing.T, version string) {
		l := newLab(t, version)
		l.exec(`CREATE TABLE d (id int PRIMARY KEY, v text, n int)`)
		slot := func(name string) func(*Config) { return func(c *Config) { c.Slot = name } }
		first := l.record(l.source(slot("replayed")), capture.Resume{}, 0)
		live := l.start(capture.Resume{}, slot("live"))
		l.exec(
			`INSERT INTO d VALUES (1, 'a', 7)`,
			`ALTER TABLE d RENAME v TO "W ü"`, `INSERT INTO d VALUES (2, 'b', 8)`,
			`ALTER TABLE d DROP n`, `INSERT INTO d VALUES (3, 'c')`,
			`ALTER TABLE d ADD n text DEFAULT 'filled in'`, `INSERT INTO d VALUES (4, 'd', DEFAULT), (5, 'e', '9')`,
			`ALTER TABLE d ALTER n DROP DEFAULT, ALTER n TYPE boolean USING id = 5`, `UPDATE d SET "W ü" = 'f' WHERE id = 5`,
		)
		l.tx(
			`INSERT INTO d VALUES (6, 'g', false)`,
			`ALTER TABLE d RENAME TO "D"`, `INSERT INTO "D" VALUES (7, 'h', true)`,
			`ALTER TABLE "D" DROP COLUMN "W ü", ADD "W ü" int`, `INSERT INTO "D" VALUES (8, false, 1)`,
			`SAVEPOINT s`, `ALTER TABLE "D" ALTER "W ü" TYPE text`, `INSERT INTO "D" VALUES (9, true, 'never')`, `ROLLBACK TO s`,
			`INSERT INTO "D" VALUES (10, true, 2)`,
		)
		want := []string{
			`insert public.d id=int:1 v="a" n=int:7`, `commit`,
			`insert public.d id=int:2 W ü="b" n=int:8`, `commit`,
			`insert public.d id=int:3 W ü="c"`, `commit`,
			`insert public.d id=int:4 W ü="d" n="filled in"`, `insert public.d id=int:5 W ü="e" n="9"`, `commit`,
			`update public.d id=int:5 W ü="f" n=true`, `commit`,
			`insert public.d id=int:6 W ü="g" n=false`, `insert public.D id=int:7 W ü="h" n=true`,
			`insert public.D id=int:8 n=false W ü=int:1`, `insert public.D id=int:10 n=true W ü=int:2`, `commit`,
		}
		live.await(want[len(want)-2])
		live.end()
		for how, got := range map[string][]string{
			"live":     live.tape.lines(),
			"replayed": l.record(l.source(slot("replayed")), first.last(), l.head()).lines(),
		} {
			if !slices.Equal(got, want) {
				t.Errorf("%s:\n got %q\nwant %q", how, got, want)
			}
		}
	})
}
