package trials

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// repository is the root of the repository, which contains all modules.
const repository = ".."

// TestEveryStreamIsChecked ensures that the tests of all modules check the event
// grammar: a function that calls Subscribe, rather than grammar.Tee, reads the events by
// the All of a grammar.Checker. Examples are exempt, since they show users no more than
// they need.
func TestEveryStreamIsChecked(t *testing.T) {
	checkedElsewhere := map[string]string{
		"internal/rig/bare.go: Abandon":                    "nobody reads what it returns, or a checker does",
		"debug/history_test.go: TestBlockedAndQueue":       "by nobody: it never reads",
		"interop/fleet_test.go: block":                     "by nobody: it never reads",
		"resockprom/life_test.go: TestBlocked":             "by nobody: it never reads",
		"resockotel/metrics_test.go: TestQueueAndBlocking": "by nobody: it never reads",
		"resockotel/metrics_test.go: TestDrops":            "by nobody: it never reads",
		"outbox/process_test.go: bind":                     "by nobody: it may be too slow to get all before the end",
		"resume/bench_test.go: BenchmarkFollow":            "by nobody: a check would be measured, too",
		"trials/bench_test.go: BenchmarkIn":                "by the same stream in TestAllocsReceive: a check would be measured too",
		"trials/load_test.go: launch":                      "by fleet.watch, which counts as well",
		"trials/schedule_test.go: subscribe":               "by checkReader, with all else, when a trial is over",
		"trials/soak_test.go: testPushes":                  "by its own loop, which waits for more than events",
	}
	err := filepath.WalkDir(repository, func(file string, entry fs.DirEntry, err error) error {
		path := strings.TrimPrefix(filepath.ToSlash(file), repository+"/")
		if err != nil || !strings.HasSuffix(path, "_test.go") && !strings.HasPrefix(path, "internal/rig/") {
			return err
		}
		if strings.HasPrefix(path, "docs/") || strings.HasPrefix(path, "examples/") {
			return nil // written as an application would
		}
		tree, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		for _, declaration := range tree.Decls {
			function, ok := declaration.(*ast.FuncDecl)
			if !ok || strings.HasPrefix(function.Name.Name, "Example") {
				continue
			}
			called := calledMethods(function)
			if name := path + ": " + function.Name.Name; called["Subscribe"] && !called["All"] {
				if checkedElsewhere[name] == "" {
					t.Errorf("%s subscribes, but does not check the event grammar", name)
				}
				delete(checkedElsewhere, name)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range slices.Sorted(maps.Keys(checkedElsewhere)) {
		t.Errorf("%s is in checkedElsewhere, but does not subscribe unchecked", name)
	}
}

// calledMethods returns the names of all selectors in node, most of which are methods.
func calledMethods(node ast.Node) map[string]bool {
	names := make(map[string]bool)
	ast.Inspect(node, func(node ast.Node) bool {
		if selector, ok := node.(*ast.SelectorExpr); ok {
			names[selector.Sel.Name] = true
		}
		return true
	})
	return names
}
