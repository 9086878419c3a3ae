package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"

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
	Tables   postgres.Tables `yaml:"tables"`
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

// SourceConfig names the one database.
type SourceConfig struct {
	Postgres *postgres.Config `yaml:"postgres"`
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
	"kafka.topics":           "topics",
	"kafka.delivery":         "delivery",
}

// errConfig marks an error of the configuration file.
var errConfig = errors.New("the configuration cannot be used")

// A problem is one thing that is wrong in the file.
type problem struct {
	line int
	text string
}

// loadConfig reads the file, and reports everything that is wrong with it at once, each
// with its line and the accepted form.
func loadConfig(path string) (*Config, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errConfig, err)
	}
	cfg, problems := parseConfig(text)
	if len(problems) == 0 {
		return cfg, nil
	}
	slices.SortStableFunc(problems, func(a, b problem) int { return a.line - b.line })
	lines := make([]string, len(problems))
	for i, p := range problems {
		where := path
		if p.line > 0 {
			where = fmt.Sprintf("%s:%d", path, p.line)
		}
		lines[i] = where + ": " + p.text
	}
	return nil, fmt.Errorf("%w:\n%s", errConfig, strings.Join(lines, "\n"))
}

// parseConfig reads, expands, defaults and validates.
func parseConfig(text []byte) (*Config, []problem) {
	r := reader{lines: map[string]int{}}
	cfg := &Config{}
	file, err := parser.ParseBytes(text, 0)
	if err != nil {
		var syntax *yaml.SyntaxError
		if errors.As(err, &syntax) {
			r.report(syntax.Token.Position.Line, "it is not YAML: %s", syntax.Message)
		} else {
			r.report(0, "it is not YAML: %v", err)
		}
		return nil, r.problems
	}
	switch docs := slices.DeleteFunc(file.Docs, func(d *ast.DocumentNode) bool { return d.Body == nil }); len(docs) {
	case 0:
		r.report(0, "it is empty; `headwater config` prints what it can hold")
	case 1:
		r.read("", docs[0].Body, reflect.ValueOf(cfg).Elem())
	default:
		r.report(docs[1].Body.GetToken().Position.Line, "one file describes one pipeline; a second document begins here")
	}
	if len(r.lines) > 0 {
		cfg.setDefaults()
		r.validate(cfg)
	}
	return cfg, r.problems
}

// A reader fills a Config from the file's nodes.
type reader struct {
	lines    map[string]int // of each key path
	broken   map[string]bool
	problems []problem
}

func (r *reader) report(line int, format string, args ...any) {
	r.problems = append(r.problems, problem{line, fmt.Sprintf(format, args...)})
}

// read fills v from node. path is the key's, with dots.
func (r *reader) read(path string, node ast.Node, v reflect.Value) {
	if a, ok := node.(*ast.AnchorNode); ok {
		node = a.Value
	}
	if _, null := node.(*ast.NullNode); null {
		return // as if it were not there
	}
	if v.Kind() == reflect.Pointer && v.Type().Elem().Kind() == reflect.Struct {
		v.Set(reflect.New(v.Type().Elem()))
		v = v.Elem()
	}
	if v.Kind() == reflect.Struct {
		r.readSection(path, node, v)
		return
	}
	if err := set(node, v); err != nil {
		if errors.Is(err, errForm) { // its own text would show the value, which may be a secret
			err = errors.New("want " + form(v.Type()))
		}
		r.bad(path, node.GetToken().Position.Line, err.Error())
	}
}

// errForm says that a value is not written as one of its type is.
var errForm = errors.New("not in the right form")

// set sets v, which is no section, to what node says. It is stricter than a YAML library,
// which makes 1 of 1.5 and 83 of the text 0123.
func set(node ast.Node, v reflect.Value) error {
	switch v.Kind() {
	case reflect.Pointer:
		p := reflect.New(v.Type().Elem())
		if err := set(node, p.Elem()); err != nil {
			return err
		}
		v.Set(p)
		return nil
	case reflect.Slice:
		list, ok := node.(*ast.SequenceNode)
		if !ok {
			return errForm
		}
		all := reflect.MakeSlice(v.Type(), len(list.Values), len(list.Values))
		for i, n := range list.Values {
			if err := set(n, all.Index(i)); err != nil {
				return err
			}
		}
		v.Set(all)
		return nil
	case reflect.Map:
		pairs, ok := pairs(node)
		if !ok {
			return errForm
		}
		all := reflect.MakeMap(v.Type())
		for _, kv := range pairs {
			value := reflect.New(v.Type().Elem()).Elem()
			if err := set(kv.Value, value); err != nil {
				return err
			}
			all.SetMapIndex(reflect.ValueOf(keyText(kv)), value)
		}
		v.Set(all)
		return nil
	}
	text, ok := scalar(node)
	if !ok {
		return errForm
	}
	text, err := expand(text)
	if err != nil {
		return err
	}
	return setText(text, v)
}

// setText sets v, which is of a simple type.
func setText(text string, v reflect.Value) error {
	switch v.Kind() {
	case reflect.String:
		v.SetString(text)
	case reflect.Bool:
		if text != "true" && text != "false" {
			return errForm
		}
		v.SetBool(text == "true")
	case reflect.Int, reflect.Int16, reflect.Int32, reflect.Int64:
		var n int64
		var err error
		if v.Type() == reflect.TypeFor[time.Duration]() {
			var d time.Duration
			d, err = time.ParseDuration(text)
			n = int64(d)
		} else {
			n, err = strconv.ParseInt(text, 10, v.Type().Bits())
		}
		if err != nil {
			return errForm
		}
		v.SetInt(n)
	default:
		panic("config: a field of type " + v.Type().String())
	}
	return nil
}

// scalar is the text of a single value, as it is written.
func scalar(node ast.Node) (text string, ok bool) {
	switch n := node.(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.LiteralNode:
		return n.Value.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		return n.GetToken().Value, true
	case *ast.AnchorNode:
		return scalar(n.Value)
	case *ast.TagNode:
		return scalar(n.Value)
	}
	return "", false
}

// pairs are the keys and values of a section.
func pairs(node ast.Node) (all []*ast.MappingValueNode, ok bool) {
	switch n := node.(type) {
	case *ast.MappingNode:
		return n.Values, true
	case *ast.MappingValueNode:
		return []*ast.MappingValueNode{n}, true
	}
	return nil, false
}

func keyText(kv *ast.MappingValueNode) string {
	if text, ok := scalar(kv.Key); ok {
		return text
	}
	return kv.Key.String()
}

func (r *reader) bad(path string, line int, text string) {
	if r.broken == nil {
		r.broken = map[string]bool{}
	}
	r.broken[path] = true
	r.report(line, "%s: %s", path, text)
}

func (r *reader) readSection(path string, node ast.Node, v reflect.Value) {
	fields := map[string]int{}
	var known []string
	for i := range v.NumField() {
		tag, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("yaml"), ",")
		if tag == "" || tag == "-" || elsewhere[join(path, tag)] != "" {
			continue
		}
		fields[tag] = i
		known = append(known, tag)
	}
	values, ok := pairs(node)
	if !ok {
		r.bad(path, node.GetToken().Position.Line, "want a section with "+strings.Join(known, ", "))
		return
	}
	for _, kv := range values {
		name := keyText(kv)
		line, full := kv.Key.GetToken().Position.Line, join(path, name)
		if r.lines[full] > 0 {
			r.report(line, "%s: it stands in line %d already", full, r.lines[full])
			continue
		}
		r.lines[full] = line
		i, ok := fields[name]
		switch other := elsewhere[full]; {
		case ok:
			r.read(full, kv.Value, v.Field(i))
		case other != "":
			r.report(line, "%s: unknown key; it is %s at the top of the file", full, other)
		default:
			r.report(line, "%s: unknown key; known here: %s", full, strings.Join(known, ", "))
		}
	}
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// form says how a value of the type is written.
func form(t reflect.Type) string {
	switch {
	case t == reflect.TypeFor[time.Duration](), t == reflect.TypeFor[*time.Duration]():
		return "a duration such as 100ms, 10s or 5m"
	case t.Kind() == reflect.Pointer:
		return form(t.Elem())
	}
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int16, reflect.Int32, reflect.Int64:
		return "a whole number"
	case reflect.Slice:
		return `a list such as ["a", "b"]`
	case reflect.Map:
		return "a section of names and values"
	}
	return "text"
}

var references = regexp.MustCompile(`\$\{([^}]*)\}`)

// expand replaces ${env:NAME} and ${file:PATH}.
func expand(text string) (string, error) {
	var errs []error
	text = references.ReplaceAllStringFunc(text, func(m string) string {
		v, err := lookUp(m[2 : len(m)-1])
		if err != nil {
			errs = append(errs, err)
		}
		return v
	})
	return text, errors.Join(errs...)
}

// lookUp returns what a reference stands for. Its errors name the variable or the file, and
// nothing of what is in it.
func lookUp(reference string) (string, error) {
	kind, name, _ := strings.Cut(reference, ":")
	switch kind {
	case "env":
		v, ok := os.LookupEnv(name)
		if !ok {
			return "", fmt.Errorf("the environment variable %s is not set", name)
		}
		return v, nil
	case "file":
		b, err := os.ReadFile(name)
		if err != nil {
			return "", fmt.Errorf("read a secret: %w", err)
		}
		return string(bytes.TrimRight(b, "\r\n")), nil
	}
	return "", errors.New("it holds a ${…} that is neither ${env:NAME} nor ${file:PATH}")
}

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
	c.Snapshot.SetDefaults()
	if c.Topics.PartitionBy == "" {
		c.Topics.PartitionBy = "serialized-key"
	}
	if c.Format.TimePrecision == "" {
		c.Format.TimePrecision = "adaptive"
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
	if c.Name == "" {
		r.report(0, "name: missing; it names the transactional id, the checkpoint topic, log lines and metrics, such as shop")
	} else if err := kafka.ValidateName(c.Name); err != nil {
		r.section("", err)
	}
	if c.Source.Postgres == nil {
		r.report(r.lines["source"], `source.postgres: missing; such as postgres: {url: "postgres://headwater@127.0.0.1:5432/shop"}`)
	} else {
		r.section("source.postgres", c.Source.Postgres.Validate())
	}
	r.section("snapshot", c.Snapshot.Validate())
	n := c.naming()
	r.section("topics", n.Validate())
	if by := c.Topics.PartitionBy; by != "serialized-key" && by != "key-fields" {
		r.section("topics", fmt.Errorf("partition_by: %q is not one of serialized-key, key-fields", by))
	}
	r.section("format", c.Format.Validate())
	r.section("registry", c.Registry.Validate())
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
