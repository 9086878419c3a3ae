package main

import (
	_ "embed"
	"fmt"
	"regexp"

	"github.com/spf13/cobra"
)

var (
	// reference is the commented configuration file: every key with its default, and
	// PostgreSQL as the source.
	//
	//go:embed etc/headwater.yml
	reference string
	// mysqlSource is the section source of a MySQL or MariaDB.
	//
	//go:embed etc/source-mysql.yml
	mysqlSource string

	sourceSection = regexp.MustCompile(`(?m)^source:\n(?: .*\n)+`)
	timePrecision = regexp.MustCompile(`(# time\.precision\.mode: )adaptive +#`)
)

// referenceFor is the reference with a source of that kind, and its defaults.
func referenceFor(source string) (string, error) {
	switch source {
	case "postgres":
		return reference, nil
	case "mysql", "mariadb":
		text := sourceSection.ReplaceAllLiteralString(reference, mysqlSource)
		return timePrecision.ReplaceAllString(text, "${1}adaptive_time_microseconds  #"), nil
	}
	return "", unknownSource(source)
}

// unknownSource refuses the value of --source.
func unknownSource(source string) error {
	return usage(fmt.Errorf("--source is %q; want postgres, mysql or mariadb", source))
}

func configCommand() *cobra.Command {
	var source string
	c := &cobra.Command{
		Use:   "config",
		Short: "Print the commented reference of the configuration file",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			text, err := referenceFor(source)
			fmt.Fprint(cmd.OutOrStdout(), text)
			return err
		},
	}
	c.Flags().StringVar(&source, "source", "postgres", "the database: postgres, mysql or mariadb")
	return c
}
