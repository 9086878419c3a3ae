package integration

import (
	"encoding/json"
	"errors"
	"go/parser"
	"go/token"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestPackages_SayWhatTheyAreFor wants one package comment in each package: in doc.go, or
// in main.go of a program. Two would be joined into one text by accident.
func TestPackages_SayWhatTheyAreFor(t *testing.T) {
	t.Parallel()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-json=Dir,ImportPath,Name,GoFiles,IgnoredGoFiles,TestGoFiles", module+"/...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p struct {
			Dir, ImportPath, Name                string
			GoFiles, IgnoredGoFiles, TestGoFiles []string
		}
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			t.Fatal(err)
		}
		want, begin := "doc.go", "Package "+p.Name+" "
		if p.Name == "main" {
			want, begin = "main.go", "Command "+filepath.Base(p.ImportPath)+" "
		}
		var commented []string
		for _, name := range slices.Concat(p.GoFiles, p.IgnoredGoFiles, p.TestGoFiles) {
			f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, name), nil, parser.PackageClauseOnly|parser.ParseComments)
			if err != nil {
				t.Error(err)
				continue
			}
			if text := f.Doc.Text(); text != "" {
				commented = append(commented, name)
				if !strings.HasPrefix(text, begin) {
					t.Errorf("%s/%s begins with %.40q, want %q", p.ImportPath, name, text, begin)
				}
			}
		}
		if !slices.Equal(commented, []string{want}) {
			t.Errorf("%s has its comment in %q, want it in %s", p.ImportPath, commented, want)
		}
	}
}
