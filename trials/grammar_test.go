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

// repository is its root, with the folders of all modules.
const repository = ".."

// TestEveryStreamIsChecked keeps the tests of all modules to the grammar: a
// function that subscribes by itself, and not by grammar.Tee, reads what it gets
// by the All of a grammar.Checker. Examples are shown to users, and show no more
// than users need.
func TestEveryStreamIsChecked(t *testing.T) {
	checkedElsewhere := map[string]string{
		"internal/rig/bare.go: Abandon":        "nobody reads what it returns, or a checker does",
		"trials/bench_test.go: BenchmarkIn":    "by the same stream in TestAllocsReceive: a check would be measured too",
		"trials/load_test.go: testManyClients": "by fleet.watch, which counts as well",
		"trials/schedule_test.go: subscribe":   "by checkReader, with all else, when a trial is over",
		"trials/soak_test.go: testPushes":      "by its own loop, which waits for more than events",
	}
	err := filepath.WalkDir(repository, func(file string, entry fs.DirEntry, err error) error {
		path := strings.TrimPrefix(filepath.ToSlash(file), repository+"/")
		if err != nil || !strings.HasSuffix(path, "_test.go") && !strings.HasPrefix(path, "internal/rig/") {
			return err
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
					t.Errorf("%s subscribes without a check of the event grammar", name)
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
		t.Errorf("%s is no exception", name)
	}
}

// calledMethods returns the names of what node selects: methods, mostly.
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
