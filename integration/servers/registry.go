package servers

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// RegistryConfig says how to start a schema registry.
type RegistryConfig struct {
	// Heap is the size of its heap, as Java writes it; default 384m.
	Heap string
	// Env is added to its environment: the settings of Apicurio and Quarkus.
	Env []string
}

// Registry is a running schema registry with the Confluent API: an Apicurio that
// keeps its schemas in memory, so that they are gone after Stop, Kill or Restart.
// Its compatibility is BACKWARD at first, as Confluent's is.
type Registry struct {
	URL string // base URL of the API

	external bool // named in the environment; nothing below is set then
	run      *runDir
	java     string
	jar      string
	config   RegistryConfig
	port     int
	admin    int // port of its management interface
	log      string

	mu   sync.Mutex // guards proc
	proc *process
}

const (
	registryVersion = "3.3.3"
	registrySum     = "8bc6751c76d963734224b01d5e7f84ccb3cb61c87d3bd77c36c35f10a5cbed63"
	registryJava    = 21

	registryStartLimit = 90 * time.Second
	registryStopGrace  = 10 * time.Second
)

// StartRegistry starts a registry and returns once it answers.
func StartRegistry(ctx context.Context, c RegistryConfig) (*Registry, error) {
	if c.Heap == "" {
		c.Heap = "384m"
	}
	java, err := findJava(ctx, registryJava)
	if err != nil {
		return nil, err
	}
	home, err := cached(ctx, "apicurio-"+registryVersion, func(dir string) error { return fetchRegistry(ctx, dir) })
	if err != nil {
		return nil, err
	}
	run, err := newRunDir(ctx, "registry")
	if err != nil {
		return nil, err
	}
	r := &Registry{
		run:    run,
		java:   java,
		jar:    filepath.Join(home, "quarkus-run.jar"),
		config: c,
		log:    filepath.Join(run.path, "server.log"),
	}
	for try := 1; ; try++ {
		ports, err := r.run.ports(ctx, 2)
		if err != nil {
			return nil, errors.Join(err, run.remove())
		}
		r.port, r.admin = ports[0], ports[1]
		r.URL = fmt.Sprintf("http://127.0.0.1:%d/apis/ccompat/v7", r.port)
		err = r.start(ctx)
		if err == nil {
			return r, nil
		}
		if try == startTries || r.proc == nil || !r.proc.portTaken() {
			return nil, errors.Join(err, run.remove())
		}
	}
}

func (r *Registry) start(ctx context.Context) error {
	proc, err := start("Apicurio Registry", r.log, command{
		path: r.java,
		args: []string{"-Xmx" + r.config.Heap, "-XX:+UseSerialGC", "-XX:-UsePerfData", "-XX:TieredStopAtLevel=1", "-jar", r.jar},
		dir:  r.run.path,
		env: append([]string{
			"QUARKUS_HTTP_HOST=127.0.0.1",
			"QUARKUS_HTTP_PORT=" + strconv.Itoa(r.port),
			"QUARKUS_HTTP_ACCESS_LOG_ENABLED=false",
			// It listens on every address by default.
			"QUARKUS_MANAGEMENT_HOST=127.0.0.1",
			"QUARKUS_MANAGEMENT_PORT=" + strconv.Itoa(r.admin),
			"APICURIO_REST_DELETION_ARTIFACT_ENABLED=true",
			"APICURIO_REST_DELETION_ARTIFACT_VERSION_ENABLED=true",
		}, r.config.Env...),
	})
	if err != nil {
		return err
	}
	r.mu.Lock()
	r.proc = proc
	r.mu.Unlock()
	err = proc.ready(ctx, registryStartLimit, func(ctx context.Context) error {
		if !strings.Contains(proc.output(), "Listening on:") {
			return errors.New("it has not printed that it listens")
		}
		return r.setCompatibility(ctx)
	})
	if err != nil {
		_ = r.Kill()
		return err
	}
	return nil
}

// setCompatibility sets what Confluent's registry has by default, and Apicurio not.
func (r *Registry) setCompatibility(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, r.URL+"/config", strings.NewReader(`{"compatibility":"BACKWARD"}`))
	if err != nil {
		return fmt.Errorf("set the registry's compatibility: %w", err)
	}
	req.Header.Set("Content-Type", "application/vnd.schemaregistry.v1+json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("set the registry's compatibility: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(io.LimitReader(resp.Body, 1000))
		return fmt.Errorf("set the registry's compatibility: %s: %s", resp.Status, body)
	}
	return nil
}

func (r *Registry) process() *process {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.proc
}

// PID returns the registry's process id, 0 for one that is not ours.
func (r *Registry) PID() int {
	if proc := r.process(); proc != nil {
		return proc.os.Pid
	}
	return 0
}

// LogTail returns the last n lines of its log.
func (r *Registry) LogTail(n int) string {
	if r.external {
		return "no log: " + ErrExternal.Error()
	}
	return logTail(r.log, n)
}

// Stop shuts the registry down.
func (r *Registry) Stop(ctx context.Context) error {
	if r.external {
		return ErrExternal
	}
	if proc := r.process(); proc.running() {
		proc.end(ctx, registryStopGrace, syscall.SIGTERM)
	}
	return nil
}

// Kill ends the registry by SIGKILL.
func (r *Registry) Kill() error {
	if r.external {
		return ErrExternal
	}
	if proc := r.process(); proc.running() {
		proc.end(context.Background(), 0)
	}
	return nil
}

// Restart starts the registry again on its port, empty. One that still runs is
// stopped first.
func (r *Registry) Restart(ctx context.Context) error {
	if err := r.Stop(ctx); err != nil {
		return err
	}
	return r.start(ctx)
}

// Close ends the registry and removes its files.
func (r *Registry) Close() error {
	if r.external {
		return nil
	}
	if err := r.Kill(); err != nil {
		return err
	}
	return r.run.remove()
}

// fetchRegistry puts Apicurio in dir.
func fetchRegistry(ctx context.Context, dir string) error {
	work := filepath.Join(dir, "download")
	if err := os.Mkdir(work, 0o755); err != nil {
		return fmt.Errorf("make the download folder: %w", err)
	}
	defer os.RemoveAll(work)
	err := maven(ctx, work, "copy", "-Dmdep.useBaseVersion=true",
		"-Dartifact=io.apicurio:apicurio-registry-app:"+registryVersion+":tar.gz:all")
	if err != nil {
		return err
	}
	archive, err := os.ReadFile(filepath.Join(work, "apicurio-registry-app-"+registryVersion+"-all.tar.gz"))
	if err != nil {
		return fmt.Errorf("open the fetched registry: %w", err)
	}
	if err := verify(archive, registrySum); err != nil {
		return fmt.Errorf("apicurio Registry %s: %w", registryVersion, err)
	}
	r, err := gzip.NewReader(bytes.NewReader(archive))
	if err != nil {
		return fmt.Errorf("unpack the registry: %w", err)
	}
	return untar(dir, r)
}
