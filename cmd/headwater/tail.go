package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math"
	"math/big"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/hamba/avro/v2"
	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/headwaterdb/headwater/schema/registry"
)

func tailCommand() *cobra.Command {
	var path string
	var beginning, asJSON bool
	c := &cobra.Command{
		Use:   "tail TOPIC…",
		Short: "Show the records of topics as they become visible, decoded",
		Long: `Show the committed records of topics as they become visible, decoded through the
registry, one line each: time, topic, operation, key, the row or what changed in it, and
the milliseconds from the database's commit to here. A topic may be named without the
prefix, and with "*". † marks a tombstone. It ends by Ctrl-C.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if err := cobra.MinimumNArgs(1)(cmd, args); err != nil {
				return usage(err)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := loadConfig(path)
			if err != nil {
				return err
			}
			ctx, stop := untilSignal(cmd.Context(), slog.New(slog.DiscardHandler))
			defer stop()
			t := tailing{cfg: cfg, topics: args, beginning: beginning, json: asJSON, out: cmd.OutOrStdout(), err: cmd.ErrOrStderr()}
			err = t.run(ctx)
			if ctx.Err() != nil {
				return nil
			}
			return err
		},
	}
	configFlag(c, &path)
	c.Flags().BoolVar(&beginning, "from-beginning", false, "begin with what the topics hold, not with what comes")
	c.Flags().BoolVar(&asJSON, "json", false, "print each record as one JSON object")
	return c
}

// topicPatterns returns regular expressions for topics named on the command line.
func topicPatterns(prefix, delimiter string, names []string) []string {
	var out []string
	for _, n := range names {
		if !strings.HasPrefix(n, prefix+delimiter) {
			n = prefix + delimiter + n
		}
		out = append(out, "^"+strings.ReplaceAll(regexp.QuoteMeta(n), `\*`, `.*`)+"$")
	}
	return out
}

// A tailing is one run of tail.
type tailing struct {
	cfg       *Config
	topics    []string // patterns, as on the command line
	beginning bool
	json      bool
	out, err  io.Writer
	began     time.Time
}

func (t *tailing) run(ctx context.Context) error {
	log := newLogger(t.cfg, t.err, true)
	options, err := t.cfg.Kafka.Options(nil)
	if err != nil {
		return fmt.Errorf("%w: kafka.%w", errConfig, err)
	}
	reg, err := registry.New(t.cfg.Registry, log)
	if err != nil {
		return fmt.Errorf("%w: %w", errConfig, err)
	}
	t.began = time.Now()
	// By time and not from the end: of a topic that is made later the first record counts.
	from := kgo.NewOffset().AfterMilli(t.began.UnixMilli())
	if t.beginning {
		from = kgo.NewOffset().AtStart()
	}
	naming := t.cfg.naming()
	patterns := topicPatterns(naming.Prefix, naming.Delimiter, t.topics)
	cl, err := kgo.NewClient(append(options,
		kgo.ConsumeRegex(), kgo.ConsumeTopics(patterns...), kgo.ConsumeResetOffset(from),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.MetadataMaxAge(2*time.Second))...)
	if err != nil {
		return err
	}
	defer cl.Close()
	if err := t.look(ctx, cl, patterns); err != nil {
		return kafkaError(t.cfg, "list the topics", err)
	}
	d := newRecordDecoder(reg.Schema)
	for {
		fetches := cl.PollFetches(ctx)
		if ctx.Err() != nil {
			return nil
		}
		for _, e := range fetches.Errors() {
			return fmt.Errorf("read %s: %w", e.Topic, e.Err)
		}
		now := time.Now()
		for it := fetches.RecordIter(); !it.Done(); {
			if err := t.print(ctx, d, it.Next(), now); err != nil {
				return err
			}
		}
	}
}

// look asks for the topics, so that a wrong address or name is no endless silence.
func (t *tailing) look(ctx context.Context, cl *kgo.Client, patterns []string) error {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	found, err := kadm.NewClient(cl).ListTopics(ctx)
	if err != nil {
		return err
	}
	for i, p := range patterns {
		form := regexp.MustCompile(p)
		if !slices.ContainsFunc(found.Names(), form.MatchString) {
			fmt.Fprintf(t.err, "no topic matches %s yet: waiting for it\n", t.topics[i])
		}
	}
	return nil
}

// print prints one record, or why it cannot be shown.
func (t *tailing) print(ctx context.Context, d *recordDecoder, r *kgo.Record, now time.Time) error {
	v, err := d.record(ctx, r)
	switch {
	case ctx.Err() != nil:
		return nil
	case err != nil && t.json:
		return json.NewEncoder(t.out).Encode(map[string]any{"topic": r.Topic, "partition": r.Partition, "offset": r.Offset, "error": err.Error()})
	case err != nil:
		_, err = fmt.Fprintf(t.out, "%s  %s  partition %d, offset %d cannot be decoded: %v\n", now.Format(clock), r.Topic, r.Partition, r.Offset, err)
	case t.json:
		return json.NewEncoder(t.out).Encode(v)
	default:
		_, err = fmt.Fprintln(t.out, v.line(now, !r.Timestamp.Before(t.began)))
	}
	return err
}

// A recordDecoder reads Confluent-framed Avro with the schema that the registry holds.
type recordDecoder struct {
	schema  func(ctx context.Context, id int) (string, error)
	schemas map[int]avro.Schema
	api     map[int]avro.API
}

func newRecordDecoder(schema func(ctx context.Context, id int) (string, error)) *recordDecoder {
	return &recordDecoder{schema: schema, schemas: map[int]avro.Schema{}, api: map[int]avro.API{}}
}

// A decodedRecord is one record for a person.
type decodedRecord struct {
	Topic     string         `json:"topic"`
	Partition int32          `json:"partition"`
	Offset    int64          `json:"offset"`
	Time      time.Time      `json:"time"`
	Key       map[string]any `json:"key"`
	Value     map[string]any `json:"value"`
}

func (d *recordDecoder) record(ctx context.Context, r *kgo.Record) (*decodedRecord, error) {
	key, err := d.datum(ctx, r.Key)
	if err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	value, err := d.datum(ctx, r.Value)
	if err != nil {
		return nil, fmt.Errorf("value: %w", err)
	}
	return &decodedRecord{r.Topic, r.Partition, r.Offset, r.Timestamp, key, value}, nil
}

func (d *recordDecoder) datum(ctx context.Context, b []byte) (map[string]any, error) {
	if b == nil {
		return nil, nil
	}
	if len(b) < 5 || b[0] != 0 {
		return nil, errors.New("it does not begin with a schema id; was it written by something else?")
	}
	id := int(binary.BigEndian.Uint32(b[1:5]))
	s := d.schemas[id]
	if s == nil {
		text, err := d.schema(ctx, id)
		if err != nil {
			return nil, fmt.Errorf("schema %d: %w", id, err)
		}
		// A cache of its own: the library's shared one mixes up schemas with equal names.
		if s, err = avro.ParseWithCache(text, "", &avro.SchemaCache{}); err != nil {
			return nil, fmt.Errorf("schema %d: %w", id, err)
		}
		d.schemas[id] = s
		d.api[id] = avro.Config{}.Freeze()
	}
	var v map[string]any
	if err := d.api[id].Unmarshal(s, b[5:], &v); err != nil {
		return nil, fmt.Errorf("schema %d: %w", id, err)
	}
	return plain(s, v).(map[string]any), nil
}

// plain takes the value of a schema out of the form in which the library returns it: the
// branch of a union out of a map that names it, exact numbers as they are written in SQL.
func plain(s avro.Schema, v any) any {
	if ref, ok := s.(*avro.RefSchema); ok {
		s = ref.Schema()
	}
	if u, ok := s.(*avro.UnionSchema); ok {
		if m, ok := v.(map[string]any); ok { // primitive types come without
			for name, in := range m { // there is one
				return plain(branch(u, name), in)
			}
		}
		s = branch(u, "")
	}
	switch v := v.(type) {
	case map[string]any:
		switch s := s.(type) {
		case *avro.RecordSchema:
			for _, f := range s.Fields() {
				v[f.Name()] = plain(f.Type(), v[f.Name()])
			}
		case *avro.MapSchema:
			for name, in := range v {
				v[name] = plain(s.Values(), in)
			}
		}
	case []any:
		if s, ok := s.(*avro.ArraySchema); ok {
			for i := range v {
				v[i] = plain(s.Items(), v[i])
			}
		}
	case *big.Rat:
		if typed, ok := s.(avro.LogicalTypeSchema); ok {
			if d, ok := typed.Logical().(*avro.DecimalLogicalSchema); ok {
				return v.FloatString(d.Scale())
			}
		}
		return v.RatString()
	case []byte:
		return fmt.Sprintf("0x%x", v)
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) { // JSON has no such numbers
			return fmt.Sprint(v)
		}
	case float32:
		return plain(s, float64(v))
	}
	return v
}

// branch is the type in a union that the library calls by name, else one that is not null.
func branch(u *avro.UnionSchema, name string) avro.Schema {
	var some avro.Schema
	for _, s := range u.Types() {
		if ref, ok := s.(*avro.RefSchema); ok {
			s = ref.Schema()
		}
		if s.Type() == avro.Null {
			continue
		}
		some = s
		if named, ok := s.(avro.NamedSchema); ok && named.FullName() == name || string(s.Type()) == name {
			return s
		}
	}
	return some
}

const clock = "15:04:05.000"

// line is the record on one line. fresh says that it has just become visible.
func (r *decodedRecord) line(now time.Time, fresh bool) string {
	key := fields(r.Key, nil)
	if r.Value == nil {
		return fmt.Sprintf("%s  %-24s †  %s", now.Format(clock), r.Topic, key)
	}
	op, _ := r.Value["op"].(string)
	before, _ := r.Value["before"].(map[string]any)
	after, _ := r.Value["after"].(map[string]any)
	parts := []string{now.Format(clock), fmt.Sprintf("%-24s %s", r.Topic, op), key}
	switch {
	case op == "u" && before != nil:
		parts = append(parts, fields(after, before))
	case after != nil:
		parts = append(parts, fields(after, nil))
	}
	if source, ok := r.Value["source"].(map[string]any); ok && fresh && op != "r" {
		if us, ok := source["ts_us"].(int64); ok {
			parts = append(parts, fmt.Sprintf("%d ms", now.Sub(time.UnixMicro(us)).Milliseconds()))
		}
	}
	return strings.Join(slices.DeleteFunc(parts, func(s string) bool { return s == "" }), "  ")
}

// fields prints a row's fields in the order of their names; of an update, those that
// differ from before.
func fields(row, before map[string]any) string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(row)) {
		v := row[name]
		if before != nil {
			if old, ok := before[name]; ok && reflect.DeepEqual(old, v) {
				continue
			}
		} else if v == nil {
			continue
		}
		if b.Len() > 0 {
			b.WriteByte(' ')
		}
		text := []rune(fmt.Sprint(v))
		if len(text) > 40 {
			text = append(text[:39], '…')
		}
		fmt.Fprintf(&b, "%s=%s", name, string(text))
	}
	return b.String()
}
