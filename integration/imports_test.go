package integration

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/headwaterdb/headwater"

// An arrow allows the packages that match from (a path below the module, "…" for
// everything below) to import the packages that match to.
type arrow struct{ from, to, why string }

// arrows is the whole picture. What is not here is refused.
var arrows = []arrow{
	{"capture/…", "capture", "the readers speak the vocabulary"},
	{"capture/postgres", "snapshot", "the reader implements snapshot.Scanner"},
	{"capture/mysql", "snapshot", "the reader implements snapshot.Scanner"},
	{"snapshot", "capture", "a snapshot wraps a Source"},
	{"schema", "capture", "record schemas are made from table definitions"},
	{"schema/…", "schema", "a child may import its parent"},
	{"schema/…", "capture", "a child may import what its parent imports"},
	{"schema/avro", "publish", "the encoder implements publish.Encoder"},
	{"schema/avro", "checkpoint", "what publish imports; the encoder's notes are checkpoint entries"},
	{"checkpoint", "capture", "a checkpoint stores a Position"},
	{"checkpoint/topic", "checkpoint", "a child may import its parent"},
	{"checkpoint/topic", "capture", "a child may import what its parent imports"},
	{"publish", "checkpoint", "records and checkpoint are committed together"},
	{"publish", "capture", "the publisher carries batches"},
	{"publish/…", "publish", "the sink implements publish.Sink"},
	{"publish/…", "checkpoint", "a child may import what its parent imports"},
	{"publish/…", "capture", "a child may import what its parent imports"},
	{"cmd/headwater/…", "…", "pipeline.go is where concrete types meet; the demo starts its own server"},
	{"integration/…", "…", "tests of the whole may use all of it"},
}

// testArrows are allowed to test files in addition.
var testArrows = []arrow{
	{"…", "integration/servers", "a test starts the servers that it needs"},
	{"…", "capture/capturetest", "the contract suite and the scripted source are for tests"},
	{"…", "publish/publishtest", "the in-memory sink is for tests"},
	{"publish/kafka", "checkpoint/topic", "writing and reading back are one protocol, and are tested together"},
}

// neverBelow names what nobody may import outside cmd, integration and tests.
var neverBelow = []string{"cmd", "integration"}

func matches(pattern, path string) bool {
	if pattern == "…" {
		return true
	}
	if p, ok := strings.CutSuffix(pattern, "/…"); ok {
		return path == p || strings.HasPrefix(path, p+"/")
	}
	return pattern == path
}

func allowed(list []arrow, from, to string) bool {
	return slices.ContainsFunc(list, func(a arrow) bool { return matches(a.from, from) && matches(a.to, to) })
}

type listed struct {
	ImportPath                         string
	Imports, TestImports, XTestImports []string
}

func goList(t *testing.T) []listed {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports,TestImports,XTestImports", module+"/...")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []listed
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatalf("go list: %v", err)
		}
		all = append(all, p)
	}
}

func TestImports_PointOneWay(t *testing.T) {
	local := func(p string) (string, bool) { return strings.CutPrefix(p, module+"/") }
	packages := goList(t)
	if len(packages) < 8 {
		t.Fatalf("go list found %d packages only", len(packages))
	}
	for _, p := range packages {
		from, _ := local(p.ImportPath)
		for _, imp := range p.Imports {
			to, ok := local(imp)
			if !ok {
				if from == "capture" && strings.Contains(strings.SplitN(imp, "/", 2)[0], ".") {
					t.Errorf("capture imports %s: the vocabulary uses the standard library only, so that everybody can speak it", imp)
				}
				continue
			}
			if !allowed(arrows, from, to) {
				t.Errorf("%s imports %s: no arrow of CONTRIBUTING.md allows it. With one direction there is always a bottom to start reading from; declare an interface in %s and let cmd/headwater/pipeline.go introduce the two", from, to, from)
			}
			for _, n := range neverBelow {
				if strings.HasPrefix(to, n) && !strings.HasPrefix(from, "cmd") && !strings.HasPrefix(from, "integration") {
					t.Errorf("%s imports %s: nobody imports %s", from, to, n)
				}
			}
			if strings.HasSuffix(to, "test") && !strings.HasPrefix(from, "integration") && !strings.HasSuffix(from, "test") {
				t.Errorf("%s imports %s outside its tests", from, to)
			}
		}
		for _, imp := range slices.Concat(p.TestImports, p.XTestImports) {
			to, ok := local(imp)
			if ok && to != from && !allowed(arrows, from, to) && !allowed(testArrows, from, to) {
				t.Errorf("tests of %s import %s: no arrow allows it", from, to)
			}
		}
	}
}

// The rule must be able to refuse: a rule that lets everything through would pass too.
func TestImports_RefuseWhatTheyShould(t *testing.T) {
	for _, bad := range [][2]string{
		{"capture", "snapshot"},
		{"capture/postgres", "publish"},
		{"publish", "schema"},
		{"schema/avro", "schema/registry"},
		{"snapshot", "capture/postgres"},
		{"checkpoint/topic", "publish"},
		{"publish/kafka", "schema"},
	} {
		if allowed(arrows, bad[0], bad[1]) {
			t.Errorf("%s → %s is allowed", bad[0], bad[1])
		}
	}
}

// What only one database has is none of the business of whoever comes behind a reader: with
// one more database these packages stay as they are.
func TestPackages_BehindTheReadersNameNoDatabase(t *testing.T) {
	names := regexp.MustCompile(`(?i)postgres|mysql|mariadb|oracle|binlog|gtid|pgoutput|\blsn\b|\bwal\b`)
	files := 0
	for _, dir := range []string{"publish", "schema/avro", "checkpoint"} {
		err := filepath.WalkDir(filepath.Join("..", dir), func(path string, _ fs.DirEntry, err error) error {
			if err != nil || filepath.Ext(path) != ".go" && filepath.Ext(path) != ".md" || strings.HasSuffix(path, "_test.go") {
				return err
			}
			files++
			text, err := os.ReadFile(path)
			for n, line := range strings.Split(string(text), "\n") {
				if name := names.FindString(line); name != "" {
					t.Errorf("%s:%d speaks of %s: put it into the words of package capture", path, n+1, name)
				}
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if files < 20 {
		t.Errorf("only %d files were looked at", files)
	}
}
