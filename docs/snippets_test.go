package docs

import (
	"flag"
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the snippets of the Go files into the documents")

var (
	// region is a part of a Go file that a document shows.
	region = regexp.MustCompile(`(?ms)^\t*// snippet: ([\w-]+)\n(.*?)^\t*// end of snippet\n`)
	// shown is a snippet in a document, below a comment with its name.
	shown = regexp.MustCompile("(?s)<!-- snippet: ([\\w-]+) -->\n```go\n(.*?)```\n")
)

// Each snippet of the documents is part of a Go file that is compiled, and most are run by
// tests. Each such part is in a document.
func TestSnippets(t *testing.T) {
	code, used := snippets(t), make(map[string]bool)
	for _, document := range []string{"docs/recipes.md", "docs/migrating.md"} {
		text := read(t, document)
		if blocks, named := strings.Count(text, "```go\n"), len(shown.FindAllString(text, -1)); blocks != named {
			t.Errorf("%s has %d blocks of Go, and names %d", document, blocks, named)
		}
		renewed := shown.ReplaceAllStringFunc(text, func(old string) string {
			name := shown.FindStringSubmatch(old)[1]
			used[name] = true
			if code[name] == "" {
				t.Errorf("%s: no Go file has the snippet %s", document, name)
			}
			return "<!-- snippet: " + name + " -->\n```go\n" + code[name] + "```\n"
		})
		if renewed != text && !*update {
			t.Errorf("%s shows other code than the Go files have: go test ./docs -run TestSnippets -update", document)
		}
		if renewed != text && *update {
			if err := os.WriteFile("../"+document, []byte(renewed), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name := range code {
		if !used[name] {
			t.Errorf("no document shows the snippet %s", name)
		}
	}
}

// snippets returns the snippets of all Go files below docs, by name.
func snippets(t *testing.T) map[string]string {
	t.Helper()
	code := make(map[string]string)
	files := slices.DeleteFunc(tree(t), func(file string) bool {
		return !strings.HasPrefix(file, "docs/") || path.Ext(file) != ".go"
	})
	for _, file := range files {
		text, err := fs.ReadFile(repository, file)
		if err != nil {
			t.Fatal(err)
		}
		for _, match := range region.FindAllStringSubmatch(string(text), -1) {
			if code[match[1]] != "" {
				t.Errorf("%s has another snippet %s", file, match[1])
			}
			code[match[1]] = unindent(match[2])
		}
	}
	return code
}

// unindent removes the tabs that all lines of a text begin with, and blank lines around it.
func unindent(text string) string {
	lines := strings.Split(strings.Trim(text, "\n"), "\n")
	for common := true; common; {
		for _, line := range lines {
			common = common && (line == "" || line[0] == '\t')
		}
		for i := range lines {
			if common && lines[i] != "" {
				lines[i] = lines[i][1:]
			}
		}
	}
	return strings.Join(lines, "\n") + "\n"
}

func TestUnindent(t *testing.T) {
	if got, want := unindent("\n\t\ta {\n\n\t\t\tb\n\t\t}\n"), "a {\n\n\tb\n}\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
