//go:build !linux

package servers

import "syscall"

// dieWithParent does nothing here: only Linux ends a program with its parent.
func dieWithParent(*syscall.SysProcAttr, syscall.Signal) {}

// ownNamespace does nothing here: only Linux has user namespaces.
func ownNamespace(*syscall.SysProcAttr) {}

// ephemeralPorts returns the first port that the system gives to outgoing
// connections.
func ephemeralPorts() int { return 49152 }
