// Package examples tests what the folders of the examples have in common. CI runs them.
package examples

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// folders are the names of the examples.
func folders(t *testing.T) (names []string) {
	t.Helper()
	mains, err := filepath.Glob("*/main.go")
	if err != nil || len(mains) == 0 {
		t.Fatal("there are no examples: ", err)
	}
	for _, main := range mains {
		names = append(names, filepath.Dir(main))
	}
	return names
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// command is what runs an example from the root of the repository.
func command(name string) string {
	if _, err := os.Stat(filepath.Join(name, "go.mod")); err == nil {
		return fmt.Sprintf("go -C examples/%s run .", name)
	}
	return "go run ./examples/" + name
}

// Each example tells its command, in its documentation and in its README, which shows the
// output too: at least ten lines that begin with a time.
func TestREADMEs(t *testing.T) {
	output := regexp.MustCompile("```text\n( *\\d+\\.\\d\\ds  .*\n){10,}```\n")
	for _, name := range folders(t) {
		t.Run(name, func(t *testing.T) {
			readme := read(t, filepath.Join(name, "README.md"))
			if !strings.HasPrefix(readme, "# "+name+"\n") {
				t.Error("the README is not headed by the name of the example")
			}
			if want := "```sh\n" + command(name) + "\n```\n"; !strings.Contains(readme, want) {
				t.Errorf("the README does not say\n%s", want)
			}
			if !output.MatchString(readme) {
				t.Error("the README does not show the output")
			}
			if want := "//\t" + command(name) + "\npackage main\n"; !strings.Contains(read(t, filepath.Join(name, "main.go")), want) {
				t.Errorf("the documentation of main.go does not end with\n%s", want)
			}
		})
	}
}

// An example is read at one go.
func TestExamplesAreShort(t *testing.T) {
	older := map[string]bool{"control": true, "observers": true} // with the server in the same file
	for _, name := range folders(t) {
		if lines := strings.Count(read(t, filepath.Join(name, "main.go")), "\n"); lines >= 120 && !older[name] {
			t.Errorf("%s/main.go has %d lines, and must have fewer than 120", name, lines)
		}
	}
}
