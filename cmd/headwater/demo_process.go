package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// A demoProcess is "headwater run" as a process of its own, which can be killed like any
// other.
type demoProcess struct {
	pid  int
	log  string
	os   *os.Process
	done chan struct{} // closed when it has ended
	err  error         // how it ended; read it after done
}

// startDemoProcess runs this very program on the configuration file. What it prints is
// appended to the file log.
func startDemoProcess(config, log string) (*demoProcess, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	f, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the pipeline's log: %w", err)
	}
	defer f.Close()
	p := &demoProcess{log: log, done: make(chan struct{})}
	started := make(chan error)
	go func() {
		// Where the kernel ends a program with its parent, the parent is the thread that
		// started it: keep this one for as long as the program lives.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		cmd := exec.Command(self, "run", "--config", config)
		cmd.Stdout, cmd.Stderr = f, f
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is ours to handle
		endWithParent(cmd.SysProcAttr)
		if err := cmd.Start(); err != nil {
			started <- fmt.Errorf("start the pipeline: %w", err)
			return
		}
		p.os, p.pid = cmd.Process, cmd.Process.Pid
		started <- nil
		p.err = cmd.Wait()
		close(p.done)
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}

// kill ends the process by SIGKILL. It is an error when it had ended before, by itself.
func (p *demoProcess) kill() error {
	_ = p.os.Kill()
	<-p.done
	if e, ok := errors.AsType[*exec.ExitError](p.err); ok {
		if s, ok := e.Sys().(syscall.WaitStatus); ok && s.Signaled() && s.Signal() == syscall.SIGKILL {
			return nil
		}
	}
	return p.ended()
}

// end makes sure that the process has ended.
func (p *demoProcess) end() {
	_ = p.os.Kill() // fails only when it has ended already
	<-p.done
}

// stop asks the process to end, as a service manager does.
func (p *demoProcess) stop(ctx context.Context) error {
	_ = p.os.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-ctx.Done():
		_ = p.os.Kill()
		<-p.done
		return ctx.Err()
	case <-time.After(20 * time.Second):
		_ = p.os.Kill()
		<-p.done
		return fmt.Errorf("the pipeline has not ended 20 s after SIGTERM%s", p.lastWords())
	}
	if p.err != nil {
		return fmt.Errorf("the pipeline was told to stop and ended with %w%s", p.err, p.lastWords())
	}
	return nil
}

// ended explains an end that nobody asked for.
func (p *demoProcess) ended() error {
	if p.err == nil {
		return fmt.Errorf("the pipeline ended by itself%s", p.lastWords())
	}
	return fmt.Errorf("the pipeline ended by itself: %w%s", p.err, p.lastWords())
}

// lastWords is the end of what it printed, for an error text.
func (p *demoProcess) lastWords() string {
	b, err := os.ReadFile(p.log)
	if err != nil {
		return ""
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return "; its last words:\n    " + strings.Join(lines[max(0, len(lines)-15):], "\n    ")
}
