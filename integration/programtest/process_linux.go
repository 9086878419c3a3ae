package programtest

import "syscall"

// endWithParent makes the kernel kill the program when this process ends.
func endWithParent(a *syscall.SysProcAttr) { a.Pdeathsig = syscall.SIGKILL }
