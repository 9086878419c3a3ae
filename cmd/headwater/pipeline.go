package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/headwaterdb/headwater/capture"
	"github.com/headwaterdb/headwater/capture/mysql"
	"github.com/headwaterdb/headwater/capture/postgres"
	"github.com/headwaterdb/headwater/checkpoint"
	"github.com/headwaterdb/headwater/checkpoint/topic"
	"github.com/headwaterdb/headwater/publish"
	"github.com/headwaterdb/headwater/publish/kafka"
	"github.com/headwaterdb/headwater/schema"
	"github.com/headwaterdb/headwater/schema/avro"
	"github.com/headwaterdb/headwater/schema/registry"
	"github.com/headwaterdb/headwater/snapshot"
)

// A pipeline is everything between one database and Kafka, joined. This file is the one
// place where concrete types meet.
type pipeline struct {
	*publish.Publisher
	name    string
	source  *snapshot.Source
	columns capture.Columns
	// definitions asks the database for the captured tables as they are now.
	definitions func(context.Context) ([]*capture.Table, error)
	encoder     *avro.Encoder
	registry    *registry.Client
	sink        *kafka.Sink
	topics      *kafka.Topics
}

// newPipeline joins the parts. It connects to nothing yet, but reads the files that the
// configuration names.
func newPipeline(cfg *Config, log *slog.Logger, metrics prometheus.Registerer) (*pipeline, error) {
	reg, errRegistry := registry.New(cfg.Registry, log)
	options, errKafka := cfg.Kafka.Options(log)
	if errRegistry != nil || errKafka != nil {
		return nil, fmt.Errorf("%w: %w", errConfig, errors.Join(prefixed("kafka", errKafka), errRegistry))
	}
	p := &pipeline{name: cfg.Name, registry: reg, columns: cfg.Columns}
	var err error
	if p.topics, err = kafka.NewTopics(cfg.Kafka, log); err != nil {
		return nil, err
	}
	if p.sink, err = kafka.New(cfg.Name, cfg.Kafka, log, metrics); err != nil {
		return nil, err
	}
	encoding := avro.Config{
		Format: cfg.Format, Naming: cfg.naming(), Columns: cfg.Columns, PartitionBy: cfg.Topics.PartitionBy,
		MaxRecordBytes: cfg.Kafka.MaxRecordBytes, Version: version, Notify: notices(log, metrics),
	}
	if p.encoder, err = avro.New(encoding, reg, p.topics); err != nil {
		return nil, err
	}
	promauto.With(metrics).NewGaugeFunc(prometheus.GaugeOpts{
		Name: "headwater_registry_waiting", Help: "1 while a record schema waits for the registry, else 0.",
	}, func() float64 {
		if reg.Waiting() != "" {
			return 1
		}
		return 0
	})
	if my := cfg.Source.MySQL; my != nil {
		db := mysql.New(*my, log, metrics)
		p.definitions = db.Definitions
		p.source = snapshot.New(db, db.Scanner(), cfg.Snapshot, log, metrics)
	} else {
		db := postgres.New(*cfg.Source.Postgres, log, metrics)
		p.definitions = db.Definitions
		p.source = snapshot.New(db, db.Scanner(), cfg.Snapshot, log, metrics)
	}
	p.Publisher = publish.New(cfg.Name, cfg.Publish, publish.Parts{
		Source: p.source, Encoder: p.encoder, Sink: p.sink, Checkpoints: topic.New(options, log),
		Fingerprint: fingerprint(cfg, &encoding), Prefix: cfg.Topics.Prefix, Log: log, Metrics: metrics,
	})
	return p, nil
}

func prefixed(section string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s.%w", section, err)
}

// Close gives up every connection.
func (p *pipeline) Close() {
	p.source.Close()
	p.sink.Close()
	p.topics.Close()
}

// fingerprint is a hash of the settings that change what is emitted (rule R8).
func fingerprint(cfg *Config, encoding *avro.Config) string {
	t := cfg.Tables
	text := strings.Join(append(append([]string{encoding.Fingerprint(), "include"}, t.Include...), append([]string{"exclude"}, t.Exclude...)...), "\n")
	return fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(text)))
}

// notices logs what a person should know of once, and counts all of it.
func notices(log *slog.Logger, metrics prometheus.Registerer) func(schema.Notice) {
	counts := promauto.With(metrics).NewCounterVec(prometheus.CounterOpts{
		Name: "headwater_notices_total",
		Help: "What did not stop the pipeline and a person should know of, by kind and table.",
	}, []string{"kind", "table"})
	return func(n schema.Notice) {
		counts.WithLabelValues(string(n.Kind), n.Table.String()).Inc()
		if !n.First {
			return
		}
		attrs := []any{"table", n.Table.String()}
		if n.Table == (capture.TableID{}) {
			attrs = nil
		}
		if n.Column != "" {
			attrs = append(attrs, "column", n.Column)
		}
		log.Warn(string(n.Kind)+": "+n.Text, attrs...)
	}
}

// check asks database, brokers and registry for everything that would keep the pipeline
// from working, at once, and then the database about the checkpoint.
func (p *pipeline) check(ctx context.Context) map[string]error {
	type answer struct {
		of  string
		err error
	}
	answers := make(chan answer)
	parts := map[string]func(context.Context) error{"database": p.source.Check, "kafka": p.sink.Check, "registry": p.registry.Check}
	for of, ask := range parts {
		go func() { answers <- answer{of, ask(ctx)} }()
	}
	found := map[string]error{}
	for range parts {
		a := <-answers
		found[a.of] = a.err
	}
	if !p.columns.All() && !hasProblem(found["database"]) {
		found["columns"] = p.checkColumns(ctx)
	}
	if !hasProblem(found["database"]) && !hasProblem(found["kafka"]) {
		found["checkpoint"] = p.checkCheckpoint(ctx)
	}
	return found
}

// checkColumns looks whether the columns that the configuration names are there, and whether
// a table can do without those that it leaves out.
func (p *pipeline) checkColumns(ctx context.Context) error {
	tables, err := p.definitions(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, t := range tables {
		errs = append(errs, p.encoder.Check(t))
	}
	for _, f := range p.columns.Unmatched(tables) {
		errs = append(errs, f)
	}
	return errors.Join(errs...)
}

// warnOfColumns logs which globs of the setting columns match nothing: what was to be left out
// may be published.
func (p *pipeline) warnOfColumns(ctx context.Context, log *slog.Logger) {
	if p.columns.All() {
		return
	}
	tables, err := p.definitions(ctx)
	switch {
	case ctx.Err() != nil:
	case err != nil:
		log.Warn("whether columns names columns that there are could not be asked", "error", oneLine(err))
	default:
		for _, f := range p.columns.Unmatched(tables) {
			log.Warn(f.What)
		}
	}
}

// hasProblem says whether a part has found more than warnings.
func hasProblem(err error) bool {
	return slices.ContainsFunc(flatten(err), func(err error) bool {
		var f *capture.Finding
		return !errors.As(err, &f) || !f.Warning
	})
}

// checkCheckpoint says why the pipeline could not go on from its checkpoint, if there is
// one. What a running pipeline commits meanwhile must not look like a gap.
func (p *pipeline) checkCheckpoint(ctx context.Context) error {
	for seq := uint64(0); ; {
		cp, err := p.Checkpoints.Load(ctx, p.name)
		if err == nil {
			err = p.source.Verify(ctx, cp.Resume())
		}
		switch {
		case errors.Is(err, checkpoint.ErrNotFound):
			return nil
		case err == nil, cp.Seq == seq, ctx.Err() != nil:
			return err
		}
		seq = cp.Seq
	}
}
