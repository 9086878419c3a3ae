package avro

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"

	hamba "github.com/hamba/avro/v2"

	"github.com/headwaterdb/headwater/capture"
	"github.com/headwaterdb/headwater/schema"
)

// register makes the record schema a version of its subject and returns its id. First
// it keeps those fields of rec nullable that are so in the newest version: the
// registry would refuse the narrower type (whole holds rec).
func (e *Encoder) register(ctx context.Context, t *capture.Table, subject string, whole, rec *schema.Type) (int, error) {
	latest, _, found, err := e.registry.Latest(ctx, subject)
	if err != nil {
		return 0, fmt.Errorf("look up subject %s: %w", subject, err)
	}
	var old *schema.Registered
	if found {
		if old, err = schema.ParseRegistered(latest); err != nil {
			return 0, &schema.IncompatibleError{
				Subject: subject, Table: t.ID,
				Reason: err.Error() + "; remedy: if nobody reads the topic any more, delete the subject and the topic, else choose another topic prefix",
			}
		}
		for _, name := range old.Widen(rec) {
			e.notice(schema.NoticeWidened, name, "the column is NOT NULL now; its field stays nullable, as it is registered in subject "+subject)
		}
	}
	text := whole.JSON()
	if err := parses(text); err != nil {
		return 0, fmt.Errorf("%w: table %s has no legal record schema: %w; remedy: schema.name.adjustment.mode and field.name.adjustment.mode avro",
			capture.ErrMisconfigured, t.ID, err)
	}
	id, err := e.registry.Register(ctx, subject, text)
	if errors.Is(err, schema.ErrIncompatible) {
		return 0, incompatible(t, subject, old, rec, err)
	}
	if err != nil {
		return 0, fmt.Errorf("register subject %s: %w", subject, err)
	}
	return id, nil
}

// incompatible says which fields are the trouble, and what to do.
func incompatible(t *capture.Table, subject string, old *schema.Registered, rec *schema.Type, err error) error {
	var reason []string
	if old != nil {
		reason = old.Differences(rec)
	}
	var e *schema.IncompatibleError
	if errors.As(err, &e) && e.Reason != "" {
		reason = append(reason, e.Reason)
	}
	if len(reason) == 0 {
		reason = []string{err.Error()}
	}
	return &schema.IncompatibleError{
		Subject: subject, Table: t.ID,
		Reason: strings.Join(reason, "; ") + "; remedy: undo the ALTER, or the change of columns in the configuration, or set the subject's compatibility to NONE until this version is registered and make sure that consumers bear it",
	}
}

// lateDigit is a part of a namespace that begins with a digit. Java's Avro accepts it
// there, and Debezium writes it.
var lateDigit = regexp.MustCompile(`("namespace":"[^"]*\.)([0-9])`)

// parses reports whether an Avro library reads our text: the last check before a
// registry keeps it for ever.
func parses(text string) error {
	for lateDigit.MatchString(text) {
		text = lateDigit.ReplaceAllString(text, "${1}_${2}")
	}
	_, err := hamba.ParseWithCache(text, "", &hamba.SchemaCache{})
	return err
}
