package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sr/srfake"

	"github.com/headwaterdb/headwater/checkpoint"
	"github.com/headwaterdb/headwater/checkpoint/topic"
	"github.com/headwaterdb/headwater/snapshot"
)

func demoCommand() *cobra.Command {
	d := &demo{}
	var source string
	c := &cobra.Command{
		Use:   "demo",
		Short: "See rows travel, and the pipeline survive SIGKILL",
		Long: `Show headwater at work, with everything private to this command: a database (one that is
installed, else fetched), a Kafka and a registry within this process, a small shop that
writes, and a pipeline in a process of its own that is killed by SIGKILL in mid-load. At
the end the topics are compared with the tables and with the shop's own record of what it
did; exit code 1 when they differ. Nothing is left behind but a database server that had to
be fetched, in the user's cache folder.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if d.load < time.Second || d.kills < 0 {
				return usage(errors.New("--for must be at least 1s, --kills at least 0"))
			}
			i := slices.IndexFunc(demoProducts, func(p demoProduct) bool { return p.source == source })
			if i < 0 {
				return unknownSource(source)
			}
			d.product = demoProducts[i]
			ctx, stop := untilSignal(cmd.Context(), slog.New(slog.DiscardHandler))
			defer stop()
			// Nobody to show it to any more is a reason to stop like any other.
			ctx, gone := signal.NotifyContext(ctx, syscall.SIGHUP)
			defer gone()
			signal.Ignore(syscall.SIGPIPE)
			d.screen = newDemoScreen(cmd.OutOrStdout(), gone)
			err := d.run(ctx)
			if left := d.close(); left != nil {
				return errors.Join(err, fmt.Errorf("clean up: %w", left))
			}
			if err != nil && ctx.Err() != nil {
				d.screen.line("\nStopped before the end: nothing was compared, nothing is left behind.")
				return nil
			}
			return err
		},
	}
	c.Flags().StringVar(&source, "source", "postgres", "the database: postgres, mysql or mariadb")
	c.Flags().DurationVar(&d.load, "for", 30*time.Second, "how long the shop writes")
	c.Flags().IntVar(&d.kills, "kills", 5, "how often the pipeline is killed")
	return c
}

const (
	demoCustomers = 300 // before headwater looks, each with eight orders of three lines
	demoClerks    = 4
	// demoPatience is how long the pipeline may take to be ready, and to catch up.
	demoPatience = 60 * time.Second
)

// A demo is headwater on a small shop.
type demo struct {
	product demoProduct
	load    time.Duration
	kills   int

	screen   *demoScreen
	dir      string // temporary: configuration and log of the pipeline
	database *demoDatabase
	kafka    *kfake.Cluster
	registry *srfake.Registry
	shop     *demoShop
	topics   *demoTopics
	watch    *demoWatch
	process  *demoProcess
	existing int // rows before headwater looked

	cleanups []func() error
}

// run shows everything from the start to the verdict. Close must follow.
func (d *demo) run(ctx context.Context) error {
	d.screen.line("%s\n", d.screen.paint(demoBold, "headwater demo")+": a shop writes to "+d.product.name+", headwater carries every change to Kafka,\nand is killed on the way. Then we count.")
	if err := d.start(ctx); err != nil {
		return err
	}
	if err := d.travel(ctx); err != nil {
		return err
	}
	return d.count(ctx)
}

// start starts all that the pipeline needs, and fills the shop's tables.
func (d *demo) start(ctx context.Context) (err error) {
	slow := time.AfterFunc(4*time.Second, func() {
		d.screen.line("  %-10s  is still starting: where none is installed it is fetched, once, into the cache folder", d.product.name)
	})
	d.database, err = d.product.start(ctx)
	slow.Stop()
	if d.database != nil {
		d.later(d.database.close)
	}
	if err != nil {
		return err
	}
	if d.kafka, err = kfake.NewCluster(kfake.NumBrokers(1)); err != nil {
		return fmt.Errorf("start Kafka: %w", err)
	}
	d.later(func() error { d.kafka.Close(); return nil })
	d.registry = srfake.New()
	d.later(func() error { d.registry.Close(); return nil })
	if d.dir, err = os.MkdirTemp("", "headwater-demo-"); err != nil {
		return fmt.Errorf("make a folder: %w", err)
	}
	d.later(func() error { return os.RemoveAll(d.dir) })

	if d.shop, err = openDemoShop(ctx, d.database, demoCustomers, demoClerks); err != nil {
		return err
	}
	d.existing = demoCustomers * (1 + 8 + 3*8)
	if d.topics, err = newDemoTopics(d.kafka.ListenAddrs(), "shop."+d.database.schema+".", d.registry.URL()); err != nil {
		return err
	}
	d.watch = &demoWatch{screen: d.screen, committed: d.shop.committed}
	if err := os.WriteFile(d.config(), d.configuration(), 0o600); err != nil {
		return fmt.Errorf("write the pipeline's configuration: %w", err)
	}
	about := func(what, where, remark string) { d.screen.line("  %-10s  %-24s  %s", what, where, remark) }
	about(d.product.name, d.database.addr, d.database.version+", private, gone when the demo ends")
	about("Kafka", d.kafka.ListenAddrs()[0], "in this process, in memory, with transactions (kfake)")
	about("registry", d.registry.URL(), "in this process, in memory (srfake)")
	about("shop", fmt.Sprintf("%d rows so far", d.existing), fmt.Sprintf("customers, orders, order_lines; %d connections", demoClerks))
	return nil
}

// later has f called by close, which goes through them in reverse order.
func (d *demo) later(f func() error) { d.cleanups = append(d.cleanups, f) }

// close ends and removes whatever run has started and made.
func (d *demo) close() error {
	var errs []error
	for _, f := range slices.Backward(d.cleanups) {
		errs = append(errs, f())
	}
	return errors.Join(errs...)
}

func (d *demo) config() string { return filepath.Join(d.dir, "shop.yml") }

// configuration is what a person would write, but for small chunks, so that the tables are
// read in many steps, and short intervals, so that the end is not waited for.
func (d *demo) configuration() []byte {
	return fmt.Appendf(nil, `name: shop
source:
  %s
tables: {include: ["%s.*"]}
snapshot: {mode: initial, chunk_bytes: 65536}
topics: {prefix: shop, partitions: 3, replication: 1}
registry: {url: %q}
kafka: {brokers: [%q]}
publish: {idle_interval: 500ms}
`, d.database.source, d.database.schema, d.registry.URL(), d.kafka.ListenAddrs()[0])
}

// travel lets the shop write while the pipeline runs and is killed, and returns when
// everything that was written has been carried.
func (d *demo) travel(ctx context.Context) (err error) {
	ctx, fail := context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer func() {
		if cause := context.Cause(ctx); err != nil && cause != nil {
			err = cause // and not what followed from it
		}
		fail(nil)
	}()
	wg.Go(func() {
		if err := d.topics.follow(ctx, d.watch.took); ctx.Err() == nil {
			fail(fmt.Errorf("follow the topics: %w", err))
		}
	})
	if err := d.launch(); err != nil {
		return err
	}
	d.later(func() error { d.process.end(); return nil })
	d.screen.line("  %-10s  process %d: headwater run --config %s", "headwater", d.process.pid, d.config())
	d.screen.head()
	err = d.until(ctx, "the pipeline has not begun to follow the log", func() (bool, error) {
		cp, err := d.checkpoint(ctx)
		return cp.At != "", err
	})
	if err != nil {
		return err
	}

	hours, closing := context.WithCancel(ctx)
	working := make(chan error, 1)
	wg.Go(func() { working <- d.shop.work(hours) })
	began := time.Now()
	err = d.shoot(ctx, began)
	if err == nil {
		err = d.pause(ctx, time.Until(began.Add(d.load)))
	}
	closing()
	if err := errors.Join(err, <-working); err != nil {
		return err
	}
	closed := time.Now()
	d.screen.event(demoBold, "the shop has closed; headwater carries what is left")
	if err := d.catchUp(ctx); err != nil {
		return err
	}
	d.screen.event(demoBold, fmt.Sprintf("done %s later; headwater is stopped by SIGTERM", demoSeconds(time.Since(closed))))
	return d.process.stop(ctx)
}

// launch starts the pipeline, again or for the first time.
func (d *demo) launch() error {
	p, err := startDemoProcess(d.config(), filepath.Join(d.dir, "headwater.log"))
	if err != nil {
		return err
	}
	d.process = p
	return nil
}

// shoot kills the pipeline again and again: first while it reads the tables, then at
// moments spread over the shop's hours.
func (d *demo) shoot(ctx context.Context, began time.Time) error {
	each := d.load / time.Duration(d.kills+1)
	for n := 1; n <= d.kills; n++ {
		at := began.Add(each*time.Duration(n) + time.Duration((rand.Float64()-0.5)*float64(each)/3))
		if n == 1 && d.kills > 1 {
			if err := d.awaitSnapshot(ctx, at); err != nil {
				return err
			}
		} else if err := d.pause(ctx, time.Until(at)); err != nil {
			return err
		}
		old := d.process
		if err := old.kill(); err != nil {
			return err
		}
		reads, changes := d.watch.kill() // after it: what is committed from now on, another process carries
		d.screen.event(demoRed, fmt.Sprintf("SIGKILL %d of %d, process %d; visible so far: %d rows read, %d changes", n, d.kills, old.pid, reads, changes))
		if err := d.launch(); err != nil {
			return err
		}
		d.screen.event(demoBold, fmt.Sprintf("process %d starts; the shop has not stopped", d.process.pid))
	}
	return nil
}

// awaitSnapshot waits until a part of the snapshot is visible, or until at.
func (d *demo) awaitSnapshot(ctx context.Context, at time.Time) error {
	for time.Now().Before(at) {
		if reads, _ := d.watch.seen(); reads >= d.existing/4 {
			return nil
		}
		if err := d.pause(ctx, time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

// catchUp waits until everything is carried: the tables are read, and the last change of
// all is visible.
func (d *demo) catchUp(ctx context.Context) error {
	if err := d.shop.last(ctx, d.watch.expect); err != nil {
		return err
	}
	return d.until(ctx, "the pipeline has not carried everything", func() (bool, error) {
		cp, err := d.checkpoint(ctx)
		return err == nil && snapshot.Done(cp.Entries) && d.watch.saw(), err
	})
}

// checkpoint is the pipeline's last, or an empty one.
func (d *demo) checkpoint(ctx context.Context) (checkpoint.Checkpoint, error) {
	brokers := []kgo.Opt{kgo.SeedBrokers(d.kafka.ListenAddrs()...)}
	cp, err := topic.New(brokers, nil).Load(ctx, "shop")
	if errors.Is(err, checkpoint.ErrNotFound) {
		return cp, nil
	}
	return cp, err
}

// until asks done again and again, for as long as our patience lasts.
func (d *demo) until(ctx context.Context, not string, done func() (bool, error)) error {
	for limit := time.Now().Add(demoPatience); ; {
		ok, err := done()
		if ok || err != nil {
			return err
		}
		if time.Now().After(limit) {
			return fmt.Errorf("%s after %v%s", not, demoPatience, d.process.lastWords())
		}
		if err := d.pause(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
}

// pause waits, and fails when the pipeline ends by itself or the watch has failed.
func (d *demo) pause(ctx context.Context, wait time.Duration) error {
	select {
	case <-time.After(wait):
		return nil
	case <-d.process.done:
		return d.process.ended()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// count compares topics, tables and the shop's record, and says how it went.
func (d *demo) count(ctx context.Context) error {
	records, aborted, err := d.topics.read(ctx)
	if err != nil {
		return err
	}
	tables, err := readDemoTables(ctx, d.database)
	if err != nil {
		return err
	}
	c := countDemo(tables, d.shop.made(), records)

	d.screen.line("\n%s", d.screen.paint(demoBold, fmt.Sprintf("  %-11s  %13s  %13s  %16s  %17s  %14s", "", "rows in table", "rows in topic", "read by snapshot", "changes committed", "found in topic")))
	for _, t := range c.tables {
		d.screen.line("  %-11s  %13d  %13d  %16d  %17d  %14d", t.name, t.inTable, t.inTopic, t.snapshot, t.made, t.found)
	}
	calm, across := d.watch.delays()
	d.screen.line("")
	if len(calm) > 0 {
		d.screen.line("  commit → visible  p50 %s, p99 %s, of %d changes", demoMillis(demoQuantile(calm, 0.5)), demoMillis(demoQuantile(calm, 0.99)), len(calm))
	}
	if n := len(across); n > 0 {
		d.screen.line("  across a kill     p50 %s, longest %s, of %d changes that waited for a restart", demoMillis(demoQuantile(across, 0.5)), demoMillis(across[n-1]), n)
	}
	if aborted > 0 {
		d.screen.line("  aborted           %d records of cut-off transactions, never seen by read-committed consumers", aborted)
	}
	if !c.ok() {
		d.screen.line("\n%s", d.screen.paint(demoRed, c.verdict()))
		for i, p := range c.problems {
			if i == 20 {
				d.screen.line("  … and %d more", len(c.problems)-i)
				break
			}
			d.screen.line("  %s", p)
		}
		return errors.New("the topics do not hold what the tables hold")
	}
	d.screen.line("\n%s", d.screen.paint(demoGreen, c.verdict()))
	d.screen.line(`
Try next
  headwater config --source %-11severy setting of a pipeline, with its default
  headwater check --config shop.yml    what your database, brokers and registry still lack
  docker compose up --build            the same on real servers, in containers
  README.md                            set up a pipeline of your own`, d.product.source)
	return nil
}
