package mysql

import (
	"bufio"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/go-mysql-org/go-mysql/mysql"
	"github.com/go-mysql-org/go-mysql/replication"
)

// pipeConn is a session whose other end the test holds.
func pipeConn(t *testing.T, timeout time.Duration) (*conn, net.Conn) {
	t.Helper()
	ours, theirs := net.Pipe()
	t.Cleanup(func() { _, _ = ours.Close(), theirs.Close() })
	c := &conn{net: &bufferedConn{Conn: ours, timeout: timeout}}
	c.net.r = bufio.NewReaderSize(socket{c.net}, readBuffer)
	return c, theirs
}

func TestConn_IsWokenBetweenPacketsAlone(t *testing.T) {
	t.Parallel()
	c, server := pipeConn(t, 5*time.Minute)
	type answer struct {
		packet string
		err    error
	}
	answers := make(chan answer)
	go func() {
		for range 3 {
			p, err := c.readPacket()
			answers <- answer{string(p), err}
		}
	}()
	write := func(b ...byte) {
		if _, err := server.Write(b); err != nil {
			t.Error(err)
		}
	}
	c.net.wake()
	if a := <-answers; !errors.Is(a.err, errWoken) {
		t.Errorf("woken while it waits, it reads %q (%v)", a.packet, a.err)
	}
	write(3, 0, 0, 0, 'a') // the pipe gives it away once it is read
	c.net.wake()
	write('b', 'c')
	if a := <-answers; a.packet != "abc" || a.err != nil {
		t.Errorf("woken inside of a packet, it reads %q (%v)", a.packet, a.err)
	}
	if a := <-answers; !errors.Is(a.err, errWoken) {
		t.Errorf("after that packet it reads %q (%v)", a.packet, a.err)
	}
}

func TestConn_ReadTimeoutEndsTheWaitInsideOfAPacketToo(t *testing.T) {
	t.Parallel()
	c, server := pipeConn(t, 200*time.Millisecond)
	done := make(chan error, 1)
	go func() {
		_, err := c.readPacket()
		done <- err
	}()
	if _, err := server.Write([]byte{100, 0, 0, 0, 1, 2, 3}); err != nil {
		t.Fatal(err)
	}
	c.net.wake() // it stays pending
	select {
	case err := <-done:
		if !errors.Is(err, os.ErrDeadlineExceeded) || !c.net.silent {
			t.Errorf("got %v", err)
		}
	case <-time.After(2 * time.Minute):
		t.Fatal("hundreds of read timeouts have passed, and it still waits")
	}
}

func TestConn_ErrorsAreReadWhateverTheirLength(t *testing.T) {
	const whole = "\xff\xcc\x04#HY000no"
	for n := 1; n <= len(whole); n++ {
		err := answerError([]byte(whole[:n]))
		var my *mysql.MyError
		if got := errors.As(err, &my); got != (n >= 3) || err == nil {
			t.Errorf("%d bytes: %v", n, err)
		} else if got && my.Code != 1228 {
			t.Errorf("%d bytes: the code %d", n, my.Code)
		}
		if n == len(whole) && (my.State != "HY000" || my.Message != "no") {
			t.Errorf("the state %q and the text %q", my.State, my.Message)
		}
	}
}

func TestConn_AnswersThatTheLibraryCannotDecodeAreErrors(t *testing.T) {
	t.Parallel()
	l := newLab(t, "MySQL 9")
	p := newProxy(t, l.server.Addr())
	s := l.source(func(c *Config) { c.URL = strings.Replace(c.URL, l.server.Addr(), p.Addr().String(), 1) })
	c, err := s.connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	p.mu.Lock()
	p.instead = []byte{1, 0, 0, 1, 0xff} // an error without a number
	p.mu.Unlock()
	if err := c.exec(t.Context(), "SELECT 1"); err == nil || !strings.Contains(err.Error(), "cannot be decoded") {
		t.Errorf("got %v", err)
	}
}

func TestGTID_OfADamagedEventIsAnError(t *testing.T) {
	le := binary.LittleEndian
	plain := append([]byte{1}, "0123456789abcdef"...)
	plain = le.AppendUint64(plain, 7)
	plain = append(plain, 2)
	plain = le.AppendUint64(le.AppendUint64(plain, 1), 2)
	plain = append(plain, 1, 0, 0, 0, 0, 0, 0x80, 9, 0, 0, 0, 0, 0, 0) // two times of seven bytes
	// Fields with their numbers, all doubled: flags, uuid, number, tag, and a time.
	tagged := []byte{2, 0, 8, 0, 2, 2}
	for i := range byte(16) {
		tagged = append(tagged, 2*i)
	}
	tagged = append(tagged, 4, 4*7, 6, 2*3, 't', 'a', 'g', 8, 0, 10, 4, 12, 2)
	for what, c := range map[string]struct {
		typ   replication.EventType
		body  []byte
		least int // bytes without which there is no transaction
		want  string
	}{
		"plain":  {replication.GTID_EVENT, plain, 25, "30313233-3435-3637-3839-616263646566:7"},
		"tagged": {replication.GTID_TAGGED_LOG_EVENT, tagged, 24, "00010203-0405-0607-0809-0a0b0c0d0e0f:tag:7"},
	} {
		for n := range len(c.body) + 1 {
			g, _, err := parseMySQLGTID(&header{typ: c.typ}, c.body[:n])
			if n < c.least && err == nil {
				t.Errorf("%s: %d bytes of %d name the transaction %s", what, n, len(c.body), &g)
			}
			if n == len(c.body) && (err != nil || g.String() != c.want) {
				t.Errorf("%s: the whole names the transaction %s (%v)", what, &g, err)
			}
		}
	}
}
