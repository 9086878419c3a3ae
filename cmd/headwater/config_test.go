package main

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/headwaterdb/headwater/capture"
)

const small = `name: shop
source:
  postgres: {url: "postgres://headwater@127.0.0.1:5432/shop"}
topics: {prefix: shop}
registry: {url: "http://127.0.0.1:8081"}
kafka: {brokers: ["127.0.0.1:9092"]}
`

func TestConfig_AFewLinesAreEnough(t *testing.T) {
	cfg, problems := parseConfig([]byte(small))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	if p := cfg.Source.Postgres; p.Slot != "headwater_shop" || p.Publication != "headwater_shop" {
		t.Errorf("slot %q, publication %q", p.Slot, p.Publication)
	}
	if cfg.Kafka.Topics.Partitions != 6 || cfg.Delivery != "exactly-once" || cfg.Snapshot.Mode != "initial" {
		t.Errorf("defaults: %+v", cfg)
	}
}

// What may come again is named (publish/DESIGN.md, "At least once").
func TestConfig_RecordsThatMayComeAgainNameTheirPositions(t *testing.T) {
	for text, want := range map[string]bool{
		"":                          false,
		"delivery: exactly-once\n":  false,
		"delivery: at-least-once\n": true,
		"delivery: at-least-once\nformat: {position.header.enabled: false}\n": false,
		"format: {position.header.enabled: true}\n":                           true,
	} {
		cfg, problems := parseConfig([]byte(small + text))
		if len(problems) > 0 || *cfg.Format.Positions != want {
			t.Errorf("%q: the header is %t, want %t: %v", text, *cfg.Format.Positions, want, problems)
		}
	}
}

func TestConfig_AllMistakesAreReportedAtOnceWithTheirLines(t *testing.T) {
	_, problems := parseConfig([]byte(`name: Shop
source:
  postgres:
    url: "postgres://headwater@127.0.0.1:5432/shop"
    slott: x
    heartbeat_interval: soon
topics: {prefix: "a b", partitions: many}
snapshot: {mode: sometimes}
format:
  decimal.handling.mode: exact
registry: {url: "http://127.0.0.1:8081"}
kafka:
  brokers: ["localhost"]
  topics: {partitions: 3}
http: {listen: "8080"}
`))
	want := map[int]string{
		1:  `name is "Shop"`,
		5:  `source.postgres.slott: unknown key; known here: url, `,
		6:  `source.postgres.heartbeat_interval: want a duration such as 100ms`,
		7:  `topics.partitions: want a whole number`,
		8:  `snapshot.mode is "sometimes"`,
		10: `format.decimal.handling.mode: "exact" is not one of precise, double, string`,
		13: `kafka.brokers: "localhost" is not host:port`,
		14: `kafka.topics: unknown key; it is topics at the top`,
		15: `http.listen: "8080" is not host:port`,
	}
	for line, text := range want {
		found := false
		for _, p := range problems {
			found = found || p.line == line && strings.HasPrefix(p.text, text)
		}
		if !found {
			t.Errorf("line %d: %s: not reported", line, text)
		}
	}
	if n := len(want) + 1; len(problems) != n { // line 7 has two: the prefix, too
		t.Errorf("%d problems, want %d", len(problems), n)
	}
	for _, p := range problems {
		t.Logf("%d: %s", p.line, p.text)
	}
}

func TestConfig_WhatIsMissingIsNamed(t *testing.T) {
	_, problems := parseConfig([]byte("log: {level: info}\n"))
	all := ""
	for _, p := range problems {
		all += p.text + "\n"
	}
	for _, want := range []string{"name: missing", "source: it names no database", "topics.prefix: missing", "kafka.brokers is missing", "registry.url"} {
		if !strings.Contains(all, want) {
			t.Errorf("%q is not reported in\n%s", want, all)
		}
	}
}

func TestConfig_OneMistakeIsReportedOnce(t *testing.T) {
	for from, to := range map[string]string{
		"name: shop":  "name: Shop One", // which slot and publication are called by
		"postgres://": "mysql://",
	} {
		if _, problems := parseConfig([]byte(strings.Replace(small, from, to, 1))); len(problems) != 1 {
			t.Errorf("%s: %v", to, problems)
		}
	}
}

func TestConfig_BrokenFilesGetASentence(t *testing.T) {
	const login = "source:\n  postgres:\n    password: "
	for name, c := range map[string]struct{ text, want string }{
		"Empty":            {"", "it is empty; `headwater config` prints what it can hold"},
		"Comments":         {"# later\n", "it is empty; `headwater config` prints what it can hold"},
		"Null":             {"~", "it is empty; `headwater config` prints what it can hold"},
		"OpenList":         {"name: [shop\n", "1: it is not YAML: sequence end token ']' not found; put"},
		"List":             {"- name: shop\n", "1: the file: want a section with name, source, "},
		"Page":             {"<html>not found</html>", "1: the file: want a section with name, source, "},
		"Twice":            {small + "name: b\n", "7: name: it stands in line 1 already"},
		"SectionTwice":     {small + "topics: {partitions: 3}\n", "7: topics: it stands in line 4 already"},
		"TwoDocuments":     {small + "---\nname: other\n", "8: one file describes one pipeline; a second document begins here"},
		"Tab":              {"name: shop\ntopics:\n\tprefix: shop\n", "3: it is not YAML: a tab stands at the beginning; indent with spaces"},
		"UTF16":            {"\xff\xfen\x00a\x00", "1: it is no text in UTF-8"},
		"Latin1":           {"name: shop\n# caf\xe9\n", "2: it is no text in UTF-8"},
		"Binary":           {"\x7fELF\x02\x01\x00\x00", "1: it is no text in UTF-8"},
		"Anchor":           {strings.Replace(small, "name: ", "name: &n ", 1), "1: name: an anchor (&…) is not supported"},
		"Alias":            {small + "log: {level: *n}\n", "7: log.level: an alias (*…) is not supported"},
		"SectionAlias":     {small + "log: *n\n", "7: log: an alias (*…) is not supported"},
		"ListWithAlias":    {small + "tables: {include: [*n]}\n", "7: tables.include: an alias (*…) is not supported"},
		"Tag":              {small + "log: !include log.yml\n", "7: log: a tag (!…) is not supported"},
		"Merge":            {small + "log: {<<: {level: info}}\n", "7: log: something stands here that is no key; known here: level, format"},
		"Brackets":         {strings.Repeat("[", 20_000), "1: it is nested more than 20 deep"},
		"Entries":          {strings.Repeat("- ", 20_000), "1: it is nested more than 20 deep"},
		"Keys":             {strings.Repeat("a: b\n", 20_000), "1001: it has more than 1000 keys"},
		"PasswordAnchor":   {login + "&" + marked + "\n    url: x\n", "3: source.postgres.password: an anchor (&…) is not supported; write the value itself, and put text that begins with & into quotes"},
		"PasswordAlias":    {login + "*" + marked, "3: source.postgres.password: an alias (*…)"},
		"PasswordTag":      {login + "!" + marked, "3: source.postgres.password: a tag (!…)"},
		"PasswordBlock":    {login + "|" + marked, "3: it is not YAML: invalid header option: …; put text that holds special characters into quotes"},
		"PasswordSection":  {login + "{" + marked + "}", "3: source.postgres.password: want text, in quotes"},
		"PasswordList":     {login + "[" + marked + "]", "3: source.postgres.password: want text, in quotes"},
		"PasswordColon":    {login + "a: " + marked, "3: it is not YAML: mapping value is not allowed in this context; put"},
		"PasswordQuote":    {login + "\"" + marked, "3: it is not YAML: could not find end character of double-quoted text; put"},
		"PasswordTick":     {login + "`" + marked, "3: it is not YAML: '`' is a reserved character; put"},
		"PasswordNoSpace":  {small + "password:" + marked + ":\n", "7: the file: something stands here that is no key"},
		"PasswordInBroker": {strings.Replace(small, "127.0.0.1:9092", "u:"+marked+"@127.0.0.1:9092", 1), "6: kafka.brokers: address 1 holds a login; set kafka.sasl instead"},
		"PasswordInURL":    {strings.Replace(small, "headwater@127.0.0.1:5432", "headwater:"+marked+"@127.0.0.1:x", 1), "3: source.postgres.url: it cannot be read as a PostgreSQL address"},
		"LoginInRegistry":  {strings.Replace(small, "http://", "http://u:"+marked+"@", 1), "5: registry.url: address 1 holds a login; set username and password instead"},
		"OpenReference":    {strings.Replace(small, "headwater@", "headwater:${env:PASSWORD@", 1), "3: source.postgres.url: it holds a ${ without its }"},
		"SettingTwice":     {strings.Replace(small, "prefix: shop", "prefix: shop, settings: {a: 1, a: 2}", 1), `4: topics.settings: "a" stands in it twice`},
		"ColumnGlob":       {small + "columns:\n  include: [\"public.*.*\"]\n  exclude: [\"users.ssn\"]\n", `9: columns.exclude: "users.ssn" has not two dots; want schema.table.column, such as "public.users.password*"`},
		"ColumnsKey":       {small + "columns:\n  excluded: [\"public.users.ssn\"]\n", "8: columns.excluded: unknown key; known here: include, exclude"},
		"ColumnsElsewhere": {strings.Replace(small, "shop\"}", "shop\", columns: {}}", 1), "3: source.postgres.columns: unknown key; known here"},
		"SectionAsText":    {"name: shop\nsource: postgres\n", "2: source: want a section with postgres"},
	} {
		t.Run(name, func(t *testing.T) {
			_, problems := parseConfig([]byte(c.text))
			var all strings.Builder
			for _, p := range problems {
				if p.line > 0 {
					fmt.Fprintf(&all, "%d: ", p.line)
				}
				fmt.Fprintln(&all, p.text)
			}
			if !strings.Contains("\n"+all.String(), "\n"+c.want) || strings.Contains(all.String(), marked) {
				t.Errorf("got\n%swant\n%s", all.String(), c.want)
			}
		})
	}
}

// FuzzConfig: whatever the file holds, it is a configuration, or there are sentences that
// say why not, before long.
func FuzzConfig(f *testing.F) {
	f.Add([]byte(small))
	for _, source := range []string{"postgres", "mysql"} {
		text, err := referenceFor(source)
		if err != nil {
			f.Fatal(err)
		}
		f.Add([]byte(text))
	}
	f.Add([]byte("\ufeff" + small))
	for _, costly := range []string{"[", "{a: ", "- ", "a: b\n", "a:\n ", "? a\n"} {
		f.Add([]byte(strings.Repeat(costly, 20_000)))
	}
	f.Add([]byte("a: &a [*a, !!b c]\n? [d]\n: |\n  e\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		cfg, problems := parseConfig(text)
		if len(problems) == 0 && (cfg.Name == "" || cfg.Source == (SourceConfig{}) || len(cfg.Kafka.Brokers) == 0) {
			t.Errorf("accepted without what must be there: %+v", cfg)
		}
		for _, p := range problems {
			if p.text == "" || strings.Contains(p.text, "\n") || p.line < 0 {
				t.Errorf("line %d: no sentence: %q", p.line, p.text)
			}
		}
	})
}

func TestConfig_SecretsComeFromFilesAndEnvironment(t *testing.T) {
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte("from a file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SHOP_PASSWORD", "from the environment\n")
	text := strings.Replace(small, `shop"}`, `shop", password: "${file:`+file+`}"}`, 1)
	text = strings.Replace(text, `9092"]}`, `9092"], sasl: {mechanism: PLAIN, username: u, password: "${env:SHOP_PASSWORD}"}}`, 1)
	cfg, problems := parseConfig([]byte(text))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	if string(cfg.Source.Postgres.Password) != "from a file" || string(cfg.Kafka.SASL.Password) != "from the environment" {
		t.Errorf("got %q and %q", string(cfg.Source.Postgres.Password), string(cfg.Kafka.SASL.Password))
	}
	_, problems = parseConfig([]byte(strings.Replace(small, `shop"}`, `shop", password: "${env:NOT_SET_ANYWHERE}"}`, 1)))
	if len(problems) != 1 || !strings.Contains(problems[0].text, "NOT_SET_ANYWHERE is not set") || problems[0].line != 3 {
		t.Errorf("a missing variable: %v", problems)
	}
}

func TestConfig_ValuesAreTakenAsTheyAreWritten(t *testing.T) {
	for text, want := range map[string]string{
		`12345`: "12345", `0123`: "0123", `0x10`: "0x10", `1.50`: "1.50", `true`: "true", `'a: b'`: "a: b", `~`: "", `""`: "",
		"|\n    two\n    lines\n": "two\nlines\n", `"${env:MARK}-${env:MARK}"`: "${env:x}-${env:x}",
	} {
		t.Setenv("MARK", "${env:x}") // what stands in a secret is not looked at again
		cfg, problems := parseConfig([]byte(small + "log: {level: info}\nformat:\n  unavailable.value.placeholder: " + text + "\n"))
		if want == "" {
			want = "__debezium_unavailable_value" // as if it were not there
		}
		if len(problems) > 0 || cfg.Format.Placeholder != want {
			t.Errorf("%s: %q, %v", text, cfg.Format.Placeholder, problems)
		}
	}
	for text, want := range map[string]string{
		"topics: {prefix: x, partitions: 1.5}":     "topics.partitions: want a whole number",
		"topics: {prefix: x, partitions: 0x10}":    "topics.partitions: want a whole number",
		"topics: {prefix: x, replication: 99999}":  "topics.replication: want a whole number",
		"topics: {prefix: x, create: maybe}":       "topics.create: want true or false",
		"topics: {prefix: x, create: 1}":           "topics.create: want true or false",
		"topics: {prefix: x, settings: {a: [b]}}":  "topics.settings: want a section of names and values",
		"topics: {prefix: x, settings: retention}": "topics.settings: want a section of names and values",
		"tables: {include: public.*}":              `tables.include: want a list such as ["a", "b"]`,
		"tables: {include: [[a]]}":                 `tables.include: want a list such as ["a", "b"]`,
		"publish: {silence: 5}":                    "publish.silence: want a duration such as 100ms",
		"log: {level: [info]}":                     "log.level: want text",
		`log: {level: "${evn:LEVEL}"}`:             "log.level: it holds a ${…} that is neither ${env:NAME} nor ${file:PATH}",
		"log: {level: info, level: warn}":          "already",
		`log: {"level": info, ? [a] : b}`:          "it is not YAML",
	} {
		base := small
		if strings.HasPrefix(text, "topics:") {
			base = strings.Replace(small, "topics: {prefix: shop}\n", "", 1)
		}
		_, problems := parseConfig([]byte(base + text + "\n"))
		if len(problems) != 1 || !strings.Contains(problems[0].text, want) {
			t.Errorf("%s: %v, want %q", text, problems, want)
		}
	}
}

// The reference must be the truth: it loads as it is, and with every "# key: value"
// taken out of its comment it gives the same configuration.
func TestReference_ShowsEveryKeyWithItsDefault(t *testing.T) {
	sections := map[string]string{"postgres": "postgres", "mysql": "mysql", "mariadb": "mysql"}
	for source, section := range sections {
		t.Run(source, func(t *testing.T) {
			text, err := referenceFor(source)
			if err != nil {
				t.Fatal(err)
			}
			if strings.Count(text, "\nsource:\n  "+section+":") != 1 {
				t.Errorf("it has no section source.%s", section)
			}
			checkReference(t, text)
			for _, key := range keysOf(reflect.TypeFor[Config](), "") {
				name := key[strings.LastIndexByte(key, '|')+1:]
				if strings.HasPrefix(key, "|source|") && !strings.HasPrefix(key, "|source|"+section) {
					continue
				}
				if !regexp.MustCompile(`(?m)^\s*(# )?` + regexp.QuoteMeta(name) + `:`).MatchString(text) {
					t.Errorf("%s is not in the reference", key)
				}
			}
		})
	}
	if text, err := referenceFor("oracle"); exitCode(err) != exitUsage || text != "" {
		t.Errorf("a source that there is not: %v", err)
	}
}

func checkReference(t *testing.T, text string) {
	t.Helper()
	plain, problems := parseConfig([]byte(text))
	if len(problems) > 0 {
		t.Fatalf("the reference does not load: %v", problems)
	}
	full := regexp.MustCompile(`(?m)^(\s*)# ([a-z_.]+:)( |$)`).ReplaceAllString(text, "$1$2$3")
	spelled, problems := parseConfig([]byte(full))
	if len(problems) > 0 {
		t.Fatalf("with every key spelled out: %v", problems)
	}
	if spelled.Kafka.Topics.Replication != 3 || spelled.Kafka.CheckpointReplication != 3 {
		t.Errorf("replication %d and %d", spelled.Kafka.Topics.Replication, spelled.Kafka.CheckpointReplication)
	}
	// These three say "or the number of brokers": their default is decided at the brokers.
	spelled.Topics.Replication, spelled.Kafka.Topics.Replication, spelled.Kafka.CheckpointReplication = plain.Topics.Replication, plain.Kafka.Topics.Replication, plain.Kafka.CheckpointReplication
	for _, c := range []*Config{plain, spelled} { // pointers and empty collections of one meaning
		c.Topics.Create, c.Kafka.Topics.Create = nil, nil
		c.Topics.Settings, c.Kafka.Topics.Settings = nil, nil
		c.Tables, c.Columns = capture.Tables{}, capture.Columns{}
		if p := c.Source.Postgres; p != nil {
			p.Tables = capture.Tables{}
		}
		if m := c.Source.MySQL; m != nil {
			m.Tables = capture.Tables{}
		}
	}
	spelled.Topics.Delimiter, spelled.Topics.Partitions = plain.Topics.Delimiter, plain.Topics.Partitions
	if !reflect.DeepEqual(plain, spelled) {
		t.Errorf("a default in the reference differs:\n%#v\n%#v", plain, spelled)
	}
}

func keysOf(t reflect.Type, path string) (keys []string) {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct {
		return nil
	}
	for i := range t.NumField() {
		f := t.Field(i)
		tag, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		if tag == "" || tag == "-" {
			continue
		}
		keys = append(keys, path+"|"+tag)
		keys = append(keys, keysOf(f.Type, path+"|"+tag)...)
	}
	return keys
}
