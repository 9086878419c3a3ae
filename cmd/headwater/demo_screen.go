package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"golang.org/x/term"
)

// Columns of the screen, which is 100 wide.
const (
	demoTableWidth = 11
	demoRowWidth   = 52
)

// A demoScreen is where the demo tells its story, line by line: the same on a terminal and
// in a file, but for colours.
type demoScreen struct {
	mu     sync.Mutex
	w      io.Writer
	gone   func() // is called when w takes nothing any more
	colour bool
	since  time.Time // lines are stamped with the time since then
}

func newDemoScreen(w io.Writer, gone func()) *demoScreen {
	f, ok := w.(interface{ Fd() uintptr })
	colour := ok && term.IsTerminal(int(f.Fd())) && os.Getenv("NO_COLOR") == ""
	return &demoScreen{w: w, gone: gone, colour: colour, since: time.Now()}
}

// Colours, as terminals know them.
const (
	demoBold  = "1"
	demoRed   = "1;31"
	demoGreen = "1;32"
	demoDim   = "2"
)

func (s *demoScreen) paint(colour, text string) string {
	if !s.colour {
		return text
	}
	return "\x1b[" + colour + "m" + text + "\x1b[0m"
}

// line prints a line as it is.
func (s *demoScreen) line(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := fmt.Fprintf(s.w, format+"\n", args...); err != nil {
		s.gone()
	}
}

// head prints what stands above the rows.
func (s *demoScreen) head() {
	s.line("\n%s", s.paint(demoBold, fmt.Sprintf("  %7s  %-6s  %-*s  %-*s %14s", "time", "change", demoTableWidth, "table", demoRowWidth, "row, decoded by its schema in the registry", "commit→visible")))
}

var demoOps = map[byte]string{'c': "insert", 'u': "update", 'd': "delete", 'r': "read"}

// row prints a record, and how long after the commit it came.
func (s *demoScreen) row(r *demoRecord, delay time.Duration) {
	after := "snapshot"
	if r.op != 'r' {
		after = demoMillis(delay)
	}
	text := demoCut(r.row, demoRowWidth)
	s.line("  %7s  %-6s  %-*s  %s%s %14s", demoSeconds(time.Since(s.since)), demoOps[r.op], demoTableWidth, r.table,
		text, strings.Repeat(" ", demoRowWidth-utf8.RuneCountInString(text)), after)
}

// event prints something that happened.
func (s *demoScreen) event(colour, text string) {
	s.line("%s", s.paint(colour, fmt.Sprintf("  %7s  ── %s", demoSeconds(time.Since(s.since)), text)))
}

func demoCut(s string, width int) string {
	if r := []rune(s); len(r) > width {
		return string(r[:width-1]) + "…"
	}
	return s
}

func demoSeconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }

func demoMillis(d time.Duration) string { return fmt.Sprintf("%d ms", d.Milliseconds()) }
