package integration

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/headwaterdb/headwater/integration/programtest"
	"github.com/headwaterdb/headwater/integration/servers"
)

// A document is a Markdown file of the repository.
type document struct {
	name string // below the repository's root
	text string
}

const root = ".." // of the repository

// documents are all of them.
func documents(t *testing.T) []document {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "git", "-C", root, "ls-files", "--cached", "--others", "--exclude-standard", "*.md").Output()
	if err != nil {
		t.Fatalf("list the Markdown files: %v", err)
	}
	var docs []document
	for name := range strings.Lines(string(out)) {
		docs = append(docs, readDocument(t, strings.TrimSpace(name)))
	}
	if len(docs) < 4 {
		t.Fatalf("only %d Markdown files were found", len(docs))
	}
	return docs
}

func readDocument(t *testing.T, name string) document {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return document{name, string(b)}
}

var fence = regexp.MustCompile("(?ms)^( *)```(\\w*)\n(.*?)^ *```$")

// blocks are the fenced blocks in that language, without their indentation.
func (d document) blocks(language string) (out []string) {
	for _, m := range fence.FindAllStringSubmatch(d.text, -1) {
		if m[2] == language {
			out = append(out, strings.TrimPrefix(strings.ReplaceAll("\n"+m[3], "\n"+m[1], "\n"), "\n"))
		}
	}
	return out
}

// spans are the code spans outside of fenced blocks.
func (d document) spans() (out []string) {
	for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(fence.ReplaceAllString(d.text, ""), -1) {
		out = append(out, strings.Join(strings.Fields(m[1]), " "))
	}
	return out
}

// commands are what a reader would type: code spans, and the lines of shell blocks.
func (d document) commands() (out []string) {
	out = d.spans()
	for _, b := range d.blocks("sh") {
		for line := range strings.Lines(b) {
			line, _, _ = strings.Cut(line, " #")
			out = append(out, strings.TrimSpace(line))
		}
	}
	return out
}

// headwater runs the program and wants that exit code.
func headwater(t *testing.T, code int, args ...string) string {
	t.Helper()
	bin, err := programtest.Build()
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), bin, args...).CombinedOutput()
	got := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else if err != nil {
		t.Fatal(err)
	}
	if got != code {
		t.Errorf("headwater %s: exit code %d, want %d\n%s", strings.Join(args, " "), got, code, out)
	}
	return string(out)
}

// configurations are those of the document: the whole one, which is of PostgreSQL, and that
// with the sections source and tables of MySQL in place of its own.
func (d document) configurations(t *testing.T) (postgres, mysql string) {
	t.Helper()
	blocks := d.blocks("yaml")
	if len(blocks) != 2 {
		t.Fatalf("want a configuration, and its source and tables for MySQL, got %q", blocks)
	}
	sections := regexp.MustCompile(`(?s)source:\n.*\ntables: [^\n]*\n`)
	if !sections.MatchString(blocks[0]) || sections.ReplaceAllLiteralString(blocks[1], "") != "" {
		t.Fatalf("want one source and tables in each of %q", blocks)
	}
	return blocks[0], sections.ReplaceAllLiteralString(blocks[0], blocks[1])
}

func TestReadme_ConfigurationIsAccepted(t *testing.T) {
	t.Parallel()
	const secret = "${file:/etc/headwater/shop.password}"
	dir := t.TempDir()
	password := filepath.Join(dir, "password")
	if err := os.WriteFile(password, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "shop.yml")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	postgres, mysql := readDocument(t, "README.md").configurations(t)
	for _, text := range []string{postgres, mysql} {
		if strings.Count(text, secret) != 1 {
			t.Fatalf("want the password %s in\n%s", secret, text)
		}
		text = strings.Replace(text, secret, "${file:"+password+"}", 1)
		write(text)
		headwater(t, 0, "check", "--config", file, "--offline")
		write(text + "tabels: {}\n") // a check that accepts everything proves nothing
		headwater(t, 2, "check", "--config", file, "--offline")
	}
}

// A setup is what the steps of "Set up a pipeline" find and make in one kind of database.
type setup struct {
	execute func(statement string) // as the administrator, in the database shop
	config  string                 // the document's
	url     [2]string              // its url, and that of the server in its place
	topic   string                 // of the table orders
	metrics string                 // the beginning of names that only the other databases have
	// What the document has to set up and to remove, and what removes it when it does not say.
	prepare, remove string
}

// TestReadme_SetupWorks follows the steps of "Set up a pipeline" as the user that they make,
// who is no superuser.
func TestReadme_SetupWorks(t *testing.T) {
	t.Parallel()
	readme := readDocument(t, "README.md")
	sql := readme.blocks("sql")
	if len(sql) != 3 {
		t.Fatalf("want SQL that sets up each kind of database, and removes a pipeline of PostgreSQL, got %q", sql)
	}
	postgres, mysql := readme.configurations(t)
	t.Run("PostgreSQL", func(t *testing.T) {
		t.Parallel()
		pg := servers.Own(t).PostgresWith(servers.PostgresConfig{Version: "15"})
		mustExec(t, connect(t, pg.URL("postgres")), "CREATE DATABASE shop")
		conn := connect(t, pg.URL("shop"))
		readme.setUp(t, setup{
			execute: func(statement string) { mustExec(t, conn, statement) },
			config:  postgres,
			url:     [2]string{"postgres://headwater@127.0.0.1:5432/shop?sslmode=verify-full", strings.Replace(pg.URL("shop"), "postgres@", "headwater@", 1)},
			topic:   "shop.public.orders", metrics: "headwater_mysql_", prepare: sql[0], remove: sql[2],
		})
	})
	for product, start := range map[string]func(servers.For, servers.MySQLConfig) *servers.MySQL{
		"MySQL": servers.For.MySQLWith, "MariaDB": servers.For.MariaDBWith,
	} {
		t.Run(product, func(t *testing.T) {
			t.Parallel()
			ours := func(line string) bool { // whether it is said of the other one only
				other := map[string]string{"MySQL": "MariaDB", "MariaDB": "MySQL"}[product]
				return !strings.Contains(line, other+" only")
			}
			db := start(servers.Own(t), servers.MySQLConfig{Settings: readme.settings(t, product, ours)})
			statements(t, db, "CREATE DATABASE shop")
			prepare := ""
			for line := range strings.Lines(sql[1]) {
				if ours(line) {
					prepare += line
				}
			}
			readme.setUp(t, setup{
				execute: func(statement string) { statements(t, db, "USE shop", statement) },
				config:  mysql,
				url:     [2]string{"mysql://headwater@127.0.0.1:3306/?tls=verify-full", "mysql://headwater@" + db.Addr()},
				topic:   "shop.shop.orders", metrics: "headwater_postgres_", prepare: prepare, remove: "DROP USER headwater",
			})
		})
	}
}

// settings are those of the document's my.cnf, in place of worse ones.
func (d document) settings(t *testing.T, product string, ours func(line string) bool) map[string]string {
	t.Helper()
	blocks := d.blocks("ini")
	if len(blocks) != 1 {
		t.Fatalf("want one my.cnf, got %q", blocks)
	}
	worse := map[string]string{
		"binlog_format": "MIXED", "binlog_row_image": "MINIMAL", "binlog_row_metadata": "MINIMAL", "binlog_expire_logs_seconds": "60",
	}
	if product == "MySQL" {
		worse["gtid_mode"], worse["enforce_gtid_consistency"] = "OFF", "OFF"
	} else {
		worse["gtid_strict_mode"] = "OFF"
	}
	for line := range strings.Lines(blocks[0]) {
		name, value, ok := strings.Cut(line, "=")
		if value, _, _ = strings.Cut(value, "#"); ok && ours(line) {
			worse[strings.TrimSpace(name)] = strings.TrimSpace(value)
		}
	}
	return worse
}

// setUp follows the steps on a database of one kind.
func (d document) setUp(t *testing.T, s setup) {
	kafka, registry := servers.Own(t).KafkaWith(servers.KafkaConfig{Auth: true}), servers.Shared(t).Registry()
	grant(t, kafka, d, "alice") // nobody has a right that the document does not name
	execute := func(block string) {
		for statement := range strings.SplitSeq(block, ";") { // ALTER SYSTEM stands alone
			statement = regexp.MustCompile(`(?m)--.*$`).ReplaceAllString(statement, "")
			if strings.TrimSpace(statement) != "" {
				s.execute(statement)
			}
		}
	}
	execute("CREATE TABLE orders (id int PRIMARY KEY, item text); INSERT INTO orders VALUES (1, 'tea'), (2, 'cup'); CREATE TABLE audit_log (id int PRIMARY KEY)")
	execute(s.prepare)

	dir := t.TempDir()
	file, password := filepath.Join(dir, "shop.yml"), filepath.Join(dir, "password")
	text := s.config
	for _, replace := range [][2]string{
		s.url,
		{"/etc/headwater/shop.password", password},
		{"http://127.0.0.1:8081", registry.URL},
		{"{brokers: [\"127.0.0.1:9092\"]}", fmt.Sprintf("{brokers: [%q], sasl: {mechanism: PLAIN, username: alice, password: alice-secret}}", kafka.SASL[0])},
		{"127.0.0.1:8080", "127.0.0.1:0"},
		{"replication: 3", "replication: 1"}, // there is one broker
	} {
		if strings.Count(text, replace[0]) != 1 {
			t.Fatalf("%q is not in the configuration, or more than once:\n%s", replace[0], text)
		}
		text = strings.Replace(text, replace[0], replace[1], 1)
	}
	for name, content := range map[string]string{file: text, password: "…\n"} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if out := headwater(t, 0, "check", "--config", file); !strings.Contains(out, "\ndatabase: ok\n") {
		t.Errorf("check finds something in the database:\n%s", out)
	}
	topics := newTopics(t, kafka.Bootstrap, registry.URL)
	held := func() (map[string]int, error) {
		tables := map[string]int{}
		err := topics.each(t.Context(), "shop", func(r *kgo.Record) error { tables[r.Topic]++; return nil })
		return tables, err
	}
	holds := func(records int) {
		t.Helper()
		tables, err := held()
		if want := map[string]int{s.topic: records}; err != nil || !maps.Equal(tables, want) {
			t.Errorf("the topics hold %v (%v), want %v", tables, err, want)
		}
	}
	headwater(t, 0, "snapshot", "--config", file)
	holds(2)

	p := newPipeline(t, text)
	p.start("run")
	execute("INSERT INTO orders VALUES (3, 'pot')")
	waitFor(t, p, 4*time.Minute, "the third row", func() (bool, error) {
		tables, err := held()
		return tables[s.topic] >= 3, err
	})
	for _, name := range regexp.MustCompile(`headwater_(?:[a-z]+_)+[a-z]+`).FindAllString(d.text, -1) {
		if strings.HasPrefix(name, s.metrics) {
			continue
		}
		waitFor(t, p, 4*time.Minute, "the metric "+name, func() (bool, error) {
			return listensAt.MatchString(p.output()) && strings.Contains(ask(t, p, "/metrics"), "\n"+name+"{"), nil
		})
	}
	p.stop()
	holds(3)

	cl, err := kgo.NewClient(kgo.SeedBrokers(kafka.Bootstrap...))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	admin := kadm.NewClient(cl)
	remove := func(topics ...string) {
		if _, err := admin.DeleteTopics(t.Context(), topics...); err != nil {
			t.Fatal(err)
		}
	}
	table := strings.TrimPrefix(s.topic, "shop.")
	headwater(t, 0, "checkpoint", "reread", "--config", file, table) // "Read a table again"
	headwater(t, 0, "snapshot", "--config", file)
	holds(6)
	headwater(t, 0, "checkpoint", "reset", "--config", file) // "Begin anew"
	headwater(t, 0, "snapshot", "--config", file)
	holds(9)
	remove("headwater.shop.checkpoint") // "The checkpoint topic was deleted"
	headwater(t, 4, "snapshot", "--config", file)
	headwater(t, 0, "snapshot", "--config", file, "--new")
	holds(12)
	remove(s.topic) // "A table's topic was deleted"
	headwater(t, 0, "checkpoint", "reset", "--config", file)
	headwater(t, 0, "snapshot", "--config", file)
	holds(3)
	remove("headwater.shop.checkpoint", s.topic)
	execute(s.remove)
}

// grant gives a user the rights that the lines of kafka-acls in the document name.
func grant(t *testing.T, kafka *servers.Kafka, d document, user string) {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(kafka.Bootstrap...))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	granted := 0
	for _, line := range d.commands() {
		words := strings.Fields(line)
		if words[0] != "kafka-acls" {
			continue
		}
		b := kadm.NewACLs().Allow("User:" + user).AllowHosts("*").ResourcePatternType(kadm.ACLPatternLiteral)
		var operations []kadm.ACLOperation
		for i, w := range words {
			switch w {
			case "--topic":
				b.Topics(words[i+1])
			case "--transactional-id":
				b.TransactionalIDs(words[i+1])
			case "--resource-pattern-type":
				b.ResourcePatternType(kadm.ACLPatternPrefixed)
			case "--operation":
				operation, err := kmsg.ParseACLOperation(words[i+1])
				if err != nil {
					t.Fatal(err)
				}
				operations = append(operations, operation)
			}
		}
		results, err := kadm.NewClient(cl).CreateACLs(t.Context(), b.Operations(operations...))
		for _, r := range results {
			err = errors.Join(err, r.Err)
			granted++
		}
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
	}
	if granted != 9 {
		t.Fatalf("%d rights were granted, README.md names 9", granted)
	}
}

// TestReadme_ServiceFitsTheUnit: the user, the program and the files that the unit wants are
// those that the steps make, and the user may read them.
func TestReadme_ServiceFitsTheUnit(t *testing.T) {
	t.Parallel()
	unit := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^(\w+)=(.*)$`).FindAllStringSubmatch(readDocument(t, "cmd/headwater/etc/headwater@.service").text, -1) {
		unit[m[1]] = m[2]
	}
	readme := readDocument(t, "README.md")
	i := slices.IndexFunc(readme.blocks("sh"), func(b string) bool { return strings.Contains(b, "systemctl") })
	if i < 0 {
		t.Fatal("README.md has no block with systemctl")
	}
	block := readme.blocks("sh")[i]
	start := strings.Fields(unit["ExecStart"])
	config := strings.Replace(start[len(start)-1], "%i", "shop", 1)
	for _, want := range []string{
		"useradd --system " + unit["User"] + "\n",
		"install -m 755 bin/headwater " + start[0] + "\n",
		"install -D -g " + unit["Group"] + " -m 640 shop.yml shop.password -t " + filepath.Dir(config) + "\n",
		"systemctl enable --now headwater@shop\n",
	} {
		if !strings.Contains(block, want) {
			t.Errorf("%q is not in\n%s", want, block)
		}
	}
	if filepath.Base(config) != "shop.yml" || !strings.Contains(readme.blocks("yaml")[0], filepath.Dir(config)+"/shop.password") {
		t.Errorf("the unit reads %s, README.md puts shop.yml and shop.password elsewhere", config)
	}
}

func TestReadme_ExitCodesAreThoseOfTheProgram(t *testing.T) {
	t.Parallel()
	var readme, program []string
	for _, m := range regexp.MustCompile(`(?m)^\| (\d+) \| (.+) \|$`).FindAllStringSubmatch(readDocument(t, "README.md").text, -1) {
		readme = append(readme, m[1]+" "+m[2])
	}
	for _, m := range regexp.MustCompile(`(?m)^ +(\d+)  (.+)$`).FindAllStringSubmatch(headwater(t, 0, "help", "exit-codes"), -1) {
		program = append(program, m[1]+" "+m[2])
	}
	if len(program) < 5 || !slices.Equal(readme, program) {
		t.Errorf("README.md says\n  %s\nthe program says\n  %s", strings.Join(readme, "\n  "), strings.Join(program, "\n  "))
	}
}

func TestReadme_CommandsExist(t *testing.T) {
	t.Parallel()
	found := 0
	for _, d := range documents(t) {
		for _, c := range d.commands() {
			args, ok := strings.CutPrefix(c, "headwater ")
			if !ok {
				continue
			}
			found++
			if err := checkCommand(t, strings.Fields(args)); err != nil {
				t.Errorf("%s names `%s`: %v", d.name, c, err)
			}
		}
	}
	if found < 5 {
		t.Errorf("only %d commands were found", found)
	}
	for _, wrong := range []string{"replay", "checkpoint steal", "run --backwards"} {
		if checkCommand(t, strings.Fields(wrong)) == nil {
			t.Errorf("headwater %s passes", wrong)
		}
	}
}

// checkCommand says whether the program's help knows the commands and flags of a command
// line. What follows them, such as a topic, is not looked at.
func checkCommand(t *testing.T, args []string) error {
	t.Helper()
	var path []string
	help := headwater(t, 0, "--help")
	for len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		_, list, group := strings.Cut(help, "Available Commands:\n")
		if !group {
			break
		}
		list, _, _ = strings.Cut(list, "\n\n")
		if !regexp.MustCompile(`(?m)^  ` + regexp.QuoteMeta(args[0]) + ` `).MatchString(list) {
			return fmt.Errorf("there is no command %q", strings.Join(append(path, args[0]), " "))
		}
		path, args = append(path, args[0]), args[1:]
		help = headwater(t, 0, append(slices.Clone(path), "--help")...)
	}
	for _, a := range args {
		if flag, _, _ := strings.Cut(a, "="); strings.HasPrefix(flag, "-") && !regexp.MustCompile(regexp.QuoteMeta(flag)+`\b`).MatchString(help) {
			return fmt.Errorf("there is no flag %s", flag)
		}
	}
	return nil
}

func TestReadme_MakeTargetsExist(t *testing.T) {
	t.Parallel()
	makefile := readDocument(t, "Makefile").text
	documented := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^([a-z-]+):.*## \S`).FindAllStringSubmatch(makefile, -1) {
		documented[m[1]] = true
	}
	m := regexp.MustCompile(`(?m)^\.PHONY: (.+)$`).FindStringSubmatch(makefile)
	if m == nil {
		t.Fatal("the Makefile has no .PHONY")
	}
	for _, target := range strings.Fields(m[1]) {
		if !documented[target] {
			t.Errorf("the target %s has no line in `make help`", target)
		}
		delete(documented, target)
	}
	for target := range documented {
		t.Errorf("the target %s is not .PHONY", target)
	}
	found := 0
	for _, d := range documents(t) {
		for _, c := range d.commands() {
			args := strings.Fields(c)
			if len(args) < 2 || args[0] != "make" {
				continue
			}
			found++
			if !slices.Contains(strings.Fields(m[1]), args[1]) {
				t.Errorf("%s names `%s`: there is no such target", d.name, c)
			}
		}
	}
	if found < 3 {
		t.Errorf("only %d calls of make were found", found)
	}
}

// built is what is named in commands and made by them.
var built = []string{"bin/headwater"}

// place looks like a file or folder of the repository: a path without a root.
var place = regexp.MustCompile(`^[\w.@-]+(/[\w.@-]+)+/?$`)

func TestReadme_PlacesExist(t *testing.T) {
	t.Parallel()
	first := map[string]bool{} // names in the root: only paths that begin with one can be meant
	entries, err := os.ReadDir(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		first[e.Name()] = true
	}
	found := 0
	for _, d := range documents(t) {
		for _, c := range d.commands() {
			for _, word := range strings.Fields(c) {
				begin, _, _ := strings.Cut(word, "/")
				if !place.MatchString(word) || !first[begin] || slices.Contains(built, word) {
					continue
				}
				found++
				if _, err := os.Stat(filepath.Join(root, word)); err != nil {
					t.Errorf("%s names %s, which is not there", d.name, word)
				}
			}
		}
	}
	if found < 10 {
		t.Errorf("only %d places were found", found)
	}
}

func TestReadme_LinksResolve(t *testing.T) {
	t.Parallel()
	docs := documents(t)
	found := 0
	for _, d := range docs {
		for _, m := range regexp.MustCompile(`\]\(([^)\s]+)\)`).FindAllStringSubmatch(fence.ReplaceAllString(d.text, ""), -1) {
			found++
			if err := checkLink(docs, d.name, m[1]); err != nil {
				t.Errorf("%s: the link %s: %v", d.name, m[1], err)
			}
		}
	}
	if found < 3 {
		t.Errorf("only %d links were found", found)
	}
	for _, wrong := range []string{"NOWHERE.md", "README.md#nowhere", "http://example.com/"} {
		if checkLink(docs, "README.md", wrong) == nil {
			t.Errorf("the link %s passes", wrong)
		}
	}
}

// checkLink says whether a link leads to a file, and to a heading where it names one.
// Other sites are not asked.
func checkLink(docs []document, from, link string) error {
	if strings.Contains(link, "://") {
		if !strings.HasPrefix(link, "https://") {
			return errors.New("it is not encrypted")
		}
		return nil
	}
	file, anchor, _ := strings.Cut(link, "#")
	target := from
	if file != "" {
		target = filepath.Join(filepath.Dir(from), file)
	}
	if _, err := os.Stat(filepath.Join(root, target)); err != nil {
		return errors.New("there is no such file")
	}
	if anchor == "" {
		return nil
	}
	for _, d := range docs {
		if d.name == target && slices.Contains(d.anchors(), anchor) {
			return nil
		}
	}
	return errors.New("there is no such heading")
}

// anchors are the names that a document's headings get: lower case, without punctuation,
// hyphens for spaces.
func (d document) anchors() (out []string) {
	for _, m := range regexp.MustCompile(`(?m)^#+ (.+)$`).FindAllStringSubmatch(fence.ReplaceAllString(d.text, ""), -1) {
		out = append(out, strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case unicode.IsLetter(r), unicode.IsDigit(r), r == '-', r == '_':
				return unicode.ToLower(r)
			}
			return -1
		}, m[1]))
	}
	return out
}
