package servers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// aptConfig makes apt-get a program that fetches and no more: its state and its
// sources are in the folder %[1]s, apart from the machine's, and nothing counts as
// installed. How to reach a mirror (proxies) it still learns from the machine.
const aptConfig = `
Dir::State "%[1]s/state";
Dir::State::status "%[1]s/state/status";
Dir::Cache "%[1]s/cache";
Dir::Log "%[1]s";
Dir::Etc::sourcelist "%[1]s/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
APT::Sandbox::User "root"; // the user that asks, who alone can write here
APT::Install-Recommends "0";
Acquire::Languages "none";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
// The release file of a mirror of sid can be past its date.
Acquire::Check-Valid-Until "false";
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
`

const debianKeys = "/usr/share/keyrings/debian-archive-keyring.gpg"

// aptURI finds the package in a line of apt-get --print-uris:
// 'http://…/libaio1_0.3.113-4_amd64.deb' libaio1_0.3.113-4_amd64.deb 13432 SHA256:…
var aptURI = regexp.MustCompile(`(?m)^'[^']+' ([^_ ]+)_`)

// fetchDebian unpacks a package of a suite of Debian into dir, together with all
// that the packages named in roots depend on: with a C library and a loader of its
// own, such a program runs on any Linux. Nothing is installed. It returns the
// package's version.
func fetchDebian(ctx context.Context, dir, suite, name string, roots ...string) (version string, err error) {
	for _, program := range []string{"apt-get", "dpkg-deb"} {
		if _, err := exec.LookPath(program); err != nil {
			return "", fmt.Errorf("fetch %s from Debian: no %s in PATH: %w", name, program, err)
		}
	}
	if _, err := os.Stat(debianKeys); err != nil {
		return "", fmt.Errorf("fetch %s from Debian: no keys to verify it with; install the package debian-archive-keyring: %w", name, err)
	}
	mirror, err := debianMirror(ctx)
	if err != nil {
		return "", err
	}
	work := filepath.Join(dir, "download")
	defer os.RemoveAll(work)
	for _, sub := range []string{"state/lists/partial", "cache/archives/partial", "deb"} {
		if err := os.MkdirAll(filepath.Join(work, sub), 0o755); err != nil {
			return "", fmt.Errorf("make the download folder: %w", err)
		}
	}
	config := filepath.Join(work, "apt.conf")
	for file, text := range map[string]string{
		config:                              fmt.Sprintf(aptConfig, work),
		filepath.Join(work, "sources.list"): fmt.Sprintf("deb [signed-by=%s] %s %s main\n", debianKeys, mirror, suite),
		filepath.Join(work, "state/status"): "",
	} {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			return "", fmt.Errorf("configure apt-get: %w", err)
		}
	}
	debs := filepath.Join(work, "deb")
	apt := func(args ...string) (string, error) {
		c := command{path: "apt-get", args: append([]string{"-q=2", "-c", config}, args...), dir: debs}
		return c.run(ctx)
	}
	if _, err := apt("update"); err != nil {
		return "", fmt.Errorf("read Debian's %s: %w", suite, err)
	}
	packages := []string{name}
	if len(roots) > 0 {
		out, err := apt(append([]string{"install", "--yes", "--print-uris"}, roots...)...)
		if err != nil {
			return "", fmt.Errorf("find what %s depends on: %w", name, err)
		}
		for _, m := range aptURI.FindAllStringSubmatch(out, -1) {
			packages = append(packages, m[1])
		}
		// Perl is for scripts that we do not run.
		packages = slices.DeleteFunc(packages, func(p string) bool {
			return strings.HasPrefix(p, "perl") || strings.HasPrefix(p, "libperl")
		})
		slices.Sort(packages)
		packages = slices.Compact(packages)
	}
	if _, err := apt(append([]string{"download"}, packages...)...); err != nil {
		return "", fmt.Errorf("fetch %s from Debian: %w", name, err)
	}
	files, _ := filepath.Glob(filepath.Join(debs, "*.deb")) // fails only on a bad pattern
	if len(files) != len(packages) {
		return "", fmt.Errorf("fetch %s from Debian: got %d packages, want %d", name, len(files), len(packages))
	}
	for _, file := range files {
		if _, err := (command{path: "dpkg-deb", args: []string{"--extract", file, dir}}).run(ctx); err != nil {
			return "", fmt.Errorf("unpack %s: %w", filepath.Base(file), err)
		}
		if strings.HasPrefix(filepath.Base(file), name+"_") {
			if version, err = (command{path: "dpkg-deb", args: []string{"--field", file, "Version"}}).run(ctx); err != nil {
				return "", fmt.Errorf("unpack %s: %w", filepath.Base(file), err)
			}
		}
	}
	return strings.TrimSpace(version), nil
}

// debianMirror returns the mirror of Debian that the machine uses.
func debianMirror(ctx context.Context) (string, error) {
	if mirror := os.Getenv("HEADWATER_DEBIAN_MIRROR"); mirror != "" {
		return mirror, nil
	}
	out, err := command{path: "apt-get", args: []string{
		"indextargets", "--no-release-info", "--format", "$(SITE)", "Created-By: Packages",
	}}.run(ctx)
	if err != nil {
		return "", fmt.Errorf("find the machine's mirror of Debian: %w", err)
	}
	for _, site := range strings.Fields(out) {
		if site = strings.TrimSuffix(site, "/"); strings.HasSuffix(site, "/debian") {
			return site, nil
		}
	}
	return "", errors.New("find the machine's mirror of Debian: its apt uses none; set HEADWATER_DEBIAN_MIRROR to the address of one")
}

// prune removes from dir everything but the paths that are kept, and what leads to
// them.
func prune(dir string, keep ...string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("tidy what was fetched: %w", err)
	}
	for _, e := range entries {
		var below []string
		whole := false
		for _, k := range keep {
			first, rest, deeper := strings.Cut(k, "/")
			if first == e.Name() {
				whole = whole || !deeper
				below = append(below, rest)
			}
		}
		path := filepath.Join(dir, e.Name())
		switch {
		case whole:
		case len(below) > 0:
			if err := prune(path, below...); err != nil {
				return err
			}
		default:
			if err := os.RemoveAll(path); err != nil {
				return fmt.Errorf("tidy what was fetched: %w", err)
			}
		}
	}
	return nil
}
