package servers

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// ErrExternal is returned by methods that would stop a server which the
// environment names, and which is therefore not ours to stop.
var ErrExternal = errors.New("the server was named in the environment: it is not ours to stop")

// command is a program to start or run.
type command struct {
	path string
	args []string
	dir  string
	env  []string // added to our own
	// stdin is what run gives the program to read; nil means nothing.
	stdin io.Reader

	// orphan is the signal the kernel sends when our process ends first; zero
	// means SIGKILL.
	orphan syscall.Signal
	// notRoot hides from the program that it runs as root, see ownNamespace.
	notRoot bool
}

func (c command) exec(ctx context.Context) *exec.Cmd {
	cmd := exec.CommandContext(ctx, c.path, c.args...)
	cmd.Dir = c.dir
	cmd.Env = append(os.Environ(), c.env...)
	// A process group of its own: Ctrl-C in the terminal is ours to handle.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	dieWithParent(cmd.SysProcAttr, c.orphan)
	if c.notRoot && os.Geteuid() == 0 {
		ownNamespace(cmd.SysProcAttr)
	}
	return cmd
}

// startError explains why a program could not be started at all.
func (c command) startError(err error) error {
	if c.notRoot && os.Geteuid() == 0 && errors.Is(err, syscall.EPERM) {
		return fmt.Errorf("start %s: it refuses to run as root, and this machine lets root make no user namespace for it; run as another user: %w", c.path, err)
	}
	return fmt.Errorf("start %s: %w", c.path, err)
}

// run carries the program to its end and returns what it printed. The program
// and its children are killed when ctx ends.
func (c command) run(ctx context.Context) (string, error) {
	var out bytes.Buffer
	result := make(chan error)
	go func() {
		// See start for why the thread is locked.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		cmd := c.exec(ctx)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = c.stdin, &out, &out
		cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
		cmd.WaitDelay = time.Second
		if err := cmd.Start(); err != nil {
			result <- c.startError(err)
			return
		}
		err := cmd.Wait()
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		result <- err
	}()
	if err := <-result; err != nil {
		return "", fmt.Errorf("%s: %w\n%s", filepath.Base(c.path), err, lastLines(out.String(), 30))
	}
	return out.String(), nil
}

// process is a server program that we started.
type process struct {
	name string // for error texts
	os   *os.Process
	log  string
	from int64 // where its own part of the log begins

	done chan struct{} // closed when the program has ended
	err  error         // how it ended; read it after done
}

// start starts a server and appends what it prints to the file log.
func start(name, log string, c command) (*process, error) {
	f, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open the log of %s: %w", name, err)
	}
	defer f.Close()
	p := &process{name: name, log: log, done: make(chan struct{})}
	if p.from, err = f.Seek(0, io.SeekEnd); err != nil {
		return nil, fmt.Errorf("open the log of %s: %w", name, err)
	}
	started := make(chan error)
	go func() {
		// The kernel's parent-death signal fires when the thread that forked ends,
		// not the process: keep this thread for as long as the server lives.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		cmd := c.exec(context.Background())
		cmd.Stdout, cmd.Stderr = f, f
		if err := cmd.Start(); err != nil {
			started <- c.startError(err)
			return
		}
		p.os = cmd.Process
		started <- nil
		if p.err = cmd.Wait(); p.err == nil {
			p.err = errors.New("exit status 0")
		}
		close(p.done)
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}

func (p *process) running() bool {
	if p == nil {
		return false
	}
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// ready waits until probe succeeds. It fails as soon as the program has ended.
func (p *process) ready(ctx context.Context, limit time.Duration, probe func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		err := probe(ctx)
		if err == nil && p.running() {
			return nil
		}
		select {
		case <-p.done:
			return fmt.Errorf("%s ended while starting (%w); its log ends with:\n%s", p.name, p.err, lastLines(p.output(), 30))
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready (%w): %w; its log ends with:\n%s", p.name, ctx.Err(), err, lastLines(p.output(), 30))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// end sends the signals one after the other, each when the one before it has not
// ended the program within grace, then SIGKILL. When ctx ends it waits no longer
// between them. The program has ended when end returns.
func (p *process) end(ctx context.Context, grace time.Duration, signals ...syscall.Signal) {
	for _, sig := range signals {
		_ = p.os.Signal(sig) // fails only when the program has ended already
		select {
		case <-p.done:
			return
		case <-ctx.Done():
		case <-time.After(grace):
		}
	}
	_ = p.os.Kill()
	<-p.done
}

// output returns what the program has printed since it was started.
func (p *process) output() string {
	f, err := os.Open(p.log)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	b, err := io.ReadAll(io.NewSectionReader(f, p.from, 1<<30))
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// portTaken reports whether the program ended because somebody else had taken
// its port between our choice and its start.
func (p *process) portTaken() bool {
	out := p.output()
	return !p.running() && (strings.Contains(out, "already in use") || strings.Contains(out, "in use by another process"))
}

// startTries is how often a server is started anew on other ports.
const startTries = 5

func lastLines(s string, n int) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

func logTail(file string, n int) string {
	b, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	return lastLines(string(b), n)
}

// freePorts returns n distinct ports on which nobody listens, and none of those
// that are reserved.
//
// They lie below the ephemeral range. A port from within it (as listening on
// port 0 gives) can become the local port of any outgoing connection while its
// server is down, and the server could then not be restarted.
func freePorts(n int, reserved ...int) ([]int, error) {
	limit := ephemeralPorts()
	var listeners []net.Listener
	defer func() {
		for _, l := range listeners {
			l.Close()
		}
	}()
	var ports []int
	for range 1000 {
		port := limit - 1 - rand.IntN(12000)
		if slices.Contains(reserved, port) {
			continue
		}
		l, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue // taken, by us or by another
		}
		listeners = append(listeners, l)
		if ports = append(ports, port); len(ports) == n {
			return ports, nil
		}
	}
	return nil, fmt.Errorf("find %d free ports below %d on 127.0.0.1: all seem taken", n, limit)
}

// runDir is a folder for the data and the log of one server.
type runDir struct {
	path string
	lock *os.File
}

// runLock guards the making and sweeping of run folders within this process; a
// lock file guards it between processes.
var runLock sync.Mutex

// newRunDir makes a run folder. It also removes the folders of processes that
// have ended: those on which nobody holds a lock any more.
func newRunDir(ctx context.Context, kind string) (*runDir, error) {
	cache, err := cacheDir()
	if err != nil {
		return nil, err
	}
	runLock.Lock()
	defer runLock.Unlock()
	unlock, err := lockCache(ctx, cache, "run")
	if err != nil {
		return nil, err
	}
	defer unlock()
	root := filepath.Join(cache, "run")
	if err := os.MkdirAll(root, 0o755); err != nil {
		return nil, fmt.Errorf("make the run folder: %w", err)
	}
	if err := sweep(root); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(root, kind+"-")
	if err != nil {
		return nil, fmt.Errorf("make the run folder: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("lock the run folder: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock the run folder %s: %w", dir, err)
	}
	return &runDir{path: dir, lock: f}, nil
}

func sweep(root string) error {
	entries, err := os.ReadDir(root)
	if err != nil {
		return fmt.Errorf("sweep the run folders: %w", err)
	}
	for _, e := range entries {
		dir := filepath.Join(root, e.Name())
		f, err := os.Open(filepath.Join(dir, "lock"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			continue // another user's
		}
		if err == nil {
			err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
			f.Close()
			if err != nil {
				continue // in use
			}
		}
		// A server that is just dying may still write into it; what stays goes next time.
		_ = os.RemoveAll(dir)
	}
	return nil
}

// portsFile lists the ports that belong to the servers of a run folder.
const portsFile = "ports"

// ports returns n free ports that belong to our servers until the folder is
// removed: no other run folder gets them while a server of ours is down.
func (d *runDir) ports(ctx context.Context, n int) ([]int, error) {
	runLock.Lock()
	defer runLock.Unlock()
	root := filepath.Dir(d.path)
	unlock, err := lockCache(ctx, filepath.Dir(root), "run")
	if err != nil {
		return nil, err
	}
	defer unlock()
	var reserved []int
	files, _ := filepath.Glob(filepath.Join(root, "*", portsFile)) // fails only on a bad pattern
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // removed just now
		}
		reserved = append(reserved, numbers(string(text))...)
	}
	ports, err := freePorts(n, reserved...)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(d.path, portsFile), fmt.Append(nil, ports), 0o644); err != nil {
		return nil, fmt.Errorf("reserve ports: %w", err)
	}
	return ports, nil
}

// remove deletes the folder; nothing may run in it any more.
func (d *runDir) remove() error {
	defer d.lock.Close()
	if err := os.RemoveAll(d.path); err != nil {
		return fmt.Errorf("remove the run folder: %w", err)
	}
	return nil
}
