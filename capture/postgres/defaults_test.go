package postgres

import (
	"fmt"
	"testing"

	"github.com/headwaterdb/headwater/capture"
)

// Defaults, as DDL and as the definition shows them: "none", "zero" or the literal.
var defaultCases = []struct{ column, want string }{
	{"serial", "zero"},
	{"bigserial", "zero"},
	{"bigint GENERATED ALWAYS AS IDENTITY", "none"},
	{"int", "none"},
	{"int DEFAULT 1+1", "none"},
	{"int DEFAULT NULL", "none"},
	{"int NOT NULL DEFAULT -5", "int:-5"},
	{"int DEFAULT -2147483648", "int:-2147483648"},
	{"bigint DEFAULT 9223372036854775807", "int:9223372036854775807"},
	{"bigint DEFAULT -9223372036854775808", "int:-9223372036854775808"},
	{"smallint DEFAULT 42", "int:42"},
	{"int DEFAULT 2.5", "int:3"},
	{"int DEFAULT -2.5", "int:-3"},
	{"int DEFAULT '7'", "int:7"},
	{"int DEFAULT length('abc')", "zero"},
	{"boolean DEFAULT true", "true"},
	{"boolean NOT NULL DEFAULT false", "false"},
	{"boolean DEFAULT (NOT true)", "none"},
	{"boolean DEFAULT ('a'::text IS NULL)", "none"},
	{"text DEFAULT 'it''s'", `"it's"`},
	{"text DEFAULT ''", `""`},
	{`text DEFAULT E'a\\b\n'`, `"a\\b\n"`},
	{"text DEFAULT '::int'", `"::int"`},
	{"text DEFAULT lower('ABC')", "zero"},
	{"text DEFAULT lower('a)''(')::text", "zero"},
	{"text DEFAULT 'a' || 'b'", "none"},
	{"text DEFAULT current_user", "zero"},
	{"text DEFAULT session_user", "zero"},
	{"text DEFAULT current_schema", "zero"},
	{"text DEFAULT 5", `"5"`},
	{"varchar(3) DEFAULT NULL", "none"},
	{"varchar(5) DEFAULT '日本'", `"日本"`},
	{"char(10) DEFAULT 'abc'", `"abc"`},
	{`text COLLATE "C" DEFAULT ('x' COLLATE "C")`, `"x"`},
	{"timestamptz DEFAULT now()", "zero"},
	{"timestamptz DEFAULT current_timestamp(3)", "zero"},
	{"timestamptz DEFAULT now() + '1 day'::interval", "none"},
	{"timestamp DEFAULT (now() AT TIME ZONE 'utc')", "zero"},
	{"timestamptz DEFAULT '2020-01-01 00:00:00+02'", "timestamptz:1577829600000000"},
	{"timestamptz(0) DEFAULT '2024-02-29 12:34:56.789012+00'", "timestamptz:1709210096789012"},
	{"timestamp DEFAULT '2020-01-01 00:00:00'", "timestamp:1577836800000000"},
	{"timestamp DEFAULT 'infinity'", "timestamp:9223372036854775807"},
	{"date DEFAULT CURRENT_DATE", "zero"},
	{"date DEFAULT '2021-01-01'", "date:18628"},
	{"date DEFAULT '0044-03-15 BC'", "date:-735160"},
	{"date DEFAULT ('now'::text)::date", "none"},
	{"time DEFAULT '24:00:00'", "time:86400000000"},
	{"time(1) DEFAULT '12:34:56.789012'", "time:45296789012"},
	{"interval DEFAULT '1 day'", "interval:0mon 1d 0us"},
	{"interval day to second(3) DEFAULT '3 04:05:06.789'", "interval:0mon 3d 14706789000us"},
	{"numeric(10,2) DEFAULT 12.5", "decimal:12.5"},
	{"numeric(5,2) DEFAULT -1.005", "decimal:-1.01"},
	{"numeric(5,2) DEFAULT 'NaN'", "none"},
	{"numeric(3,0) DEFAULT 0.5", "decimal:1"},
	{"real DEFAULT 1.5", "float:1.5"},
	{"real DEFAULT -0.0", "float:0"},
	{"double precision DEFAULT 1e100", "float:1e+100"},
	{"double precision DEFAULT 'NaN'", "none"},
	{"double precision DEFAULT '-Infinity'", "none"},
	{"double precision DEFAULT random()", "zero"},
	{"bit(3) DEFAULT B'101'", "0x05"},
	{"bit DEFAULT B'1'", "true"},
	{"bit varying(16) DEFAULT B'1'", "0x01"},
	{"uuid DEFAULT 'A0EEBC99-9c0b-4ef8-bb6d-6bb9bd380a11'", `"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"`},
	{"uuid DEFAULT gen_random_uuid()", "zero"},
	{"json DEFAULT '{ }'", `"{ }"`},
	{`jsonb DEFAULT '{"b": 1, "a":[1,2.50,null,true], "u":"\u00e9"}'`, `"{\"a\": [1, 2.50, null, true], \"b\": 1, \"u\": \"é\"}"`},
	{"jsonb DEFAULT jsonb_build_object()", "zero"},
	{"xml DEFAULT '<a/>'", `"<a/>"`},
	{"own.mood DEFAULT 'ok'", `"ok"`},
	{"own.mood DEFAULT 'very, happy'::own.mood", `"very, happy"`},
	// Types that show no default.
	{"numeric DEFAULT 3.14", "none"},
	{"money DEFAULT 5", "none"},
	{"oid DEFAULT 7", "none"},
	{`bytea DEFAULT '\x01'`, "none"},
	{"citext DEFAULT 'x'", "none"},
	{"name DEFAULT 'x'", "none"},
	{`"char" DEFAULT 'x'`, "none"},
	{"inet DEFAULT '10.0.0.1'", "none"},
	{"macaddr DEFAULT '08:00:2b:01:02:03'", "none"},
	{"int4range DEFAULT '[1,5)'", "none"},
	{"ltree DEFAULT 'a.b'", "none"},
	{"tsvector DEFAULT 'a'", "none"},
	{"isbn DEFAULT '978-0-393-04002-9'", "none"},
	{"hstore DEFAULT 'a=>1'", "none"},
	{"timetz DEFAULT '00:00+00'", "none"},
	{"timetz DEFAULT current_time", "none"},
	{"point DEFAULT '(1,2)'", "none"},
	{"int[] DEFAULT '{1,2}'", "none"},
	{"own.posint DEFAULT 5", "none"},
	{"own.zip2 DEFAULT 'x'", "none"},
	{"tsquery DEFAULT 'x'", "none"},
}

func TestDefaults_ShowWhatTheServerWouldStore(t *testing.T) {
	for _, version := range versions {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, version)
			b.exec(servedTypes)
			b.exec("CREATE TABLE t ()")
			for i, c := range defaultCases {
				b.exec(fmt.Sprintf("ALTER TABLE t ADD c%d %s", i, c.column))
			}
			for i, c := range b.define("t").table.Columns {
				got := map[capture.DefaultKind]string{capture.NoDefault: "none", capture.DefaultZero: "zero", capture.DefaultLiteral: c.Default.Value.String()}[c.Default.Kind]
				if got != defaultCases[i].want {
					t.Errorf("%s: %s, want %s; the server prints %s", defaultCases[i].column, got, defaultCases[i].want,
						b.ask(fmt.Sprintf("SELECT pg_get_expr(adbin, adrelid) FROM pg_attrdef WHERE adrelid = 't'::regclass AND adnum = %d", i+1)))
				}
			}
		})
	}
}

func FuzzDefault(f *testing.F) {
	for _, s := range []string{
		"'it''s'::text", "nextval('s'::regclass)", "(now() AT TIME ZONE 'utc'::text)", `E'a\nb'::"char"`, "B'101'::\"bit\"", "'-5'::integer",
		"NULL::character varying", "'x'::timestamp(3) without time zone", "(('a'::text COLLATE \"C\"))::own.mood[]", "CURRENT_TIMESTAMP(3)", "(((((",
	} {
		f.Add(s)
	}
	kinds := []relationColumn{{false, "a", oidInt4, -1}, {false, "a", oidText, -1}, {false, "a", oidNumeric, 4 + (5<<16 | 0x7fe)}, {false, "a", oidBit, 3}, {false, "a", oidInterval, -1}}
	f.Fuzz(func(_ *testing.T, s string) {
		for _, c := range kinds {
			types := typeMap{c.Type: {oid: c.Type, typtype: 'b', delimiter: ','}}
			r := types.resolve(c.Type, c.Modifier, "")
			a := attribute{relationColumn: c, expression: s}
			a.columnDefault(&r)
		}
	})
}
