// Package schema turns table definitions into record schemas and names.
package schema
