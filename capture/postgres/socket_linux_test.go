package postgres

import (
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestConnect_BoundsHowLongAPeerMayBeGone(t *testing.T) {
	l := newLab(t, "18")
	conn, err := l.source().connect(t.Context(), true, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer closeConn(conn)
	raw, err := conn.Conn().(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range []struct{ level, name, want int }{
		{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
		{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 30},
		{unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 60_000},
	} {
		var got int
		if e := raw.Control(func(fd uintptr) { got, err = unix.GetsockoptInt(int(fd), o.level, o.name) }); e != nil || err != nil || got != o.want {
			t.Errorf("option %d is %d, want %d: %v, %v", o.name, got, o.want, e, err)
		}
	}
}
