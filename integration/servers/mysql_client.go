package servers

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
)

// MySQLClient returns the command-line client mysql with these arguments: the one in PATH,
// or else Debian's, fetched if it is not in the cache.
func MySQLClient(ctx context.Context, args ...string) (*exec.Cmd, error) {
	if path, err := exec.LookPath("mysql"); err == nil {
		return exec.CommandContext(ctx, path, args...), nil
	}
	dir, err := cachedRelease(ctx, "mysqlclient-9", func(dir string) (string, error) {
		const name = "mysql-client-core"
		full, err := fetchDebian(ctx, dir, mysqlReleases["9"].suite, name, name)
		if err != nil {
			return "", err
		}
		m := debianVersion.FindStringSubmatch(full)
		if m == nil || !strings.HasPrefix(m[1], "9.") {
			return "", fmt.Errorf("the suite of Debian has %s %q now, want 9", name, full)
		}
		return "mysqlclient-" + m[1], prune(dir, "lib", "lib64", "usr/lib", "usr/lib64", "usr/bin")
	})
	if err != nil {
		return nil, err
	}
	loaders, _ := filepath.Glob(filepath.Join(dir, "usr/lib/*/ld-linux-*.so.*")) // fails only on a bad pattern
	if len(loaders) == 0 {
		return nil, fmt.Errorf("no whole client is in %s; remove the folder, so that it is fetched again", dir)
	}
	libs := strings.Join([]string{filepath.Dir(loaders[0]), filepath.Join(dir, "usr/lib/mysql/private")}, ":")
	args = append([]string{"--library-path", libs, filepath.Join(dir, "usr/bin/mysql")}, args...)
	return exec.CommandContext(ctx, loaders[0], args...), nil
}
