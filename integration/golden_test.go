package integration

import (
	"bufio"
	"bytes"
	"cmp"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// A goldenTopic is what stands in a topic, in a form in which two can be compared.
type goldenTopic struct {
	schemas map[string][]string // texts by role, "key" or "value", in the order of use
	records []goldenRecord
}

// A goldenRecord is one record. Values are as decodeRaw returns them.
type goldenRecord struct {
	key, value             any
	keySchema, valueSchema int // number in schemas, -1 for none
	headers                []string
}

// readGolden reads what Debezium wrote, with prefix for "@".
func readGolden(t *testing.T, file, prefix string) map[string]*goldenTopic {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	unzipped, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]*goldenTopic{}
	lines := bufio.NewScanner(unzipped)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		// An "@" of another kind stands in the bytes of a default.
		line := bytes.ReplaceAll(lines.Bytes(), []byte(`"@"`), []byte(`"`+prefix+`"`))
		for _, schema := range []string{".own.", ".corpus_own."} {
			line = bytes.ReplaceAll(line, []byte("@"+schema), []byte(prefix+schema))
		}
		if err := addGolden(all, line); err != nil {
			t.Fatalf("%s: %v in %s", file, err, lines.Text())
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return all
}

func addGolden(all map[string]*goldenTopic, line []byte) error {
	var g struct {
		Kind, Topic, Role, Text string
		Key, Value              json.RawMessage
		KeySchema               *int `json:"key_schema"`
		ValueSchema             *int `json:"value_schema"`
		Headers                 []string
		Tombstone               bool
	}
	if err := json.Unmarshal(line, &g); err != nil {
		return err
	}
	t := all[g.Topic]
	if t == nil {
		t = &goldenTopic{schemas: map[string][]string{}}
		all[g.Topic] = t
	}
	if g.Kind == "schema" {
		t.schemas[g.Role] = append(t.schemas[g.Role], g.Text)
		return nil
	}
	number := func(n *int) int {
		if n == nil {
			return -1
		}
		return *n
	}
	key, err := parseGolden(g.Key)
	if err != nil {
		return err
	}
	value, err := parseGolden(g.Value)
	if err != nil {
		return err
	}
	if g.Tombstone != (value == nil) {
		return fmt.Errorf("tombstone is %v", g.Tombstone)
	}
	slices.Sort(g.Headers)
	t.records = append(t.records, goldenRecord{key, value, number(g.KeySchema), number(g.ValueSchema), g.Headers})
	return nil
}

// parseGolden reads JSON into the values that decodeRaw returns: objects keep their
// order, and a number is a float exactly when it is written as one.
func parseGolden(text []byte) (any, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	return parseNext(d)
}

func parseNext(d *json.Decoder) (any, error) {
	token, err := d.Token()
	if err != nil {
		return nil, err
	}
	switch v := token.(type) {
	case json.Number:
		if strings.ContainsAny(v.String(), ".eE") {
			return v.Float64()
		}
		return v, nil
	case json.Delim:
		list, record := []any{}, rawRecord{}
		for d.More() {
			var name string
			if v == '{' {
				token, err := d.Token()
				if err != nil {
					return nil, err
				}
				name, _ = token.(string)
			}
			item, err := parseNext(d)
			if err != nil {
				return nil, err
			}
			list, record = append(list, item), append(record, rawValue{name: name, value: item})
		}
		if _, err := d.Token(); err != nil {
			return nil, err
		}
		if v == '{' {
			return record, nil
		}
		return list, nil
	}
	return token, nil
}

// goldenText prints a value as JSON; equal texts are equal values, signs of zero
// included.
func goldenText(v any) string {
	switch v := v.(type) {
	case nil:
		return "null"
	case float64:
		text := strconv.FormatFloat(v, 'g', -1, 64)
		if !strings.ContainsAny(text, ".e") {
			text += ".0"
		}
		return text
	case json.Number:
		return v.String()
	case bool:
		return strconv.FormatBool(v)
	case string:
		var b strings.Builder
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(false)
		_ = e.Encode(v) // a strings.Builder takes everything
		return strings.TrimSuffix(b.String(), "\n")
	case []any:
		parts := make([]string, len(v))
		for i, item := range v {
			parts[i] = goldenText(item)
		}
		return "[" + strings.Join(parts, ",") + "]"
	case rawRecord:
		parts := make([]string, len(v))
		for i, f := range v {
			parts[i] = strconv.Quote(f.name) + ":" + goldenText(f.value)
		}
		return "{" + strings.Join(parts, ",") + "}"
	}
	panic(fmt.Sprintf("no golden form for %T", v))
}

// label names a record within its topic for a person: its operation and key. Records
// without a key go by their number.
func (r goldenRecord) label(n int) string {
	op := "tombstone"
	if v, ok := r.value.(rawRecord); ok {
		op, _ = v.get("op").(string)
	}
	key, ok := r.key.(rawRecord)
	switch {
	case !ok:
		return fmt.Sprintf("%s #%d", op, n)
	case len(key) == 1:
		return op + " " + goldenText(key[0].value)
	}
	return op + " " + goldenText(key)
}

// A difference is one place where two topics say different things. Texts are JSON;
// "absent" stands for what is not there at all.
type difference struct {
	topic, record, path string
	debezium, ours      string
}

func (d difference) String() string {
	return fmt.Sprintf("%s, %s, %s: Debezium has %s, headwater %s", d.topic, cmp.Or(d.record, "whole topic"), d.path, clip(d.debezium), clip(d.ours))
}

func clip(s string) string {
	if len(s) > 900 {
		return s[:900] + "…"
	}
	return s
}

const absent = "absent"

// compareGolden returns every difference between two sets of topics.
func compareGolden(debezium, ours map[string]*goldenTopic) (diffs []difference) {
	names := slices.Collect(maps.Keys(debezium))
	for n := range ours {
		if debezium[n] == nil {
			names = append(names, n)
		}
	}
	slices.Sort(names)
	for _, n := range names {
		d, o := debezium[n], ours[n]
		if d == nil || o == nil {
			has := map[bool]string{true: absent, false: "there"}
			diffs = append(diffs, difference{n, "", "topic", has[d == nil], has[o == nil]})
			continue
		}
		diffs = append(diffs, compareSchemas(n, d, o)...)
		diffs = append(diffs, compareRecords(n, d, o)...)
	}
	return diffs
}

func compareSchemas(topic string, debezium, ours *goldenTopic) (diffs []difference) {
	for _, role := range []string{"key", "value"} {
		d, o := debezium.schemas[role], ours.schemas[role]
		for i := range max(len(d), len(o)) {
			dt, ot := absent, absent
			if i < len(d) {
				dt = d[i]
			}
			if i < len(o) {
				ot = o[i]
			}
			if dt != ot {
				diffs = append(diffs, difference{topic, "", fmt.Sprintf("%s schema %d", role, i), dt, ot})
			}
		}
	}
	return diffs
}

func compareRecords(topic string, debezium, ours *goldenTopic) (diffs []difference) {
	if d, o := len(debezium.records), len(ours.records); d != o {
		var said [2][]string
		for i, records := range [][]goldenRecord{debezium.records, ours.records} {
			for n, r := range records {
				said[i] = append(said[i], r.label(n))
			}
		}
		return []difference{{topic, "", "records", fmt.Sprintf("%d: %s", d, strings.Join(said[0], ", ")), fmt.Sprintf("%d: %s", o, strings.Join(said[1], ", "))}}
	}
	for i, d := range debezium.records {
		o := ours.records[i]
		label := d.label(i)
		add := func(path, d, o string) { diffs = append(diffs, difference{topic, label, path, d, o}) }
		compareValues("key", d.key, o.key, add)
		compareValues("", d.value, o.value, add)
		if d.keySchema != o.keySchema {
			add("key schema", strconv.Itoa(d.keySchema), strconv.Itoa(o.keySchema))
		}
		if d.valueSchema != o.valueSchema {
			add("value schema", strconv.Itoa(d.valueSchema), strconv.Itoa(o.valueSchema))
		}
		compareValues("headers", named(d.headers), named(o.headers), add)
	}
	return diffs
}

// named makes a record of names, so that headers are compared as fields are.
func named(names []string) (r rawRecord) {
	for _, n := range names {
		r = append(r, rawValue{name: n, value: "there"})
	}
	return r
}

// compareValues goes down where both sides are records, and compares texts elsewhere.
func compareValues(path string, debezium, ours any, add func(path, debezium, ours string)) {
	d, dok := debezium.(rawRecord)
	o, ook := ours.(rawRecord)
	if !dok || !ook {
		if dt, ot := goldenText(debezium), goldenText(ours); dt != ot {
			add(cmp.Or(path, "value"), dt, ot)
		}
		return
	}
	below := func(name string) string { return strings.TrimPrefix(path+"."+name, ".") }
	names := func(r rawRecord, other rawRecord) (common []string) {
		for _, f := range r {
			if slices.ContainsFunc(other, func(v rawValue) bool { return v.name == f.name }) {
				common = append(common, f.name)
			}
		}
		return common
	}
	both := names(d, o)
	if others := names(o, d); !slices.Equal(both, others) {
		add(cmp.Or(path, "value")+" (order of fields)", strings.Join(both, " "), strings.Join(others, " "))
	}
	for _, f := range d {
		if slices.Contains(both, f.name) {
			compareValues(below(f.name), f.value, o.get(f.name), add)
		} else {
			add(below(f.name), goldenText(f.value), absent)
		}
	}
	for _, f := range o {
		if !slices.Contains(both, f.name) {
			add(below(f.name), absent, goldenText(f.value))
		}
	}
}

// A decision is a difference that is meant: where event format and Debezium part.
type decision struct {
	topic string // without prefix and schema; "*" for every one
	// records and paths say where: labels as goldenRecord.label makes them, separated by
	// commas, and paths separated by blanks. "*" is every record of the topic, "r *" every
	// one of that operation. Each that is named must differ.
	records, paths string
	debezium, ours string // JSON, or "absent"; "…" for whatever it is
	why            string
}

func (d *decision) places() (places [][2]string) {
	for _, r := range strings.Split(d.records, ",") {
		for _, p := range strings.Fields(d.paths) {
			places = append(places, [2]string{strings.TrimSpace(r), p})
		}
	}
	return places
}

// covers says whether the decision, at that place, is about the difference.
func (d *decision) covers(place [2]string, x difference) bool {
	topic := x.topic[strings.LastIndexByte(x.topic, '.')+1:]
	op, _, _ := strings.Cut(x.record, " ")
	return (d.topic == "*" || d.topic == topic) &&
		(place[0] == "*" || place[0] == x.record || place[0] == op+" *") &&
		place[1] == strings.ReplaceAll(x.path, " ", "-") &&
		(d.debezium == "…" || d.debezium == x.debezium) && (d.ours == "…" || d.ours == x.ours)
}

// judge returns what is wrong: differences that nobody decided, and decisions that make
// no difference.
func judge(diffs []difference, decided []decision) (problems []string) {
	explained := make([]bool, len(diffs))
	for _, d := range decided {
		for _, place := range d.places() {
			seen := false
			for i, x := range diffs {
				if d.covers(place, x) {
					explained[i], seen = true, true
				}
			}
			if !seen {
				problems = append(problems, fmt.Sprintf("%s, %s, %s: Debezium's %s and our %s was decided (%s) and does not occur",
					d.topic, place[0], place[1], d.debezium, d.ours, d.why))
			}
		}
	}
	for i, x := range diffs {
		if !explained[i] {
			problems = append(problems, x.String())
		}
	}
	return problems
}

const (
	goldenPostgres = "testdata/golden/postgres/expected.jsonl.gz"
	goldenMySQL    = "testdata/golden/mysql/expected.jsonl.gz"
)

func TestGolden_ComparisonSeesEveryDamage(t *testing.T) {
	read := func() map[string]*goldenTopic { return readGolden(t, goldenPostgres, goldenPrefix) }
	if d := compareGolden(read(), read()); len(d) > 0 {
		t.Fatalf("a topic differs from itself: %v", d)
	}
	const name = goldenPrefix + ".own.t_num_5_2"
	after := func(o *goldenTopic, n int) rawRecord { return o.records[n].value.(rawRecord).get("after").(rawRecord) }
	for damage, do := range map[string]func(all map[string]*goldenTopic, o *goldenTopic){
		"a topic lost":     func(all map[string]*goldenTopic, _ *goldenTopic) { delete(all, name) },
		"a topic invented": func(all map[string]*goldenTopic, o *goldenTopic) { all[name+"2"] = o },
		"a record lost":    func(_ map[string]*goldenTopic, o *goldenTopic) { o.records = o.records[1:] },
		"a record doubled": func(_ map[string]*goldenTopic, o *goldenTopic) { o.records = append(o.records, o.records[0]) },
		"two records swapped": func(_ map[string]*goldenTopic, o *goldenTopic) {
			o.records[0], o.records[1] = o.records[1], o.records[0]
		},
		"a key changed": func(_ map[string]*goldenTopic, o *goldenTopic) {
			o.records[0].key.(rawRecord)[0].value = json.Number("9")
		},
		"a key nulled":             func(_ map[string]*goldenTopic, o *goldenTopic) { o.records[0].key = nil },
		"a value nulled":           func(_ map[string]*goldenTopic, o *goldenTopic) { o.records[0].value = nil },
		"a column changed":         func(_ map[string]*goldenTopic, o *goldenTopic) { after(o, 1)[1].value = "0x6f" },
		"a column nulled":          func(_ map[string]*goldenTopic, o *goldenTopic) { after(o, 1)[1].value = nil },
		"a column of another type": func(_ map[string]*goldenTopic, o *goldenTopic) { after(o, 0)[0].value = 1.0 },
		"an element changed":       func(_ map[string]*goldenTopic, o *goldenTopic) { after(o, 1)[4].value.([]any)[1] = "0x00" },
		"a column lost": func(_ map[string]*goldenTopic, o *goldenTopic) {
			o.records[0].value.(rawRecord)[1].value = after(o, 0)[:4]
		},
		"a column invented": func(_ map[string]*goldenTopic, o *goldenTopic) {
			o.records[0].value.(rawRecord)[1].value = append(after(o, 0), rawValue{name: "x"})
		},
		"two columns swapped": func(_ map[string]*goldenTopic, o *goldenTopic) {
			a := after(o, 0)
			a[1], a[2] = a[2], a[1]
		},
		"an operation changed": func(_ map[string]*goldenTopic, o *goldenTopic) { o.records[0].value.(rawRecord)[4].value = "c" },
		"a header lost":        func(_ map[string]*goldenTopic, o *goldenTopic) { o.records[0].headers = o.records[0].headers[1:] },
		"another record schema": func(_ map[string]*goldenTopic, o *goldenTopic) {
			o.records[3].valueSchema++
		},
		"a record schema changed": func(_ map[string]*goldenTopic, o *goldenTopic) { o.schemas["value"][0] += " " },
		"a record schema more":    func(_ map[string]*goldenTopic, o *goldenTopic) { o.schemas["key"] = append(o.schemas["key"], "") },
	} {
		damaged := read()
		do(damaged, damaged[name])
		if len(compareGolden(read(), damaged)) == 0 {
			t.Errorf("%s: not seen", damage)
		}
	}
}

func TestGolden_DecisionsExplainWhatTheyNameAndNothingElse(t *testing.T) {
	diffs := []difference{
		{"p.own.t", "r 1", "after.v", "0", "null"},
		{"p.own.t", "c 1001", "after.v", "0", "null"},
	}
	for name, c := range map[string]struct {
		decided  []decision
		problems int
	}{
		"both named":           {[]decision{{"t", "r 1, c 1001", "after.v", "0", "null", ""}}, 0},
		"by operation":         {[]decision{{"*", "r *, c *", "after.v", "…", "null", ""}}, 0},
		"one left":             {[]decision{{"t", "r 1", "after.v", "0", "null", ""}}, 1},
		"one that is not":      {[]decision{{"t", "r 1, c 1001, c 1002", "after.v", "0", "null", ""}}, 1},
		"another table":        {[]decision{{"u", "*", "after.v", "0", "null", ""}}, 3},
		"another path":         {[]decision{{"t", "*", "before.v", "0", "null", ""}}, 3},
		"another value":        {[]decision{{"t", "*", "after.v", "0", "1", ""}}, 3},
		"another of Debezium":  {[]decision{{"t", "*", "after.v", "1", "null", ""}}, 3},
		"nothing was decided":  {nil, 2},
		"a path that is equal": {[]decision{{"t", "*", "after.v after.w", "0", "null", ""}}, 1},
	} {
		if got := judge(diffs, c.decided); len(got) != c.problems {
			t.Errorf("%s: got %d problems, want %d: %q", name, len(got), c.problems, got)
		}
	}
}
