package faults

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// Every row of the table has its test, every test its row, and the rows are in order.
func TestEveryFaultHasATest(t *testing.T) {
	table, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	var tests strings.Builder
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		tests.Write(text)
	}
	rows := regexp.MustCompile("(?m)^\\| (\\d+) \\|.*\\| `(TestFault(\\d+)_\\w+)` \\|$").FindAllStringSubmatch(string(table), -1)
	last := 0
	for _, row := range rows {
		number, _ := strconv.Atoi(row[1])
		if number <= last || row[3] != fmt.Sprintf("%02d", number) {
			t.Errorf("row %s comes after row %d and names %s, want rising numbers and a test of that number", row[1], last, row[2])
		}
		last = number
		if !strings.Contains(tests.String(), "\nfunc "+row[2]+"(") {
			t.Errorf("row %s names %s, which does not exist", row[1], row[2])
		}
	}
	if len(rows) < 52 {
		t.Errorf("%d rows, want at least 52", len(rows))
	}
	for _, name := range regexp.MustCompile(`(?m)^func (TestFault\d+_\w+)\(`).FindAllStringSubmatch(tests.String(), -1) {
		if !strings.Contains(string(table), "`"+name[1]+"`") {
			t.Errorf("%s has no row in the table", name[1])
		}
	}
}

// What the documents say of a promise's test is true: there is one of that name.
func TestDocumentsNameTests(t *testing.T) {
	var tests strings.Builder
	for _, pattern := range []string{"*", "faults/*", "trials/*", "interop/*", "internal/*/*"} {
		files, err := filepath.Glob("../" + pattern + "_test.go")
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %d files, %v", pattern, len(files), err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			tests.Write(text)
		}
	}
	name := regexp.MustCompile("`((?:Test|Fuzz)[A-Z]\\w+)`")
	for _, document := range []string{"README.md", "CONTRIBUTING.md", "faults/README.md", "faults/threads.md", "docs/behaviour.md"} {
		text, err := os.ReadFile("../" + document)
		if err != nil {
			t.Fatal(err)
		}
		for _, match := range name.FindAllSubmatch(text, -1) {
			if !strings.Contains(tests.String(), "\nfunc "+string(match[1])+"(") {
				t.Errorf("%s names %s, which does not exist", document, match[1])
			}
		}
	}
}
