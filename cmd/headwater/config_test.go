package main

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
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
	for _, want := range []string{"name: missing", "source.postgres: missing", "topics.prefix: missing", "kafka.brokers is missing", "registry.url"} {
		if !strings.Contains(all, want) {
			t.Errorf("%q is not reported in\n%s", want, all)
		}
	}
}

func TestConfig_BrokenFilesGetASentence(t *testing.T) {
	for name, text := range map[string]string{
		"empty":             "",
		"no YAML":           "name: [shop\n",
		"a list":            "- name: shop\n",
		"a text":            "shop\n",
		"twice":             "name: a\nname: b\n",
		"two documents":     small + "---\nname: other\n",
		"a section as text": "name: shop\nsource: postgres\n",
	} {
		if _, problems := parseConfig([]byte(text)); len(problems) == 0 {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestConfig_SecretsComeFromFilesAndEnvironment(t *testing.T) {
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte("from a file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SHOP_PASSWORD", "from the environment")
	text := strings.Replace(small, `shop"}`, `shop", password: "${file:`+file+`}"}`, 1)
	text = strings.Replace(text, `9092"]}`, `9092"], sasl: {mechanism: PLAIN, username: u, password: "${env:SHOP_PASSWORD}"}}`, 1)
	cfg, problems := parseConfig([]byte(text))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	if cfg.Source.Postgres.Password != "from a file" || string(cfg.Kafka.SASL.Password) != "from the environment" {
		t.Errorf("got %q and %q", cfg.Source.Postgres.Password, string(cfg.Kafka.SASL.Password))
	}
	_, problems = parseConfig([]byte(strings.Replace(small, `shop"}`, `shop", password: "${env:NOT_SET_ANYWHERE}"}`, 1)))
	if len(problems) != 1 || !strings.Contains(problems[0].text, "NOT_SET_ANYWHERE is not set") || problems[0].line != 3 {
		t.Errorf("a missing variable: %v", problems)
	}
}

func TestConfig_ValuesAreTakenAsTheyAreWritten(t *testing.T) {
	for text, want := range map[string]string{
		`12345`: "12345", `0123`: "0123", `0x10`: "0x10", `1.50`: "1.50", `true`: "true", `'a: b'`: "a: b", `~`: "", `""`: "",
		`!!str 5`: "5", `&b b`: "b", "|\n    two\n    lines\n": "two\nlines\n", `"${env:MARK}-${env:MARK}"`: "${env:x}-${env:x}",
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
		"log: &l {level: info}\nhttp: *l":          "http: want a section with listen",
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
	plain, problems := parseConfig([]byte(reference))
	if len(problems) > 0 {
		t.Fatalf("the reference does not load: %v", problems)
	}
	full := regexp.MustCompile(`(?m)^(\s*)# ([a-z_.]+:)( |$)`).ReplaceAllString(reference, "$1$2$3")
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
		c.Tables.Include, c.Tables.Exclude, c.Source.Postgres.Tables.Include, c.Source.Postgres.Tables.Exclude = nil, nil, nil, nil
	}
	spelled.Topics.Delimiter, spelled.Topics.Partitions = plain.Topics.Delimiter, plain.Topics.Partitions
	if !reflect.DeepEqual(plain, spelled) {
		t.Errorf("a default in the reference differs:\n%#v\n%#v", plain, spelled)
	}
	for _, key := range keysOf(reflect.TypeFor[Config](), "") {
		name := key[strings.LastIndexByte(key, '|')+1:]
		if !regexp.MustCompile(`(?m)^\s*(# )?` + regexp.QuoteMeta(name) + `:`).MatchString(reference) {
			t.Errorf("%s is not in the reference", key)
		}
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
