package servers

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	embeddedpostgres "github.com/fergusstrange/embedded-postgres"
	"github.com/xi2/xz"
)

// cacheDir returns the folder of everything fetched and prepared.
func cacheDir() (string, error) {
	dir := os.Getenv("HEADWATER_CACHE")
	if dir == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			return "", fmt.Errorf("find a cache folder, set HEADWATER_CACHE to one: %w", err)
		}
		dir = filepath.Join(user, "headwater", "servers")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("find the cache folder: %w", err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("make the cache folder, HEADWATER_CACHE names another one: %w", err)
	}
	return dir, nil
}

// lockCache waits for the lock of that name; unlock releases it, and so does the
// end of our process.
func lockCache(ctx context.Context, cache, name string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(cache, name+".lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("lock %s in the cache: %w", name, err)
	}
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			f.Close()
			return nil, fmt.Errorf("lock %s in the cache: %w", name, err)
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("wait for another process that makes %s: %w", name, ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// cached returns the folder of that name in the cache. When it is missing, build
// fills a new one, which then gets the name: a folder that has its name is whole.
// Names carry the version of what is in them.
func cached(ctx context.Context, name string, build func(dir string) error) (string, error) {
	find := func(cache string) string {
		dir := filepath.Join(cache, name)
		if _, err := os.Stat(dir); err != nil {
			return ""
		}
		return dir
	}
	return makeCached(ctx, name, find, func(dir string) (string, error) { return name, build(dir) })
}

// cachedRelease does the same for what is fetched in whichever release its
// publisher has at the time. The folder is named prefix.REST, where build returns
// prefix.REST; an older one of that prefix serves as well, and the newest best.
func cachedRelease(ctx context.Context, prefix string, build func(dir string) (name string, err error)) (string, error) {
	find := func(cache string) string {
		dirs, _ := filepath.Glob(filepath.Join(cache, prefix+".[0-9]*")) // fails only on a bad pattern
		dirs = slices.DeleteFunc(dirs, func(dir string) bool { return strings.HasSuffix(dir, ".lock") })
		if len(dirs) == 0 {
			return ""
		}
		return slices.MaxFunc(dirs, func(a, b string) int { return slices.Compare(numbers(a[len(cache):]), numbers(b[len(cache):])) })
	}
	return makeCached(ctx, prefix, find, build)
}

// numbers returns the numbers in a text: those of its version.
func numbers(text string) (n []int) {
	for _, digits := range strings.FieldsFunc(text, func(r rune) bool { return r < '0' || r > '9' }) {
		i, _ := strconv.Atoi(digits) // too large a number is no version
		n = append(n, i)
	}
	return n
}

// makeCached returns what find finds in the cache, and else what build makes in
// the folder it is given, under the name it returns.
func makeCached(ctx context.Context, what string, find func(cache string) string, build func(dir string) (name string, err error)) (string, error) {
	cache, err := cacheDir()
	if err != nil {
		return "", err
	}
	if dir := find(cache); dir != "" {
		return dir, nil
	}
	unlock, err := lockCache(ctx, cache, what)
	if err != nil {
		return "", err
	}
	defer unlock()
	if dir := find(cache); dir != "" {
		return dir, nil // made by the process we waited for
	}
	unfinished := filepath.Join(cache, ".new-"+what)
	if err := os.RemoveAll(unfinished); err != nil {
		return "", fmt.Errorf("make %s in the cache: %w", what, err)
	}
	if err := os.Mkdir(unfinished, 0o755); err != nil {
		return "", fmt.Errorf("make %s in the cache: %w", what, err)
	}
	defer os.RemoveAll(unfinished)
	name, err := build(unfinished)
	if err != nil {
		return "", fmt.Errorf("make %s: %w", what, err)
	}
	dir := filepath.Join(cache, name)
	if err := os.Rename(unfinished, dir); err != nil {
		return "", fmt.Errorf("make %s in the cache: %w", what, err)
	}
	return dir, nil
}

// Pinned, because another version of it may understand other options.
const mavenDependencies = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:"

// maven runs one goal of Maven's dependency plugin in dir.
func maven(ctx context.Context, dir, goal string, args ...string) error {
	mvn, err := exec.LookPath("mvn")
	if err != nil {
		return fmt.Errorf("fetch with Maven: no mvn in PATH; install Maven (Debian's package is maven): %w", err)
	}
	cache, err := cacheDir()
	if err != nil {
		return err
	}
	// Two Mavens that fill the same local repository can disturb each other.
	unlock, err := lockCache(ctx, cache, "maven")
	if err != nil {
		return err
	}
	defer unlock()
	c := command{path: mvn, dir: dir, args: append([]string{"-q", "-B", "-ntp", mavenDependencies + goal, "-DoutputDirectory=" + dir}, args...)}
	if _, err := c.run(ctx); err != nil {
		return fmt.Errorf("fetch with Maven: %w", err)
	}
	return nil
}

// fetchPostgres puts the server of that full version in dir: bin, lib and share.
func fetchPostgres(ctx context.Context, dir, version string) error {
	arch := map[string]string{"linux/amd64": "amd64", "linux/arm64": "arm64v8"}[runtime.GOOS+"/"+runtime.GOARCH]
	if arch == "" {
		return fmt.Errorf("no PostgreSQL to fetch for %s/%s: install PostgreSQL so that pg_config is in PATH", runtime.GOOS, runtime.GOARCH)
	}
	work := filepath.Join(dir, "download")
	if err := os.Mkdir(work, 0o755); err != nil {
		return fmt.Errorf("make the download folder: %w", err)
	}
	defer os.RemoveAll(work)

	get := postgresFromMaven
	if _, err := exec.LookPath("mvn"); err != nil {
		get = postgresFromLibrary
	}
	archive, err := get(ctx, work, version, arch)
	if err != nil {
		return err
	}
	if err := verify(archive, postgresSums[version+"/"+arch]); err != nil {
		return fmt.Errorf("PostgreSQL %s: %w", version, err)
	}
	r, err := xz.NewReader(bytes.NewReader(archive), 0)
	if err != nil {
		return fmt.Errorf("unpack PostgreSQL %s: %w", version, err)
	}
	return untar(dir, r)
}

// postgresFromMaven returns the archive that lies inside a published jar.
func postgresFromMaven(ctx context.Context, work, version, arch string) ([]byte, error) {
	name := "embedded-postgres-binaries-linux-" + arch
	if err := maven(ctx, work, "copy", "-Dartifact=io.zonky.test.postgres:"+name+":"+version); err != nil {
		return nil, err
	}
	jar, err := zip.OpenReader(filepath.Join(work, name+"-"+version+".jar"))
	if err != nil {
		return nil, fmt.Errorf("open the fetched PostgreSQL: %w", err)
	}
	defer jar.Close()
	for _, f := range jar.File {
		if !strings.HasSuffix(f.Name, ".txz") {
			continue
		}
		r, err := f.Open()
		if err != nil {
			return nil, fmt.Errorf("open the fetched PostgreSQL: %w", err)
		}
		defer r.Close()
		return io.ReadAll(r)
	}
	return nil, fmt.Errorf("open the fetched PostgreSQL: no .txz in %s", jar.File[0].Name)
}

// postgresFromLibrary returns the same archive without Maven. The library would
// also unpack and run it, before we could verify it: it is given a folder that
// cannot be made, so that it stops with an error once the archive is there.
func postgresFromLibrary(ctx context.Context, work, version, arch string) ([]byte, error) {
	nowhere := filepath.Join(work, "nowhere")
	if err := os.Symlink(filepath.Join(work, "missing"), nowhere); err != nil {
		return nil, fmt.Errorf("prepare the download: %w", err)
	}
	ports, err := freePorts(1) // it insists on a free one
	if err != nil {
		return nil, err
	}
	failed := make(chan error, 1)
	go func() {
		// It takes no context; if ours ends first, this ends with the download.
		failed <- embeddedpostgres.NewDatabase(embeddedpostgres.DefaultConfig().
			Version(embeddedpostgres.PostgresVersion(version)).
			Port(uint32(ports[0])).
			CachePath(work).
			RuntimePath(filepath.Join(work, "runtime")).
			BinariesPath(filepath.Join(nowhere, "bin")).
			Logger(io.Discard)).Start()
	}()
	select {
	case err = <-failed:
	case <-ctx.Done():
		return nil, fmt.Errorf("fetch PostgreSQL %s: %w", version, ctx.Err())
	}
	archive, readErr := os.ReadFile(filepath.Join(work, fmt.Sprintf("embedded-postgres-binaries-linux-%s-%s.txz", arch, version)))
	if readErr != nil {
		return nil, fmt.Errorf("fetch PostgreSQL %s without mvn (install Maven, or PostgreSQL itself): %w", version, err)
	}
	return archive, nil
}

// verify compares data with a pinned checksum.
func verify(data []byte, want string) error {
	sum := sha256.Sum256(data)
	if got := hex.EncodeToString(sum[:]); got != want {
		return fmt.Errorf("the fetched file has SHA-256 %s, want %s", got, want)
	}
	return nil
}

// untar unpacks into dir and can write nowhere else.
func untar(dir string, r io.Reader) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("unpack: %w", err)
	}
	defer root.Close()
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("unpack: %w", err)
		}
		if err := untarEntry(root, h, tr); err != nil {
			return fmt.Errorf("unpack %s: %w", h.Name, err)
		}
	}
}

func untarEntry(root *os.Root, h *tar.Header, r io.Reader) error {
	name := filepath.Clean(h.Name)
	if err := root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	switch h.Typeflag {
	case tar.TypeDir:
		return root.MkdirAll(name, 0o755)
	case tar.TypeSymlink:
		return root.Symlink(h.Linkname, name)
	case tar.TypeLink:
		return root.Link(filepath.Clean(h.Linkname), name)
	case tar.TypeReg:
		f, err := root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, os.FileMode(h.Mode)&0o755|0o644)
		if err != nil {
			return err
		}
		if _, err := io.Copy(f, r); err != nil {
			f.Close()
			return err
		}
		return f.Close()
	}
	return nil
}
