package programtest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
)

// Build builds headwater at the first call, and returns the built file. [Remove] must
// follow when the tests are over.
var Build = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "headwater-test-")
	if err != nil {
		return "", fmt.Errorf("build headwater: %w", err)
	}
	builtIn.Store(&dir)
	bin := filepath.Join(dir, "headwater")
	if out, err := exec.Command("go", "build", "-o", bin, "github.com/headwaterdb/headwater/cmd/headwater").CombinedOutput(); err != nil {
		return "", fmt.Errorf("build headwater: %w\n%s", err, out)
	}
	return bin, nil
})

// builtIn is the folder of the built program, nil until a test asks for it.
var builtIn atomic.Pointer[string]

// Remove removes what Build has made. It is for TestMain, after the tests.
func Remove() error {
	if dir := builtIn.Load(); dir != nil {
		return os.RemoveAll(*dir)
	}
	return nil
}

// Command is a run of the built program that ends with this process, on Linux.
func Command(args ...string) (*exec.Cmd, error) {
	bin, err := Build()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(bin, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	endWithParent(cmd.SysProcAttr)
	return cmd, nil
}
