package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/schollz/progressbar/v3"

	"github.com/headwaterdb/headwater/snapshot"
)

// showProgress draws a bar for each table that is being read, on a terminal, until ctx
// ends.
func showProgress(ctx context.Context, progress func() snapshot.Progress, to io.Writer) error {
	t := time.NewTicker(200 * time.Millisecond)
	defer t.Stop()
	bars := bars{to: to}
	for {
		select {
		case <-t.C:
			bars.draw(progress())
		case <-ctx.Done():
			bars.draw(progress())
			bars.leave()
			return nil
		}
	}
}

// bars draws one bar at a time, each on a line of its own.
type bars struct {
	to    io.Writer
	table string // of the bar; "" without one
	bar   *progressbar.ProgressBar
}

// draw moves the bar of the table that is being read, and ends that of one that is done.
func (b *bars) draw(p snapshot.Progress) {
	for _, t := range p.Tables {
		id, done := t.ID.String(), t.State == "done"
		switch {
		case t.State == "waiting", done && id != b.table:
			continue
		case id != b.table:
			b.leave()
			b.begin(id, t.Estimate)
		}
		switch {
		case t.Estimate <= 0: // not known
		case done:
			b.bar.ChangeMax64(max(t.Rows, 1))
		case t.Rows >= t.Estimate: // too low; and the library takes a full bar for the end
			b.bar.ChangeMax64(t.Rows + 1)
		}
		_ = b.bar.Set64(t.Rows) // a terminal that has gone is nobody to tell
		if !done {
			return
		}
		b.leave()
	}
}

func (b *bars) begin(table string, estimate int64) {
	if estimate <= 0 {
		estimate = -1 // a spinner
	}
	b.table = table
	b.bar = progressbar.NewOptions64(estimate, progressbar.OptionSetWriter(b.to), progressbar.OptionSetDescription(table),
		progressbar.OptionSetWidth(30), progressbar.OptionShowCount(), progressbar.OptionShowIts(), progressbar.OptionSetItsString("rows"),
		progressbar.OptionSetPredictTime(true), progressbar.OptionSetSpinnerChangeInterval(0)) // else it starts a goroutine
}

// leave ends the line of the bar.
func (b *bars) leave() {
	if b.table != "" {
		fmt.Fprintln(b.to)
		b.table, b.bar = "", nil
	}
}
