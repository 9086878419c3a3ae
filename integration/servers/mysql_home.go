package servers

import (
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"

	"github.com/go-mysql-org/go-mysql/mysql"
)

// mysqlHome is where the programs and files of a MySQL or MariaDB are.
type mysqlHome struct {
	flavor  string // as in MySQL.Flavor
	version string
	program string // mysqld or mariadbd
	loader  string // runs the program with the libraries; empty where it needs none
	libs    string // their folders
	share   string // messages and character sets; empty where the program knows
	plugins string // empty where the program knows
	base    string // empty where the program knows
	oldTLS  bool   // its OpenSSL has no elliptic curves
}

// command returns the server's program with our arguments for any use of it.
func (h *mysqlHome) command(args ...string) command {
	if os.Geteuid() == 0 {
		args = append(args, "--user=root") // which it insists to be told
	}
	c := command{path: h.program, args: args}
	switch {
	case h.loader != "":
		c.path, c.args = h.loader, append([]string{"--library-path", h.libs, h.program}, args...)
	case h.libs != "":
		c.env = []string{"LD_LIBRARY_PATH=" + h.libs}
	}
	return c
}

// settings tell the program where its files are.
func (h *mysqlHome) settings() map[string]string {
	s := make(map[string]string)
	if h.base != "" {
		s["basedir"] = h.base
	}
	if h.share != "" {
		s["lc_messages_dir"] = h.share
		s["character_sets_dir"] = filepath.Join(h.share, "charsets")
	}
	if h.plugins != "" {
		s["plugin_dir"] = h.plugins
	}
	return s
}

// atLeast reports whether it is that version or a newer one.
func (h *mysqlHome) atLeast(version ...int) bool {
	return slices.Compare(numbers(h.version), version) >= 0
}

// findMySQL returns the home of a server of that flavor and version, fetched if it
// is not in the cache. An empty version means an installed one, or the first of
// the known ones that can be fetched here.
func findMySQL(ctx context.Context, flavor, version string) (*mysqlHome, error) {
	releases, likely := mysqlReleases, []string{"9", "8.0"}
	if flavor == mysql.MariaDBFlavor {
		releases, likely = mariadbReleases, []string{"11"}
	}
	if version != "" {
		r, known := releases[version]
		if !known {
			return nil, fmt.Errorf("no %s %q is known here, want one of %q", product(flavor), version, slices.Sorted(maps.Keys(releases)))
		}
		return fetchMySQL(ctx, flavor, version, r)
	}
	if h := installedMySQL(ctx, flavor); h != nil {
		return h, nil
	}
	var errs []string
	for _, v := range likely {
		h, err := fetchMySQL(ctx, flavor, v, releases[v])
		if err == nil {
			return h, nil
		}
		errs = append(errs, err.Error())
	}
	return nil, fmt.Errorf("no %s is installed, and none can be fetched; install one: %s", product(flavor), strings.Join(errs, "; "))
}

// product returns the name of what has the flavor.
func product(flavor string) string {
	if flavor == mysql.MariaDBFlavor {
		return "MariaDB"
	}
	return "MySQL"
}

// fetchMySQL returns a home in the cache.
func fetchMySQL(ctx context.Context, flavor, version string, r mysqlRelease) (*mysqlHome, error) {
	if r.artifact != "" {
		dir, err := cached(ctx, flavor+"-"+r.version, func(dir string) error { return mysqlFromMaven(ctx, dir, r) })
		if err != nil {
			return nil, err
		}
		return mavenMySQL(dir, r.version), nil
	}
	dir, err := cachedRelease(ctx, flavor+"-"+version, func(dir string) (string, error) {
		full, err := mysqlFromDebian(ctx, dir, flavor, r.suite)
		if err != nil {
			return "", err
		}
		if !strings.HasPrefix(full, version+".") {
			return "", fmt.Errorf("the suite %s of Debian has %s %s now, want %s", r.suite, product(flavor), full, version)
		}
		return flavor + "-" + full, nil
	})
	if err != nil {
		return nil, err
	}
	return debianMySQL(dir, flavor)
}

// mysqlFromMaven puts in dir the archive that lies inside a published jar: bin,
// lib and share.
func mysqlFromMaven(ctx context.Context, dir string, r mysqlRelease) error {
	if platform := runtime.GOOS + "/" + runtime.GOARCH; platform != "linux/amd64" {
		return fmt.Errorf("no MySQL %s to fetch for %s", r.version, platform)
	}
	work := filepath.Join(dir, "download")
	if err := os.Mkdir(work, 0o755); err != nil {
		return fmt.Errorf("make the download folder: %w", err)
	}
	defer os.RemoveAll(work)
	if err := maven(ctx, work, "copy", "-Dartifact="+r.artifact); err != nil {
		return err
	}
	_, name, _ := strings.Cut(r.artifact, ":")
	jar, err := zip.OpenReader(filepath.Join(work, strings.Replace(name, ":", "-", 1)+".jar"))
	if err != nil {
		return fmt.Errorf("open the fetched MySQL: %w", err)
	}
	defer jar.Close()
	f, err := jar.Open("mysql-Linux-amd64.tar.gz")
	if err != nil {
		return fmt.Errorf("open the fetched MySQL: %w", err)
	}
	defer f.Close()
	archive, err := io.ReadAll(f)
	if err != nil {
		return fmt.Errorf("open the fetched MySQL: %w", err)
	}
	if err := verify(archive, r.sum); err != nil {
		return fmt.Errorf("MySQL %s: %w", r.version, err)
	}
	unzipped, err := gzip.NewReader(bytes.NewReader(archive))
	if err != nil {
		return fmt.Errorf("unpack MySQL %s: %w", r.version, err)
	}
	if err := untar(dir, unzipped); err != nil {
		return err
	}
	return addLibaio(ctx, dir, r.version)
}

// addLibaio gives a build from Maven the one library that it needs and many
// machines lack.
func addLibaio(ctx context.Context, dir, version string) error {
	_, err := mavenMySQL(dir, version).command("--no-defaults", "--version").run(ctx)
	if err == nil {
		return nil
	}
	if !strings.Contains(err.Error(), "libaio.so.1") {
		return fmt.Errorf("try MySQL %s: %w", version, err)
	}
	// Later suites have it under another name.
	if _, err := fetchDebian(ctx, filepath.Join(dir, "libaio"), "bookworm", "libaio1"); err != nil {
		return fmt.Errorf("MySQL %s needs the library libaio.so.1; install it (Debian's package was libaio1, now libaio1t64): %w", version, err)
	}
	if _, err := mavenMySQL(dir, version).command("--no-defaults", "--version").run(ctx); err != nil {
		return fmt.Errorf("try MySQL %s: %w", version, err)
	}
	return nil
}

// mavenMySQL describes what mysqlFromMaven has put in dir.
func mavenMySQL(dir, version string) *mysqlHome {
	libs := []string{filepath.Join(dir, "bin"), filepath.Join(dir, "lib")}
	libaio, _ := filepath.Glob(filepath.Join(dir, "libaio", "usr", "lib", "*")) // fails only on a bad pattern
	return &mysqlHome{
		flavor:  mysql.MySQLFlavor,
		version: version,
		program: filepath.Join(dir, "bin", "mysqld"),
		libs:    strings.Join(append(libs, libaio...), ":"),
		share:   filepath.Join(dir, "share"),
		base:    dir,
		oldTLS:  true,
	}
}

// debianVersion is the upstream part of a version such as 1:10.11.18-0+deb12u1.
var debianVersion = regexp.MustCompile(`^(?:\d+:)?(\d+\.\d+\.\d+)`)

// mysqlFromDebian puts a server, its libraries and their loader in dir: below usr,
// lib and lib64.
func mysqlFromDebian(ctx context.Context, dir, flavor, suite string) (version string, err error) {
	// MariaDB's plugins are in a package that depends on much more.
	name, core := flavor+"-server-core", flavor+"-server-core"
	if flavor == mysql.MariaDBFlavor {
		name = "mariadb-server"
	}
	full, err := fetchDebian(ctx, dir, suite, name, core)
	if err != nil {
		return "", err
	}
	m := debianVersion.FindStringSubmatch(full)
	if m == nil {
		return "", fmt.Errorf("the suite %s of Debian has %s in the unknown version %q", suite, product(flavor), full)
	}
	if err := prune(dir, "lib", "lib64", "usr/lib", "usr/lib64", "usr/sbin", "usr/share/mysql", "usr/share/mariadb"); err != nil {
		return "", err
	}
	return m[1], nil
}

// debianMySQL describes what mysqlFromDebian has put in dir.
func debianMySQL(dir, flavor string) (*mysqlHome, error) {
	one := func(patterns ...string) string {
		for _, p := range patterns {
			if found, _ := filepath.Glob(filepath.Join(dir, p)); len(found) > 0 { // fails only on a bad pattern
				return found[0]
			}
		}
		return ""
	}
	_, version, _ := strings.Cut(filepath.Base(dir), "-")
	h := &mysqlHome{
		flavor:  flavor,
		version: version,
		program: one("usr/sbin/mariadbd", "usr/sbin/mysqld"),
		loader:  one("usr/lib/*/ld-linux-*.so.*", "lib/*/ld-linux-*.so.*"),
		share:   one("usr/share/mariadb", "usr/share/mysql"),
		plugins: one("usr/lib/mysql/plugin"),
		base:    filepath.Join(dir, "usr"),
	}
	if h.program == "" || h.loader == "" || h.share == "" {
		return nil, fmt.Errorf("no whole %s is in %s; remove the folder, so that it is fetched again", product(flavor), dir)
	}
	arch := filepath.Base(filepath.Dir(h.loader))
	h.libs = strings.Join([]string{
		filepath.Join(dir, "usr/lib", arch), filepath.Join(dir, "lib", arch), filepath.Join(dir, "usr/lib/mysql/private"),
	}, ":")
	return h, nil
}

var mysqlVersionLine = regexp.MustCompile(`Ver (\d+\.\d+\.\d+)(-MariaDB)?`)

// installedMySQL returns a server of that flavor on the machine, or nil.
func installedMySQL(ctx context.Context, flavor string) *mysqlHome {
	for _, name := range []string{"mariadbd", "mysqld", "/usr/sbin/mariadbd", "/usr/sbin/mysqld", "/usr/libexec/mariadbd", "/usr/libexec/mysqld"} {
		path, err := exec.LookPath(name)
		if err != nil {
			continue
		}
		out, err := command{path: path, args: []string{"--no-defaults", "--version"}}.run(ctx)
		if err != nil {
			continue
		}
		m := mysqlVersionLine.FindStringSubmatch(out)
		if m == nil || (m[2] != "") != (flavor == mysql.MariaDBFlavor) {
			continue
		}
		h := &mysqlHome{flavor: flavor, version: m[1], program: path}
		if oldest := map[string][]int{mysql.MySQLFlavor: {8}, mysql.MariaDBFlavor: {10, 5}}[flavor]; h.atLeast(oldest...) {
			return h
		}
	}
	return nil
}
