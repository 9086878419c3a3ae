package schema

import (
	"errors"

	"github.com/headwaterdb/headwater/capture"
)

// ErrIncompatible says that the registry refuses a new version of a record schema, because
// readers or writers of the older versions could not work with it. Retrying does not
// help, the pipeline stops.
var ErrIncompatible = errors.New("the record schema is not compatible with the registered one")

// An IncompatibleError says what was refused. It matches ErrIncompatible.
type IncompatibleError struct {
	Subject string
	// Table is the table whose definition led to it; zero where it is not known.
	Table capture.TableID
	// Reason says what is incompatible, and what to do.
	Reason string
}

func (e *IncompatibleError) Error() string {
	s := ErrIncompatible.Error() + ": subject " + e.Subject
	if e.Table != (capture.TableID{}) {
		s += ", table " + e.Table.String()
	}
	return s + ": " + e.Reason
}

func (e *IncompatibleError) Unwrap() error { return ErrIncompatible }
