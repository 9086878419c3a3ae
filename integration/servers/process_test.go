package servers_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/headwaterdb/headwater/integration/servers"
)

// helperVariable makes the test binary a helper process that starts a server,
// prints a line of JSON, and then waits until it is killed or its input ends.
const helperVariable = "HEADWATER_SERVERS_HELPER"

// started is what a helper prints.
type started struct {
	PIDs   []int
	Dir    string
	BinDir string
}

func TestMain(m *testing.M) {
	if kind := os.Getenv(helperVariable); kind != "" {
		if err := help(kind); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	code := m.Run()
	if err := servers.StopShared(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func help(kind string) error {
	ctx := context.Background()
	var s started
	var stop func() error
	switch kind {
	case "postgres":
		pg, err := servers.StartPostgres(ctx, servers.PostgresConfig{Version: "15"})
		if err != nil {
			return err
		}
		s, stop = started{PIDs: []int{pg.PID()}, Dir: pg.Dir, BinDir: pg.BinDir}, pg.Close
	case "kafka":
		k, err := servers.StartKafka(ctx, servers.KafkaConfig{})
		if err != nil {
			return err
		}
		s, stop = started{PIDs: []int{k.PID(1)}}, k.Close
	case "mysql", "mariadb":
		begin, version := servers.StartMySQL, "9"
		if kind == "mariadb" {
			begin, version = servers.StartMariaDB, "10.11"
		}
		m, err := begin(ctx, servers.MySQLConfig{Version: version})
		if err != nil {
			return err
		}
		s, stop = started{PIDs: []int{m.PID()}, Dir: m.Dir}, m.Close
	case "registry":
		r, err := servers.StartRegistry(ctx, servers.RegistryConfig{})
		if err != nil {
			return err
		}
		s, stop = started{PIDs: []int{r.PID()}}, r.Close
	}
	if err := json.NewEncoder(os.Stdout).Encode(s); err != nil {
		return err
	}
	bufio.NewReader(os.Stdin).ReadString('\n')
	return stop()
}

// helper starts a helper process.
func helper(t *testing.T, kind string, env ...string) (cmd *exec.Cmd, wait func() started, finish func() error) {
	t.Helper()
	cmd = exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), append(env, helperVariable+"="+kind)...)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill() })
	wait = func() (s started) {
		t.Helper()
		if err := json.NewDecoder(out).Decode(&s); err != nil {
			t.Fatalf("the helper %s says nothing: %v", kind, err)
		}
		return s
	}
	return cmd, wait, func() error { in.Close(); return cmd.Wait() }
}

func TestServersEndWithTheirProcess(t *testing.T) {
	for _, kind := range []string{"postgres", "mysql", "mariadb", "kafka", "registry"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			cmd, wait, _ := helper(t, kind)
			s := wait()
			pids := append(s.PIDs, children(s.PIDs[0])...)
			if !alive(s.PIDs[0]) {
				t.Fatalf("process %d does not run", s.PIDs[0])
			}
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			cmd.Wait()
			for deadline := time.Now().Add(time.Minute); slices.ContainsFunc(pids, alive); time.Sleep(10 * time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatalf("of the processes %v some run after their parent was killed", pids)
				}
			}
			// Whatever starts next removes what the killed process left.
			servers.Own(t).PostgresWith(servers.PostgresConfig{Version: "15"})
			if _, err := os.Stat(s.Dir); s.Dir != "" && err == nil {
				t.Errorf("the data of a killed process is still in %s", s.Dir)
			}
		})
	}
}

func TestProcessesFetchAtOnce(t *testing.T) {
	t.Parallel()
	cache := t.TempDir()
	_, wait1, finish1 := helper(t, "postgres", "HEADWATER_CACHE="+cache)
	_, wait2, finish2 := helper(t, "postgres", "HEADWATER_CACHE="+cache)
	one, two := wait1(), wait2()
	if one.BinDir != two.BinDir || filepath.Dir(filepath.Dir(one.BinDir)) != cache {
		t.Errorf("the servers are in %s and %s, want one folder below %s", one.BinDir, two.BinDir, cache)
	}
	for _, finish := range []func() error{finish1, finish2} {
		if err := finish(); err != nil {
			t.Error(err)
		}
	}
	left, err := filepath.Glob(filepath.Join(cache, "run", "*"))
	if err != nil || len(left) > 0 {
		t.Errorf("the servers left %v (%v), want nothing", left, err)
	}
}

// alive reports whether the process runs; one that has ended and waits to be
// reaped does not.
func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, state, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(state, "Z") && !strings.HasPrefix(state, "X")
}

// children returns the processes that this one started.
func children(pid int) (pids []int) {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	for _, field := range strings.Fields(string(b)) {
		var child int
		fmt.Sscan(field, &child)
		pids = append(pids, child)
	}
	return pids
}
