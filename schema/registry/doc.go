// Package registry talks to a Schema Registry with Confluent's API: Confluent's own,
// Apicurio (below /apis/ccompat/v7), Karapace, Redpanda's.
//
// A [Client] registers record schemas and remembers their ids. Rules that hold:
//
//   - A registry that is away, overloaded or broken (no connection, 408, 429, 5xx) is
//     waited for until the caller's context ends; [Client.Waiting] says so meanwhile.
//   - What waiting cannot heal is an error at once: a version that the subject's
//     compatibility refuses matches schema.ErrIncompatible, everything else that a person
//     must mend (login, rights, certificate, address, read-only mode) matches [ErrRefused]
//     and says how.
//   - No error, log line or String holds a password or a token.
//
// See Confluent's "Schema Registry API Reference" for the paths and error codes. Where
// Apicurio differs: its global compatibility is NONE at first, a refusal carries the name
// of a Java exception, and it takes registrations in read-only mode.
package registry
