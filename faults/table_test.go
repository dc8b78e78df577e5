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

// TestEveryFaultHasATest keeps the table and the tests together.
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
			t.Errorf("row %s stands behind row %d and names %s", row[1], last, row[2])
		}
		last = number
		if !strings.Contains(tests.String(), "\nfunc "+row[2]+"(") {
			t.Errorf("row %s: there is no %s", row[1], row[2])
		}
	}
	if len(rows) < 52 {
		t.Errorf("%d rows, want 52 and more", len(rows))
	}
	for _, name := range regexp.MustCompile(`(?m)^func (TestFault\d+_\w+)\(`).FindAllStringSubmatch(tests.String(), -1) {
		if !strings.Contains(string(table), "`"+name[1]+"`") {
			t.Errorf("%s has no row", name[1])
		}
	}
}
