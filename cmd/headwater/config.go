package main

import (
	"errors"
	"fmt"
	"net"
	"regexp"
	"slices"
	"strings"

	"github.com/headwaterdb/headwater/capture"
	"github.com/headwaterdb/headwater/capture/mysql"
	"github.com/headwaterdb/headwater/capture/postgres"
	"github.com/headwaterdb/headwater/publish"
	"github.com/headwaterdb/headwater/publish/kafka"
	"github.com/headwaterdb/headwater/schema"
	"github.com/headwaterdb/headwater/schema/registry"
	"github.com/headwaterdb/headwater/snapshot"
)

// Config is the configuration file: one pipeline. Each section is the Config of the
// package that it is about; etc/headwater.yml shows every key with its default.
type Config struct {
	// Name names the transactional id, the checkpoint topic, log lines and metrics. It
	// cannot change once the pipeline has run.
	Name     string          `yaml:"name"`
	Source   SourceConfig    `yaml:"source"`
	Tables   capture.Tables  `yaml:"tables"`
	Columns  capture.Columns `yaml:"columns"`
	Snapshot snapshot.Config `yaml:"snapshot"`
	Topics   TopicsConfig    `yaml:"topics"`
	Format   schema.Format   `yaml:"format"`
	Registry registry.Config `yaml:"registry"`
	Kafka    kafka.Config    `yaml:"kafka"`
	Publish  publish.Config  `yaml:"publish"`
	// Delivery is exactly-once or at-least-once. Default exactly-once.
	Delivery string     `yaml:"delivery"`
	HTTP     HTTPConfig `yaml:"http"`
	Log      LogConfig  `yaml:"log"`
}

// SourceConfig names the one database: one of its fields is set.
type SourceConfig struct {
	Postgres *postgres.Config `yaml:"postgres"`
	// MySQL is a MySQL or a MariaDB; which of them it is the server tells.
	MySQL *mysql.Config `yaml:"mysql"`
}

// String names the database and leaves every secret out.
func (s SourceConfig) String() string {
	if s.MySQL != nil {
		return s.MySQL.String()
	}
	return s.Postgres.String()
}

// TopicsConfig names and makes topics.
type TopicsConfig struct {
	// Prefix comes before every topic name. It cannot change once the pipeline has run.
	Prefix string `yaml:"prefix"`
	// Delimiter stands between the parts of a topic name. Default ".".
	Delimiter string `yaml:"delimiter"`
	// PartitionBy is serialized-key, as Debezium's producer does, or key-fields, by which
	// tables with equal keys are partitioned alike. Default serialized-key.
	PartitionBy string `yaml:"partition_by"`
	// How a missing topic is made, see kafka.TopicConfig.
	Create      *bool             `yaml:"create"`
	Partitions  int32             `yaml:"partitions"`
	Replication int16             `yaml:"replication"`
	Settings    map[string]string `yaml:"settings"`
}

// HTTPConfig is where /healthz, /metrics and /status answer.
type HTTPConfig struct {
	// Listen is host:port; "off" for none. Default off.
	Listen string `yaml:"listen"`
}

// LogConfig is how the log looks.
type LogConfig struct {
	Level  string `yaml:"level"`  // debug, info, warn, error; default info
	Format string `yaml:"format"` // text, json; default text
}

// elsewhere are keys of the sections' structs that the file has in another place.
var elsewhere = map[string]string{
	"source.postgres.tables": "tables",
	"source.mysql.tables":    "tables",
	"kafka.topics":           "topics",
	"kafka.delivery":         "delivery",
}

// errConfig marks an error of the configuration file.
var errConfig = errors.New("the configuration cannot be used")

// setDefaults fills in what was left out, and moves what the file has in one place to
// where the packages want it.
func (c *Config) setDefaults() {
	if c.Delivery == "" {
		c.Delivery = kafka.ExactlyOnce
	}
	if p := c.Source.Postgres; p != nil {
		p.Tables = c.Tables
		// One slot and one publication a pipeline: two pipelines on a database do not
		// meet by accident.
		own := "headwater_" + strings.ReplaceAll(strings.ToLower(c.Name), "-", "_")
		if p.Slot == "" {
			p.Slot = own
		}
		if p.Publication == "" {
			p.Publication = own
		}
		p.SetDefaults()
	}
	if m := c.Source.MySQL; m != nil {
		m.Tables, m.Pipeline, m.Snapshot = c.Tables, c.Name, c.Snapshot.Mode != snapshot.Never
		m.SetDefaults()
		// As Debezium's connector for this database has it.
		c.Format.EscapeLabels = true
		if c.Format.TimePrecision == "" {
			c.Format.TimePrecision = "adaptive_time_microseconds"
		}
	}
	c.Snapshot.SetDefaults()
	if c.Topics.PartitionBy == "" {
		c.Topics.PartitionBy = "serialized-key"
	}
	if c.Format.TimePrecision == "" {
		c.Format.TimePrecision = "adaptive"
	}
	if c.Format.Positions == nil && c.Delivery == kafka.AtLeastOnce {
		c.Format.Positions = new(true) // records may come again, and this tells which
	}
	c.Format.SetDefaults()
	c.Registry.SetDefaults()
	c.Kafka.Delivery = c.Delivery
	c.Kafka.Topics = kafka.TopicConfig{
		Create: c.Topics.Create, Partitions: c.Topics.Partitions, Replication: c.Topics.Replication, Settings: c.Topics.Settings,
	}
	c.Kafka.SetDefaults()
	c.Publish.TransactionTimeout = c.Kafka.TransactionTimeout
	c.Publish.SetDefaults()
	if c.HTTP.Listen == "" {
		c.HTTP.Listen = "off"
	}
	if c.Log.Level == "" {
		c.Log.Level = "info"
	}
	if c.Log.Format == "" {
		c.Log.Format = "text"
	}
}

// naming is how topics and subjects are called.
func (c *Config) naming() schema.Naming {
	n := schema.Naming{Prefix: c.Topics.Prefix, Delimiter: c.Topics.Delimiter}
	n.SetDefaults()
	return n
}

// validate asks each package about its section.
func (r *reader) validate(c *Config) {
	if c.Name == "" && !r.broken["name"] {
		r.report(0, "name: missing; it names the transactional id, the checkpoint topic, log lines and metrics, such as shop")
	} else if err := kafka.ValidateName(c.Name); err != nil && c.Name != "" {
		r.section("", err)
		for _, key := range []string{"slot", "publication"} { // by default made from the name
			if key = "source.postgres." + key; r.lines[key] == 0 {
				r.broken[key] = true
			}
		}
	}
	switch pg, my := c.Source.Postgres, c.Source.MySQL; {
	case pg == nil && my == nil:
		r.report(r.lines["source"], `source: it names no database; such as postgres: {url: "postgres://headwater@127.0.0.1:5432/shop"}, or mysql: {url: "mysql://headwater@127.0.0.1:3306"}`)
	case pg != nil && my != nil:
		r.report(r.lines["source"], "source: it names two databases; one process runs one pipeline, from one of them")
	case pg != nil:
		r.section("source.postgres", pg.Validate())
	default:
		r.section("source.mysql", my.Validate())
	}
	r.section("", c.Columns.Validate())
	r.section("snapshot", c.Snapshot.Validate())
	n := c.naming()
	r.section("topics", n.Validate())
	if by := c.Topics.PartitionBy; by != "serialized-key" && by != "key-fields" {
		r.section("topics", fmt.Errorf("partition_by: %q is not one of serialized-key, key-fields", by))
	}
	r.section("format", c.Format.Validate())
	r.section("registry", c.Registry.Validate())
	for i, b := range c.Kafka.Brokers {
		if strings.Contains(b, "@") { // quoted nowhere: it is a secret
			r.bad("kafka.brokers", r.line("kafka.brokers"), fmt.Sprintf("address %d holds a login; set kafka.sasl instead", i+1))
		}
	}
	r.section("kafka", c.Kafka.Validate())
	r.section("publish", c.Publish.Validate())
	if c.HTTP.Listen != "off" {
		if _, _, err := net.SplitHostPort(c.HTTP.Listen); err != nil {
			r.section("http", fmt.Errorf("listen: %q is not host:port, such as 127.0.0.1:8080, or off", c.HTTP.Listen))
		}
	}
	if !slices.Contains([]string{"debug", "info", "warn", "error"}, c.Log.Level) {
		r.section("log", fmt.Errorf("level: %q is not one of debug, info, warn, error", c.Log.Level))
	}
	if c.Log.Format != "text" && c.Log.Format != "json" {
		r.section("log", fmt.Errorf("format: %q is not one of text, json", c.Log.Format))
	}
}

// leading finds the key that a package's finding begins with.
var leading = regexp.MustCompile(`^([a-z_.]+)(?:: | is )`)

// section reports a package's findings about its section, with the line of the key that
// each begins with, unless that key was reported already.
func (r *reader) section(path string, err error) {
	for _, e := range flatten(err) {
		text, key := e.Error(), path
		if m := leading.FindStringSubmatch(text); m != nil {
			text, key = join(path, text), join(path, m[1])
			for from, to := range elsewhere { // the file has some keys in another place
				if rest, ok := strings.CutPrefix(key, from); ok {
					text, key = to+strings.TrimPrefix(text, from), to+rest
				}
			}
		} else if path != "" {
			text = path + ": " + text
		}
		if !r.broken[key] {
			r.report(r.line(key), "%s", text)
		}
	}
}

// line is where the key stands, else the section that it belongs into, else 0.
func (r *reader) line(key string) int {
	for ; key != ""; key = key[:max(0, strings.LastIndexByte(key, '.'))] {
		if n := r.lines[key]; n > 0 {
			return n
		}
	}
	return 0
}

// flatten returns the single errors of joined ones.
func flatten(err error) []error {
	if err == nil {
		return nil
	}
	if j, ok := err.(interface{ Unwrap() []error }); ok {
		var all []error
		for _, e := range j.Unwrap() {
			all = append(all, flatten(e)...)
		}
		return all
	}
	return []error{err}
}
