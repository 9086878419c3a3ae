package schema

import (
	"encoding/json"
	"fmt"
	"slices"
)

// An avroType is a registered record schema, as far as it is read: a name, a union,
// or an object.
type avroType struct {
	name   string
	union  []avroType
	object *avroObject
}

type avroObject struct {
	Type   json.RawMessage `json:"type"`
	Name   string          `json:"name"`
	Fields []struct {
		Name string   `json:"name"`
		Type avroType `json:"type"`
		// Default is nil without one.
		Default json.RawMessage `json:"default"`
	} `json:"fields"`
}

func (t *avroType) UnmarshalJSON(b []byte) error {
	switch b[0] {
	case '"':
		return json.Unmarshal(b, &t.name)
	case '[':
		return json.Unmarshal(b, &t.union)
	}
	return json.Unmarshal(b, &t.object)
}

// record returns the record that the type is, or that it is a union with null of.
func (t *avroType) record() *avroObject {
	if t.object != nil && len(t.object.Fields) > 0 {
		return t.object
	}
	for i := range t.union {
		if r := t.union[i].record(); r != nil {
			return r
		}
	}
	return nil
}

// A Registered is what a registered record schema says about the fields of a key or
// of a row.
type Registered struct {
	fields map[string]registeredField
}

type registeredField struct {
	nullable, hasDefault bool
	// typ is the type without null, compact, for comparing.
	typ string
}

// ParseRegistered reads a key's record schema, or a row's out of an envelope.
func ParseRegistered(text string) (*Registered, error) {
	var root avroType
	if err := json.Unmarshal([]byte(text), &root); err != nil {
		return nil, fmt.Errorf("read the registered record schema: %w", err)
	}
	r := &Registered{fields: make(map[string]registeredField)}
	rec := root.record()
	if rec == nil {
		return r, nil
	}
	if rec.Name == "Envelope" && rec.Fields[0].Name == "before" {
		if rec = rec.Fields[0].Type.record(); rec == nil {
			return r, nil
		}
	}
	for _, f := range rec.Fields {
		r.fields[f.Name] = registeredField{
			nullable:   slices.ContainsFunc(f.Type.union, func(t avroType) bool { return t.name == "null" }),
			hasDefault: f.Default != nil,
			typ:        f.Type.kind(),
		}
	}
	return r, nil
}

// kind is the type's name without null, such as "long".
func (t *avroType) kind() string {
	switch {
	case t.object != nil:
		var name string
		if json.Unmarshal(t.object.Type, &name) == nil && name == "record" {
			return t.object.Name
		}
		return name
	case t.union != nil:
		for i := range t.union {
			if k := t.union[i].kind(); k != "null" {
				return k
			}
		}
	}
	_, name := splitName(t.name)
	return name
}

// Widen keeps fields of t nullable that are registered so: a registry that checks for
// backward compatibility would refuse the narrower type. It returns the names of the
// fields that it changed.
func (r *Registered) Widen(t *Type) []string {
	var widened []string
	for _, f := range t.Fields {
		if r.fields[f.Name].nullable && !f.Optional {
			f.Type.Optional = true
			widened = append(widened, f.Name)
		}
	}
	return widened
}

// Differences says how the fields of t differ from the registered ones in a way that
// an older or newer reader may not bear.
func (r *Registered) Differences(t *Type) []string {
	var diffs []string
	seen := make(map[string]bool)
	for _, f := range t.Fields {
		seen[f.Name] = true
		old, ok := r.fields[f.Name]
		typ := f.avroKind()
		switch {
		case !ok && !f.Optional && f.Default == nil:
			diffs = append(diffs, fmt.Sprintf("field %s is new, NOT NULL and without default", f.Name))
		case ok && old.typ != typ:
			diffs = append(diffs, fmt.Sprintf("field %s was %s and is now %s", f.Name, old.typ, typ))
		}
	}
	for name := range r.fields {
		if old := r.fields[name]; !seen[name] && !old.nullable && !old.hasDefault {
			diffs = append(diffs, fmt.Sprintf("field %s is gone, and had no default", name))
		}
	}
	slices.Sort(diffs)
	return diffs
}

// avroKind is the type's name in Avro.
func (t *Type) avroKind() string {
	if t.Kind == Struct {
		_, name := splitName(t.Name)
		return name
	}
	return avroNames[t.Kind]
}
