package servers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/jackc/pgx/v5"
)

// cloneFrom fills our data directory with an online backup of the primary and
// makes a slot for us there. It speaks PostgreSQL's backup functions itself,
// because the fetched builds have no pg_basebackup.
func (p *Postgres) cloneFrom(ctx context.Context, primary *Postgres) error {
	if primary.external != nil {
		return fmt.Errorf("make a standby: %w", ErrExternal)
	}
	// Both functions must be called in one session, which ends a backup that fails.
	conn, err := pgx.Connect(ctx, primary.URL("postgres"))
	if err != nil {
		return fmt.Errorf("back up the primary: %w", err)
	}
	defer conn.Close(ctx)
	startSQL, stopSQL := "SELECT pg_backup_start('standby', true)", "SELECT labelfile FROM pg_backup_stop(false)"
	if strings.HasPrefix(p.version, "13.") || strings.HasPrefix(p.version, "14.") {
		startSQL, stopSQL = "SELECT pg_start_backup('standby', true, false)", "SELECT labelfile FROM pg_stop_backup(false, false)"
	}
	// Reserved at once, so that the log since now stays there for us.
	if _, err := conn.Exec(ctx, "SELECT pg_create_physical_replication_slot($1, true)", p.slot()); err != nil {
		return fmt.Errorf("make the slot of the standby: %w", err)
	}
	if _, err := conn.Exec(ctx, startSQL); err != nil {
		return fmt.Errorf("start a backup of the primary: %w", err)
	}
	if err := copyRunning(p.Dir, primary.Dir); err != nil {
		return fmt.Errorf("copy the primary: %w", err)
	}
	var label string
	if err := conn.QueryRow(ctx, stopSQL).Scan(&label); err != nil {
		return fmt.Errorf("end the backup of the primary: %w", err)
	}
	for name, text := range map[string]string{"backup_label": label, "standby.signal": ""} {
		if err := os.WriteFile(filepath.Join(p.Dir, name), []byte(text), 0o600); err != nil {
			return fmt.Errorf("make a standby of the copy: %w", err)
		}
	}
	return nil
}

// slot names our slot on the primary.
func (p *Postgres) slot() string {
	return "standby_" + filepath.Base(p.run.path)[len("postgres-"):]
}

// standbySettings makes the server follow the primary. The database name is for
// the synchronisation of failover slots.
func (p *Postgres) standbySettings(primary *Postgres) map[string]string {
	return map[string]string{
		"primary_conninfo":     fmt.Sprintf("host=127.0.0.1 port=%d user=postgres dbname=postgres", primary.Port),
		"primary_slot_name":    p.slot(),
		"hot_standby_feedback": "on",
	}
}

// copyRunning copies the data directory of a server that runs: files may grow,
// shrink and vanish meanwhile, which the log repairs. What belongs to the running
// server alone is left out.
func copyRunning(to, from string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		switch dest := filepath.Join(to, rel); {
		case d.IsDir():
			if err := os.MkdirAll(dest, 0o700); err != nil {
				return err
			}
			if rel == "pg_replslot" || rel == "pg_dynshmem" {
				return fs.SkipDir
			}
			return nil
		case rel == "postmaster.pid" || rel == "postmaster.opts":
			return nil
		default:
			err := copyFile(dest, path)
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return err
		}
	})
}

func copyFile(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		out.Close()
		return err
	}
	return out.Close()
}
