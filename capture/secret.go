package capture

import (
	"fmt"
	"io"
	"log/slog"
)

// A Secret is text of a configuration that no verb, log or encoder shows.
type Secret string

const hidden = "********"

// Format keeps the secret out of texts, whatever the verb.
func (Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, hidden) }

// LogValue keeps it out of logs.
func (Secret) LogValue() slog.Value { return slog.StringValue(hidden) }

// MarshalText keeps it out of files.
func (Secret) MarshalText() ([]byte, error) { return []byte(hidden), nil }

// UnmarshalText takes the secret as it is.
func (s *Secret) UnmarshalText(text []byte) error { *s = Secret(text); return nil }
