package schema

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode/utf16"

	"github.com/headwaterdb/headwater/capture"
)

// Naming makes the names of topics and subjects.
type Naming struct {
	// Prefix comes before every topic name and is the logical name of the source in
	// every record. It cannot change once a pipeline has run (rule R29 of
	// publish/DESIGN.md). Required.
	Prefix string `yaml:"prefix"`
	// Delimiter stands between the parts of a topic name. Default ".".
	Delimiter string `yaml:"delimiter"`
}

// maxTopic is the longest name that Kafka allows.
const maxTopic = 249

var legalPrefix = regexp.MustCompile(`^[a-zA-Z0-9_.\-]+$`)

// SetDefaults fills in what was not set.
func (n *Naming) SetDefaults() {
	if n.Delimiter == "" {
		n.Delimiter = "."
	}
}

// Validate reports every setting that cannot be carried out, by its name.
func (n *Naming) Validate() error {
	var errs []error
	switch {
	case n.Prefix == "":
		errs = append(errs, errors.New("prefix: missing; it comes before every topic name and names this source in every record"))
	case !legalPrefix.MatchString(n.Prefix):
		errs = append(errs, fmt.Errorf("prefix: %q may only hold letters, digits, and . _ -", n.Prefix))
	}
	if !legalPrefix.MatchString(n.Delimiter) {
		errs = append(errs, fmt.Errorf("delimiter: %q may only hold letters, digits, and . _ -", n.Delimiter))
	}
	return errors.Join(errs...)
}

// Topic is the topic that carries a table's changes: prefix, schema and table.
func (n *Naming) Topic(id capture.TableID) string {
	parts := slices.DeleteFunc([]string{n.Prefix, id.Schema, id.Name}, func(s string) bool { return s == "" })
	return sanitizeTopic(strings.Join(parts, n.Delimiter))
}

// MessageTopic is the topic of messages that applications put into the log. Its
// delimiter is fixed.
func (n *Naming) MessageTopic() string { return n.Prefix + ".message" }

// KeySubject and ValueSubject are the subjects of a topic's record schemas.
func KeySubject(topic string) string   { return topic + "-key" }
func ValueSubject(topic string) string { return topic + "-value" }

// Collisions returns groups of tables that would share a topic, because characters
// that Kafka does not allow were replaced or names were cut.
func (n *Naming) Collisions(ids []capture.TableID) [][]capture.TableID {
	byTopic := make(map[string][]capture.TableID)
	for _, id := range ids {
		byTopic[n.Topic(id)] = append(byTopic[n.Topic(id)], id)
	}
	var groups [][]capture.TableID
	for _, g := range byTopic {
		if len(g) > 1 {
			slices.SortFunc(g, capture.TableID.Compare)
			groups = append(groups, g)
		}
	}
	slices.SortFunc(groups, func(a, b []capture.TableID) int { return a[0].Compare(b[0]) })
	return groups
}

// sanitizeTopic replaces what Kafka does not allow, by UTF-16 units as Java does, and
// cuts to the length that it does.
func sanitizeTopic(name string) string {
	b := make([]byte, 0, len(name))
	for _, u := range utf16.Encode([]rune(name)) {
		c := byte('_')
		if u < 0x80 && (isDigit(u) || u >= 'a' && u <= 'z' || u >= 'A' && u <= 'Z' || strings.IndexByte("._-", byte(u)) >= 0) {
			c = byte(u)
		}
		b = append(b, c)
	}
	switch s := string(b[:min(len(b), maxTopic)]); s {
	case ".":
		return "_"
	case "..":
		return "__"
	default:
		return s
	}
}
