package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// Bounds of what is read, far above what a pipeline needs. The parser's time grows with the
// square of a file's nesting and of its keys: without them, 256 KiB take it a minute.
const (
	maxConfigBytes = 256 << 10
	maxNesting     = 20
	maxKeys        = 1000
	maxSecretBytes = 64 << 10
)

// A problem is one thing that is wrong in the file.
type problem struct {
	line int
	text string
}

// loadConfig reads the file, and reports everything that is wrong with it at once, each
// with its line and the accepted form.
func loadConfig(path string) (*Config, error) {
	text, err := readBounded(path, maxConfigBytes)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%w: %w; --config names it, and `headwater config` prints one to begin with", errConfig, err)
	case err != nil:
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

// readBounded is os.ReadFile for a file that people write. Its errors name the file, and
// nothing of what is in it.
func readBounded(path string, most int) ([]byte, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrPermission) {
		err = fmt.Errorf("%w; let the user that headwater runs as read it", err)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.IsDir() {
		return nil, fmt.Errorf("%s is a directory; name a file in it", path)
	}
	text, err := io.ReadAll(io.LimitReader(f, int64(most)+1))
	if err == nil && len(text) > most {
		err = fmt.Errorf("%s has more than %d KiB; is it the right file?", path, most>>10)
	}
	return text, err
}

// parseConfig reads, expands, defaults and validates.
func parseConfig(text []byte) (*Config, []problem) {
	r := reader{lines: map[string]int{}, broken: map[string]bool{}}
	cfg := &Config{}
	if root := r.parse(text); root != nil {
		r.read("", root, reflect.ValueOf(cfg).Elem())
	}
	if len(r.lines) > 0 || len(r.problems) == 0 {
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

// parse returns what the file consists of, nil when it cannot be read as one pipeline.
func (r *reader) parse(text []byte) ast.Node {
	text = bytes.TrimPrefix(text, []byte("\ufeff")) // as some editors save it
	if i := unreadable(text); i >= 0 {
		r.report(1+bytes.Count(text[:i], []byte("\n")), "it is no text in UTF-8; save it as such")
		return nil
	}
	tokens := lexer.Tokenize(string(text) + "\n") // without it the lexer loses a tag at the end
	if line, what := unbounded(tokens); what != "" {
		r.report(line, "%s; is it the right file?", what)
		return nil
	}
	// Keys that stand twice are ours to report, with all else that is wrong.
	file, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		line, message := 0, "it cannot be read"
		var syntax *yaml.SyntaxError // its own text would show the lines around
		if errors.As(err, &syntax) {
			line, message = syntax.Token.Position.Line, quoted.ReplaceAllString(syntax.Message, "…")
		}
		hint := "put text that holds special characters into quotes"
		if strings.Contains(message, "'\t'") {
			message, hint = "a tab stands at the beginning", "indent with spaces"
		}
		r.report(line, "it is not YAML: %s; %s", message, hint)
		return nil
	}
	docs := slices.DeleteFunc(file.Docs, func(d *ast.DocumentNode) bool {
		return d.Body == nil || d.Body.Type() == ast.NullType
	})
	switch len(docs) {
	case 0:
		r.report(0, "it is empty; `headwater config` prints what it can hold")
		return nil
	case 1:
		return docs[0].Body
	}
	r.report(docs[1].Body.GetToken().Position.Line, "one file describes one pipeline; a second document begins here")
	return nil
}

// quoted finds what the parser's messages repeat of the file, which may be a secret.
var quoted = regexp.MustCompile(`"([^"\\]|\\.)*"`)

// unreadable is where text stops to be text in UTF-8, or -1.
func unreadable(text []byte) int {
	for i := 0; i < len(text); {
		c, n := utf8.DecodeRune(text[i:])
		if c == 0 || c == utf8.RuneError && n == 1 {
			return i
		}
		i += n
	}
	return -1
}

// unbounded says what of a file is beyond all need, and from which line on; "" when nothing
// is. Deep is what brackets nest, and several entries that begin in one line.
func unbounded(tokens token.Tokens) (line int, what string) {
	brackets, entries, keys := 0, 0, 0
	for _, t := range tokens {
		if t.Position.Line != line {
			line, entries = t.Position.Line, 0
		}
		switch t.Type {
		case token.SequenceStartType, token.MappingStartType:
			brackets++
		case token.SequenceEndType, token.MappingEndType:
			brackets--
		case token.SequenceEntryType, token.MappingKeyType:
			entries++
		case token.MappingValueType:
			keys++
		}
		switch {
		case max(brackets, entries) > maxNesting:
			return line, fmt.Sprintf("it is nested more than %d deep", maxNesting)
		case keys > maxKeys:
			return line, fmt.Sprintf("it has more than %d keys", maxKeys)
		}
	}
	return 0, ""
}

// read fills v from node. path is the key's, with dots.
func (r *reader) read(path string, node ast.Node, v reflect.Value) {
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
			name := reflect.ValueOf(keyText(kv))
			if all.MapIndex(name).IsValid() {
				return fmt.Errorf("%q stands in it twice", name)
			}
			all.SetMapIndex(name, value)
		}
		v.Set(all)
		return nil
	}
	if err := special(node); err != nil {
		return err
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
	case reflect.Uint32:
		n, err := strconv.ParseUint(text, 10, v.Type().Bits())
		if err != nil {
			return errForm
		}
		v.SetUint(n)
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
	}
	return "", false
}

// special refuses the parts of YAML that a configuration does not need, and that a
// password without quotes turns into.
func special(node ast.Node) error {
	what, sign := "", ""
	switch node.(type) {
	case *ast.AnchorNode:
		what, sign = "an anchor", "&"
	case *ast.AliasNode:
		what, sign = "an alias", "*"
	case *ast.TagNode:
		what, sign = "a tag", "!"
	default:
		return nil
	}
	return fmt.Errorf("%s (%s…) is not supported; write the value itself, and put text that begins with %[2]s into quotes", what, sign)
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

// keyForm is what the name of a key may look like. Anything else may be a value, even a
// secret, that came to stand in its place, and is not repeated.
var keyForm = regexp.MustCompile(`^[\w.-]{1,64}$`)

func (r *reader) bad(path string, line int, text string) {
	r.broken[path] = true
	r.report(line, "%s: %s", cmp.Or(path, "the file"), text)
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
	if err := special(node); err != nil {
		r.bad(path, node.GetToken().Position.Line, err.Error())
		return
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
		case !keyForm.MatchString(name):
			r.report(line, "%s: something stands here that is no key; known here: %s", cmp.Or(path, "the file"), strings.Join(known, ", "))
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
	case reflect.Int, reflect.Int16, reflect.Int32, reflect.Int64, reflect.Uint32:
		return "a whole number"
	case reflect.Slice:
		return `a list such as ["a", "b"]`
	case reflect.Map:
		return "a section of names and values"
	}
	return "text, in quotes where it holds special characters"
}

// references finds ${env:NAME} and ${file:PATH}, and what was meant to be one.
var references = regexp.MustCompile(`\$\{[^}]*\}?`)

// expand replaces references by what they stand for.
func expand(text string) (string, error) {
	var errs []error
	text = references.ReplaceAllStringFunc(text, func(m string) string {
		name, closed := strings.CutSuffix(m[2:], "}")
		if !closed {
			errs = append(errs, errors.New("it holds a ${ without its }"))
			return ""
		}
		v, err := lookUp(name)
		if err != nil {
			errs = append(errs, err)
		}
		return v
	})
	return text, errors.Join(errs...)
}

// lookUp returns what a reference stands for, without line breaks at its end. Its errors
// name the variable or the file, and nothing of what is in it.
func lookUp(reference string) (string, error) {
	kind, name, _ := strings.Cut(reference, ":")
	var v string
	switch {
	case kind == "env" && name != "":
		var ok bool
		if v, ok = os.LookupEnv(name); !ok {
			return "", fmt.Errorf("the environment variable %s is not set", name)
		}
	case kind == "file" && name != "":
		b, err := readBounded(name, maxSecretBytes)
		if err != nil {
			return "", fmt.Errorf("read a secret: %w", err)
		}
		v = string(b)
	default:
		return "", errors.New("it holds a ${…} that is neither ${env:NAME} nor ${file:PATH}")
	}
	if v = strings.TrimRight(v, "\r\n"); v == "" {
		return "", fmt.Errorf("${%s} is empty", reference)
	}
	return v, nil
}
