package main

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/headwaterdb/headwater/integration/programtest"
)

// demoRun is the demo as a command, with temporary files in a folder of its own.
func demoRun(t *testing.T, args ...string) (cmd *exec.Cmd, out *bytes.Buffer, temp string) {
	t.Helper()
	bin, err := programtest.Build()
	if err != nil {
		t.Fatal(err)
	}
	temp = t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), 6*time.Minute) // it fetches a database where there is none
	t.Cleanup(cancel)
	cmd = exec.CommandContext(ctx, bin, append([]string{"demo"}, args...)...)
	cmd.Env = append(os.Environ(), "TMPDIR="+temp)
	out = &bytes.Buffer{}
	cmd.Stdout, cmd.Stderr = out, out
	return cmd, out, temp
}

// demoLeftovers fails the test for what is left in the folder, and for processes that the
// demo said it had started and that still run.
func demoLeftovers(t *testing.T, out, temp string) {
	t.Helper()
	left, err := os.ReadDir(temp)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range left {
		t.Errorf("%s is left behind", e.Name())
	}
	for _, m := range regexp.MustCompile(`process (\d+)`).FindAllStringSubmatch(out, -1) {
		if command, err := os.ReadFile("/proc/" + m[1] + "/cmdline"); err == nil && strings.Contains(string(command), temp) {
			t.Errorf("process %s still runs: %q", m[1], command)
		}
	}
}

func TestDemo_CountsAsManyRowsInTopicsAsInTables(t *testing.T) {
	t.Parallel()
	for _, product := range demoProducts {
		t.Run(product.source, func(t *testing.T) {
			t.Parallel()
			checkDemo(t, product)
		})
	}
}

func checkDemo(t *testing.T, product demoProduct) {
	cmd, buf, temp := demoRun(t, "--source", product.source, "--for", "8s", "--kills", "2")
	err := cmd.Run()
	out := buf.String()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	verdict := regexp.MustCompile(`(?m)^(\d+) rows in tables = (\d+) rows in topics, 0 lost, 0 doubled$`).FindAllStringSubmatch(out, -1)
	if len(verdict) != 1 || verdict[0][1] != verdict[0][2] || len(verdict[0][1]) < 4 {
		t.Errorf("want one verdict about thousands of rows, got %q", verdict)
	}
	for _, want := range []string{"SIGKILL 1 of 2", "SIGKILL 2 of 2", " insert ", " update ", " delete ", " read ", "commit → visible  p50 ", "headwater check --config", "\n  " + product.name + " ", "headwater config --source " + product.source + " "} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in its output", want)
		}
	}
	if strings.Contains(out, "\x1b") {
		t.Error("it prints escape codes into a file")
	}
	for _, line := range strings.Split(out, "\n") {
		if n := len([]rune(line)); n > 100 && !strings.Contains(line, temp) {
			t.Errorf("%d columns: %s", n, line)
		}
	}
	demoLeftovers(t, out, temp)
	if t.Failed() {
		t.Log(out)
	}
}

func TestDemo_LeavesNothingBehindWhenNobodyLooks(t *testing.T) {
	t.Parallel()
	cmd, _, temp := demoRun(t, "--for", "1m")
	cmd.Stdout = nil
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var read []byte
	for !bytes.Contains(read, []byte("SIGKILL 1 of")) {
		some := make([]byte, 4096)
		n, err := out.Read(some)
		if err != nil {
			t.Fatalf("%v after\n%s", err, read)
		}
		read = append(read, some[:n]...)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	demoLeftovers(t, string(read), temp)
}

func TestDemo_LeavesNothingBehindWhenInterrupted(t *testing.T) {
	t.Parallel()
	cmd, _, temp := demoRun(t, "--for", "1m")
	file, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	cmd.Stdout, cmd.Stderr = file, file
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	printed := func() string {
		b, err := os.ReadFile(file.Name())
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	told := false
	for {
		select {
		case err := <-ended:
			out := printed()
			if err != nil || !told || !strings.Contains(out, "nothing was compared") || strings.Contains(out, "rows in tables") {
				t.Fatalf("it ended with %v\n%s", err, out)
			}
			demoLeftovers(t, out, temp)
			return
		case <-time.After(20 * time.Millisecond):
			if !told && strings.Contains(printed(), "SIGKILL 1 of") {
				told = true
				if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
}

func TestDemo_RefusesWhatItCannotDo(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"--for", "10ms"}, {"--kills", "-1"}, {"--for", "soon"}, {"--source", "oracle"}} {
		root := newRoot()
		root.SetArgs(append([]string{"demo"}, args...))
		if err := root.ExecuteContext(t.Context()); exitCode(err) != exitUsage {
			t.Errorf("%q: %v", args, err)
		}
	}
}

// A count that finds nothing proves nothing: each kind of damage must be seen.
func TestDemoCount_SeesEveryDamage(t *testing.T) {
	tables := map[string]map[string]int64{"orders": {"1": 11, "3": 13, "4": 4}, "customers": {"1": 1}}
	made := []demoChange{
		{"orders", "1", 'u', 11}, {"orders", "2", 'd', 0}, {"orders", "3", 'c', 12}, {"orders", "3", 'u', 13},
	}
	record := func(table string, partition int32, offset int64, key string, op byte, revision int64) *demoRecord {
		return &demoRecord{table: table, partition: partition, offset: offset, key: key, op: op, revision: revision}
	}
	good := func() []*demoRecord {
		return []*demoRecord{
			record("orders", 0, 0, "4", 'r', 4),
			record("orders", 0, 1, "1", 'u', 11),
			record("orders", 0, 2, "2", 'r', 2),
			record("orders", 0, 3, "2", 'd', 0),
			record("orders", 0, 4, "2", 0, 0),
			record("orders", 1, 0, "3", 'c', 12),
			record("orders", 1, 1, "3", 'u', 13),
			record("customers", 0, 0, "1", 'r', 1),
		}
	}
	if c := countDemo(tables, made, good()); !c.ok() || c.verdict() != "4 rows in tables = 4 rows in topics, 0 lost, 0 doubled" {
		t.Fatalf("undamaged topics: %s\n%s", c.verdict(), strings.Join(c.problems, "\n"))
	}
	type damage struct {
		do   func([]*demoRecord) []*demoRecord
		want string
	}
	damages := map[string]damage{
		"a change lost": {
			func(r []*demoRecord) []*demoRecord { return slices.Delete(r, 5, 6) },
			"4 rows in tables = 4 rows in topics, 1 lost, 0 doubled",
		},
		"all changes of a row lost": {
			func(r []*demoRecord) []*demoRecord { return slices.Delete(r, 5, 7) },
			"4 rows in tables ≠ 3 rows in topics, 2 lost, 0 doubled",
		},
		"a snapshot row lost": {
			func(r []*demoRecord) []*demoRecord { return slices.Delete(r, 0, 1) },
			"4 rows in tables ≠ 3 rows in topics, 1 lost, 0 doubled",
		},
		"a change doubled": {
			func(r []*demoRecord) []*demoRecord { return append(r, record("orders", 1, 9, "3", 'u', 13)) },
			"4 rows in tables = 4 rows in topics, 0 lost, 1 doubled",
		},
		"a change invented": {
			func(r []*demoRecord) []*demoRecord { return append(r, record("orders", 0, 9, "9", 'c', 99)) },
			"4 rows in tables ≠ 5 rows in topics, 0 lost, 1 doubled, 1 wrong",
		},
		"a row read twice": {
			func(r []*demoRecord) []*demoRecord { return append(r, record("orders", 0, 9, "4", 'r', 4)) },
			"4 rows in tables = 4 rows in topics, 0 lost, 1 doubled",
		},
		"an old row after a change": {
			func(r []*demoRecord) []*demoRecord { return append(r, record("orders", 0, 9, "1", 'r', 1)) },
			"4 rows in tables = 4 rows in topics, 0 lost, 0 doubled, 1 wrong",
		},
		"two changes swapped": {func(r []*demoRecord) []*demoRecord {
			r[5].offset, r[6].offset = r[6].offset, r[5].offset
			return r
		}, "4 rows in tables = 4 rows in topics, 0 lost, 0 doubled, 2 wrong"},
		"a row in two partitions": {
			func(r []*demoRecord) []*demoRecord { r[6].partition = 2; return r },
			"4 rows in tables = 4 rows in topics, 0 lost, 0 doubled, 1 wrong",
		},
		"a tombstone lost": {
			func(r []*demoRecord) []*demoRecord { return slices.Delete(r, 4, 5) },
			"4 rows in tables = 4 rows in topics, 0 lost, 0 doubled, 1 wrong",
		},
		"a tombstone alone": {
			func(r []*demoRecord) []*demoRecord { return append(r, record("orders", 0, 9, "1", 0, 0)) },
			"4 rows in tables = 4 rows in topics, 0 lost, 0 doubled, 1 wrong",
		},
		"a delete invented": {func(r []*demoRecord) []*demoRecord {
			return append(r, record("orders", 0, 9, "4", 'd', 0), record("orders", 0, 10, "4", 0, 0))
		}, "4 rows in tables ≠ 3 rows in topics, 0 lost, 1 doubled, 1 wrong"},
		"everything lost": {
			func([]*demoRecord) []*demoRecord { return nil },
			"4 rows in tables ≠ 0 rows in topics, 6 lost, 0 doubled",
		},
	}
	for _, name := range slices.Sorted(maps.Keys(damages)) {
		c := countDemo(tables, made, damages[name].do(good()))
		if c.ok() || c.verdict() != damages[name].want {
			t.Errorf("%s:\n got %s\nwant %s\n%s", name, c.verdict(), damages[name].want, strings.Join(c.problems, "\n"))
		}
	}
}

func TestDemoQuantile_IsAValueThatWasMeasured(t *testing.T) {
	var d []time.Duration
	if got := demoQuantile(d, 0.5); got != 0 {
		t.Errorf("of nothing: %v", got)
	}
	for i := range 100 {
		d = append(d, time.Duration(i+1))
	}
	if p50, p99, all := demoQuantile(d, 0.5), demoQuantile(d, 0.99), demoQuantile(d, 1); p50 != 51 || p99 != 100 || all != 100 {
		t.Error(fmt.Sprint(p50, p99, all))
	}
}
