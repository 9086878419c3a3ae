package servers

import (
	"fmt"
	"os"
	"syscall"
)

// dieWithParent makes the kernel signal the program when our process ends.
func dieWithParent(a *syscall.SysProcAttr, sig syscall.Signal) {
	if sig == 0 {
		sig = syscall.SIGKILL
	}
	a.Pdeathsig = sig
}

// ownNamespace puts the program in a user namespace in which our root is user
// 1000. On disk its files stay root's, so nothing needs a change of owner.
func ownNamespace(a *syscall.SysProcAttr) {
	a.Cloneflags |= syscall.CLONE_NEWUSER
	a.UidMappings = []syscall.SysProcIDMap{{ContainerID: 1000, HostID: 0, Size: 1}}
	a.GidMappings = []syscall.SysProcIDMap{{ContainerID: 1000, HostID: 0, Size: 1}}
}

// ephemeralPorts returns the first port that the system gives to outgoing
// connections.
func ephemeralPorts() int {
	var first, last int
	b, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err == nil {
		_, err = fmt.Sscan(string(b), &first, &last)
	}
	if err != nil || first < 16000 {
		return 32768 // Linux's default
	}
	return first
}
