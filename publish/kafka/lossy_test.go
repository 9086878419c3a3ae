package kafka

import (
	"encoding/binary"
	"io"
	"net"
	"sync"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// A fate is what becomes of a request.
type fate int

const (
	delivered   fate = iota
	requestLost      // the broker never sees it
	answerLost       // the broker acts on it, and nobody learns of it
)

// A network carries the requests of every client to an in-memory cluster. By rule it cuts
// a connection before a request arrives, or after it was acted on.
type network struct {
	mu   sync.Mutex
	rule func(kmsg.Key) fate
	lost int
}

func (n *network) setRule(rule func(kmsg.Key) fate) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.rule = rule
}

func (n *network) losses() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.lost
}

func (n *network) decide(key kmsg.Key) fate {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.rule == nil {
		return delivered
	}
	f := n.rule(key)
	if f != delivered {
		n.lost++
	}
	return f
}

// listen is for kfake.ListenFn.
func (n *network) listen(kind, address string) (net.Listener, error) {
	l, err := net.Listen(kind, address)
	return &lossyListener{l, n}, err
}

type lossyListener struct {
	net.Listener
	n *network
}

func (l *lossyListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &lossyConn{Conn: c, n: l.n, unanswered: map[int32]bool{}}, nil
}

// A lossyConn is the broker's end of a connection. Requests and answers are frames: four
// bytes of size, then for a request key (2), version (2) and correlation id (4), for an
// answer the correlation id.
type lossyConn struct {
	net.Conn
	n       *network
	pending []byte // rest of a request that was let through

	mu         sync.Mutex
	unanswered map[int32]bool
}

func (c *lossyConn) Read(p []byte) (int, error) {
	if len(c.pending) == 0 {
		var size [4]byte
		if _, err := io.ReadFull(c.Conn, size[:]); err != nil {
			return 0, err
		}
		frame := append(size[:], make([]byte, binary.BigEndian.Uint32(size[:]))...)
		if _, err := io.ReadFull(c.Conn, frame[4:]); err != nil {
			return 0, err
		}
		switch c.n.decide(kmsg.Key(binary.BigEndian.Uint16(frame[4:]))) {
		case requestLost:
			c.Conn.Close()
			return 0, net.ErrClosed
		case answerLost:
			c.mu.Lock()
			c.unanswered[int32(binary.BigEndian.Uint32(frame[8:]))] = true
			c.mu.Unlock()
		}
		c.pending = frame
	}
	n := copy(p, c.pending)
	c.pending = c.pending[n:]
	return n, nil
}

// Write gets whole answers from the broker.
func (c *lossyConn) Write(p []byte) (int, error) {
	if len(p) >= 8 {
		c.mu.Lock()
		lost := c.unanswered[int32(binary.BigEndian.Uint32(p[4:]))]
		c.mu.Unlock()
		if lost {
			c.Conn.Close()
			return 0, net.ErrClosed
		}
	}
	return c.Conn.Write(p)
}

// the first n requests of a kind meet with f.
func first(n int, key kmsg.Key, f fate) func(kmsg.Key) fate {
	return func(k kmsg.Key) fate {
		if k == key && n > 0 {
			n--
			return f
		}
		return delivered
	}
}

// onEvery calls f when every nth request of a kind is on its way, and returns how often it
// has.
func (n *network) onEvery(nth int, key kmsg.Key, f func()) (calls func() int) {
	var seen, called atomic.Int64
	n.setRule(func(k kmsg.Key) fate {
		if k == key && seen.Add(1)%int64(nth) == 0 {
			f()
			called.Add(1)
		}
		return delivered
	})
	return func() int { return int(called.Load()) }
}
