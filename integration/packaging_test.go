package integration

import (
	"bytes"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/headwaterdb/headwater/integration/programtest"
	"github.com/headwaterdb/headwater/integration/servers"
)

// composeParser is the library that "docker compose" reads its file with, as a program. It
// is pinned here and not in go.mod, which would make its dependencies ours.
const composeParser = "github.com/compose-spec/compose-go/v2/cmd@v2.9.0"

// A composeFile is docker-compose.yml as that library understands it.
type composeFile struct {
	Services map[string]composeService `json:"services"`
	Configs  map[string]struct {
		Content string `json:"content"`
	} `json:"configs"`
}

type composeService struct {
	Image string `json:"image"`
	Build *struct {
		Context    string `json:"context"`
		Dockerfile string `json:"dockerfile"`
	} `json:"build"`
	Command     []string          `json:"command"`
	Environment map[string]string `json:"environment"`
	Healthcheck *struct{}         `json:"healthcheck"`
	DependsOn   map[string]struct {
		Condition string `json:"condition"`
	} `json:"depends_on"`
	Configs []struct {
		Source string `json:"source"`
		Target string `json:"target"`
	} `json:"configs"`
	Ports []struct {
		HostIP    string `json:"host_ip"`
		Published string `json:"published"`
		Target    int    `json:"target"`
	} `json:"ports"`
}

// parseCompose reads a compose file; what does not follow the specification is an error.
func parseCompose(t *testing.T, file string) (*composeFile, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "run", composeParser, "-format", "json", file)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%w: %s", err, stderr.String())
	}
	c := &composeFile{}
	if err := json.Unmarshal(out, c); err != nil {
		return nil, fmt.Errorf("read what the parser printed: %w", err)
	}
	return c, nil
}

// compose is the file of the repository.
func compose(t *testing.T) *composeFile {
	t.Helper()
	c, err := parseCompose(t, filepath.Join(root, "docker-compose.yml"))
	if err != nil {
		t.Fatalf("docker-compose.yml: %v", err)
	}
	return c
}

func TestCompose_FollowsTheSpecification(t *testing.T) {
	t.Parallel()
	c := compose(t)
	for name, s := range c.Services {
		if (s.Image == "") == (s.Build == nil) {
			t.Errorf("%s: want an image or a build", name)
		}
		if _, tag, ok := strings.Cut(path.Base(s.Image), ":"); s.Image != "" && (!ok || tag == "latest") {
			t.Errorf("%s: the image %s is not pinned to a version", name, s.Image)
		}
		for other, on := range s.DependsOn {
			if o, ok := c.Services[other]; !ok {
				t.Errorf("%s waits for %s, which is not there", name, other)
			} else if on.Condition == "service_healthy" && o.Healthcheck == nil {
				t.Errorf("%s waits until %s is healthy, which nothing checks", name, other)
			}
		}
		for _, p := range s.Ports {
			if p.HostIP != "127.0.0.1" {
				t.Errorf("%s: port %s is published on %q, want 127.0.0.1", name, p.Published, p.HostIP)
			}
		}
		for _, used := range s.Configs {
			if c.Configs[used.Source].Content == "" {
				t.Errorf("%s: the config %s is not there, or empty", name, used.Source)
			}
		}
	}
	if len(c.Services) < 4 {
		t.Errorf("only %d services", len(c.Services))
	}
	// A parser that accepts everything proves nothing.
	for _, wrong := range []string{
		"services: {a: {imagee: x}}", "services: {a: {image: x, ports: 80}}", "services: {a: {image: x, ports: [\"127.0.0.1:eighty:80\"]}}",
	} {
		file := filepath.Join(t.TempDir(), "docker-compose.yml")
		if err := os.WriteFile(file, []byte("name: wrong\n"+wrong+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := parseCompose(t, file); err == nil {
			t.Errorf("the parser accepts %s", wrong)
		}
	}
}

// TestCompose_PipelinesFitTheirServers reads the embedded configurations with our own
// loader, and holds them against the services around them.
func TestCompose_PipelinesFitTheirServers(t *testing.T) {
	t.Parallel()
	c := compose(t)
	source := c.pipeline(t, "headwater")
	pg := c.Services[hostOf(t, source)]
	if u, err := url.Parse(source); err != nil || u.Path != "/"+pg.Environment["POSTGRES_DB"] {
		t.Errorf("it reads the database of %s, the server has %s", source, pg.Environment["POSTGRES_DB"])
	}
	if c.Services["headwater"].Environment["SHOP_PASSWORD"] != pg.Environment["POSTGRES_PASSWORD"] {
		t.Error("its password is not the server's")
	}
	if !slices.Contains(pg.Command, "wal_level=logical") {
		t.Errorf("the server does not log enough: %q", pg.Command)
	}
	my := c.Services[hostOf(t, c.pipeline(t, "headwater-mysql"))]
	if c.Services["headwater-mysql"].Environment["SHOP_PASSWORD"] != my.Environment["MYSQL_ROOT_PASSWORD"] {
		t.Error("its password is not the server's")
	}
	for _, want := range []string{"--binlog-row-metadata=FULL", "--gtid-mode=ON", "--enforce-gtid-consistency=ON"} {
		if !slices.Contains(my.Command, want) {
			t.Errorf("the server does not log enough: %q", my.Command)
		}
	}
}

// pipeline looks at a service that runs headwater, and returns the address of its database.
func (c *composeFile) pipeline(t *testing.T, service string) (source string) {
	t.Helper()
	us := c.Services[service]
	if len(us.Configs) != 1 {
		t.Fatalf("%s has %d configs, want 1", service, len(us.Configs))
	}
	text := c.Configs[us.Configs[0].Source].Content
	file := filepath.Join(t.TempDir(), "headwater.yml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	bin, err := programtest.Build()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), bin, "check", "--offline", "--config", file)
	cmd.Env = []string{}
	for k, v := range us.Environment {
		cmd.Env = append(cmd.Env, k+"="+v)
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%s: the configuration is refused: %v\n%s", service, err, out)
	}

	var cfg struct {
		Source   map[string]struct{ URL string }
		Registry struct{ URL string }
		Kafka    struct{ Brokers []string }
		HTTP     struct{ Listen string }
	}
	if err := yaml.Unmarshal([]byte(text), &cfg); err != nil {
		t.Fatal(err)
	}
	for _, db := range cfg.Source {
		source = db.URL
	}
	hosts := []string{hostOf(t, source), hostOf(t, cfg.Registry.URL)}
	for _, b := range cfg.Kafka.Brokers {
		host, port, err := net.SplitHostPort(b)
		if err != nil {
			t.Fatal(err)
		}
		hosts = append(hosts, host)
		if advertised := c.Services[host].Environment["KAFKA_ADVERTISED_LISTENERS"]; !strings.Contains(advertised, "//"+net.JoinHostPort(host, port)) {
			t.Errorf("%s is not among the listeners that the broker advertises, %s", b, advertised)
		}
	}
	if want := slices.Sorted(maps.Keys(us.DependsOn)); !slices.Equal(slices.Sorted(slices.Values(hosts)), want) {
		t.Errorf("%s talks to %q and waits for %q", service, hosts, want)
	}
	_, port, err := net.SplitHostPort(cfg.HTTP.Listen)
	if err != nil {
		t.Fatal(err)
	}
	if len(us.Ports) != 1 || strconv.Itoa(us.Ports[0].Target) != port {
		t.Errorf("%s listens on %s, published is %v", service, port, us.Ports)
	}
	if d := dockerfile(t); !slices.Contains(d.list("CMD"), us.Configs[0].Target) {
		t.Errorf("the configuration is at %s, the image runs with %q", us.Configs[0].Target, d.list("CMD"))
	}
	return source
}

func hostOf(t *testing.T, address string) string {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil || u.Hostname() == "" {
		t.Fatalf("%q has no host: %v", address, err)
	}
	return u.Hostname()
}

// script is what the service runs, which bash must be able to read.
func (c *composeFile) script(t *testing.T, service string) string {
	t.Helper()
	command := c.Services[service].Command
	if len(command) != 1 {
		t.Fatalf("want one script, got %q", command)
	}
	if out, err := exec.CommandContext(t.Context(), "bash", "-n", "-c", command[0]).CombinedOutput(); err != nil {
		t.Fatalf("bash cannot read the script: %v\n%s", err, out)
	}
	return command[0]
}

// TestCompose_ShopsWrite runs the SQL of the shops against real servers.
func TestCompose_ShopsWrite(t *testing.T) {
	t.Parallel()
	c := compose(t)
	check := func(t *testing.T, inserted, held, shipped int64, err error) {
		t.Helper()
		if err != nil || inserted != 1200 || held >= 1100 || shipped < 100 {
			t.Errorf("after 400 rounds: %d inserted, %d held, %d shipped, %v", inserted, held, shipped, err)
		}
	}
	t.Run("PostgreSQL", func(t *testing.T) {
		t.Parallel()
		script := c.script(t, "shop")
		m := regexp.MustCompile(`(?s)psql -q -c "(.*?)".*<<'SQL'\n(.*?)\nSQL\n`).FindStringSubmatch(script)
		if m == nil {
			t.Fatalf("no SQL was found in\n%s", script)
		}
		conn := connect(t, servers.Shared(t).Postgres("18").Database(t))
		mustExec(t, conn, m[1])
		for range 400 { // until deletes begin
			mustExec(t, conn, m[2])
		}
		var inserted, held, shipped int64
		err := conn.QueryRow(t.Context(), "SELECT max(id), count(*), count(*) FILTER (WHERE status = 'shipped') FROM orders").Scan(&inserted, &held, &shipped)
		check(t, inserted, held, shipped, err)
	})
	t.Run("MySQL", func(t *testing.T) {
		t.Parallel()
		script := c.script(t, "shop-mysql")
		m := regexp.MustCompile(`(?s)<<'SQL'\n(.*?)\nSQL\n`).FindAllStringSubmatch(script, -1)
		if len(m) != 2 {
			t.Fatalf("no SQL was found in\n%s", script)
		}
		db := servers.Shared(t).MySQL("")
		conn, err := db.Connect(t.Context(), db.Database(t))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Quit()
		run := func(block string) {
			for statement := range strings.SplitSeq(strings.TrimSpace(block), ";") {
				if statement == "" {
					continue
				}
				if _, err := conn.Execute(statement); err != nil {
					t.Fatalf("%s: %v", statement, err)
				}
			}
		}
		run(m[0][1])
		for range 400 {
			run(m[1][1])
		}
		r, err := conn.Execute("SELECT max(id), count(*), sum(status = 'shipped') FROM orders")
		if err != nil {
			t.Fatal(err)
		}
		var n [3]int64
		for i := range n {
			v, errN := r.GetInt(0, i)
			n[i], err = v, errors.Join(err, errN)
		}
		check(t, n[0], n[1], n[2], err)
	})
}

// An instruction is one of a Dockerfile, with its continuation lines.
type instruction struct {
	name, rest string
}

type instructions []instruction

// dockerfile reads the Dockerfile. Whether it is one is another test's question.
func dockerfile(t *testing.T) (out instructions) {
	t.Helper()
	text := strings.ReplaceAll(readDocument(t, "Dockerfile").text, "\\\n", " ")
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, rest, _ := strings.Cut(line, " ")
		out = append(out, instruction{strings.ToUpper(name), strings.TrimSpace(rest)})
	}
	return out
}

// list is the last instruction of that name in its JSON form.
func (d instructions) list(name string) (words []string) {
	for _, i := range d {
		if i.name == name && json.Unmarshal([]byte(i.rest), &words) != nil {
			return nil
		}
	}
	return words
}

func TestDockerfile_IsClean(t *testing.T) {
	t.Parallel()
	hadolint := filepath.Join(filepath.Dir(pinnedPython(t, "testdata/lint/requirements.txt")), "hadolint")
	lint := func(file string) (string, error) {
		out, err := exec.CommandContext(t.Context(), hadolint, "--no-color", file).CombinedOutput()
		return string(out), err
	}
	if out, err := lint(filepath.Join(root, "Dockerfile")); err != nil || out != "" {
		t.Errorf("%v\n%s", err, out)
	}
	for _, wrong := range []string{"FORM golang:1.26\n", "FROM golang\n", "FROM golang:1.26\nCOPY --from=nowhere a b\n"} {
		file := filepath.Join(t.TempDir(), "Dockerfile")
		if err := os.WriteFile(file, []byte(wrong), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := lint(file); err == nil {
			t.Errorf("%q passes: %s", wrong, out)
		}
	}
}

// TestDockerfile_BuildsTheProgram carries its build step out, and follows the file that it
// makes into the image.
func TestDockerfile_BuildsTheProgram(t *testing.T) {
	t.Parallel()
	d := dockerfile(t)
	ignored := strings.Fields(readDocument(t, ".dockerignore").text)
	var stages []string
	var build, made, installed string
	for _, i := range d {
		switch i.name {
		case "FROM":
			if m := regexp.MustCompile(`(?i) AS (\S+)$`).FindStringSubmatch(i.rest); m != nil {
				stages = append(stages, m[1])
			}
			if version, ok := strings.CutPrefix(i.rest, "golang:"); ok {
				version, _, _ = strings.Cut(version, " ")
				if m := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindStringSubmatch(readDocument(t, "go.mod").text); m == nil || m[1] != version {
					t.Errorf("it builds with Go %s, go.mod wants %q", version, m)
				}
			}
		case "COPY":
			words := strings.Fields(i.rest)
			from, other := strings.CutPrefix(words[0], "--from=")
			sources, to := words[:len(words)-1], words[len(words)-1]
			if other {
				if !slices.Contains(stages, from) {
					t.Errorf("COPY %s: there is no stage %s before it", i.rest, from)
				}
				made, installed = sources[1], to
				continue
			}
			for _, s := range sources {
				if _, err := os.Stat(filepath.Join(root, s)); err != nil || slices.Contains(ignored, s) {
					t.Errorf("COPY %s: %s is not there, or in .dockerignore", i.rest, s)
				}
			}
		case "RUN":
			if strings.Contains(i.rest, "go build") {
				build = i.rest
			}
		}
	}
	if made == "" || strings.Count(build, made) != 1 {
		t.Fatalf("the image takes %q, built is: %s", made, build)
	}
	if entry := d.list("ENTRYPOINT"); len(entry) != 1 || entry[0] != installed {
		t.Errorf("the image runs %q, the program is at %s", entry, installed)
	}
	if args := d.list("CMD"); len(args) == 0 {
		t.Error("CMD is no list")
	} else if err := checkCommand(t, args); err != nil {
		t.Errorf("CMD %q: %v", args, err)
	}

	bin := filepath.Join(t.TempDir(), "headwater")
	cmd := exec.CommandContext(t.Context(), "sh", "-c", strings.Replace(build, made, bin, 1))
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "VERSION=v7.8.9")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", build, err, out)
	}
	if out, err := exec.CommandContext(t.Context(), bin, "version").Output(); err != nil || string(out) != "headwater v7.8.9\n" {
		t.Errorf("the program built so says it is %q (%v)", out, err)
	}
	f, err := elf.Open(bin)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if libraries, err := f.ImportedLibraries(); err != nil || len(libraries) > 0 {
		t.Errorf("the program wants libraries, which the image does not have: %q, %v", libraries, err)
	}
}
