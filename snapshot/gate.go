package snapshot

import (
	"context"
	"sync"
)

// A Gate makes the calls of a [Scanner] wait for its source's Stream, which passes two
// points: it is connected, and views may be opened.
type Gate struct {
	mu        sync.Mutex // guards the channels, which are closed when Stream has passed
	connected chan struct{}
	open      chan struct{}
}

// NewGate returns a Gate before both points.
func NewGate() *Gate {
	return &Gate{connected: make(chan struct{}), open: make(chan struct{})}
}

// Connect says that Stream knows its server and its place.
func (g *Gate) Connect() { g.pass(&g.connected) }

// Open says that views may be opened: Stream has passed what the checkpoint says was
// emitted before.
func (g *Gate) Open() { g.pass(&g.open) }

func (g *Gate) pass(c *chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	close(*c)
}

// Reset makes everybody wait for the next Stream. It is called when one has ended.
func (g *Gate) Reset() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, c := range []*chan struct{}{&g.connected, &g.open} {
		select {
		case <-*c:
			*c = make(chan struct{})
		default: // those who wait go on waiting
		}
	}
}

// Connected waits for Connect. An error is the cause of ctx's end.
func (g *Gate) Connected(ctx context.Context) error { return g.wait(ctx, &g.connected) }

// OpenForViews waits for Open. An error is the cause of ctx's end.
func (g *Gate) OpenForViews(ctx context.Context) error { return g.wait(ctx, &g.open) }

func (g *Gate) wait(ctx context.Context, c *chan struct{}) error {
	g.mu.Lock()
	passed := *c
	g.mu.Unlock()
	return wait(ctx, passed)
}
