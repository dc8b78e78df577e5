package resock_test

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

	"github.com/resock/resock"
	"github.com/resock/resock/internal/grammar"
)

func init() { resock.CheckedEvents = grammar.Tee }

// TestEveryStreamIsChecked keeps the tests of all modules to the grammar: a
// function that subscribes by itself, and not by grammar.Tee, reads what it gets
// by the All of a grammar.Checker. Examples are shown to users, and show no more
// than users need.
func TestEveryStreamIsChecked(t *testing.T) {
	checkedElsewhere := map[string]string{
		"internal/rig/bare.go: Abandon": "nobody reads what it returns, or a checker does",
		"load_test.go: testManyClients": "by fleet.watch, which counts as well",
		"schedule_test.go: subscribe":   "by checkReader, with all else, when a trial is over",
		"soak_test.go: testPushes":      "by its own loop, which waits for more than events",
	}
	err := filepath.WalkDir(".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") && filepath.Dir(path) != filepath.Join("internal", "rig") || entry.IsDir() {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		for _, declaration := range file.Decls {
			function, ok := declaration.(*ast.FuncDecl)
			if !ok || strings.HasPrefix(function.Name.Name, "Example") {
				continue
			}
			called := calledMethods(function)
			if name := filepath.ToSlash(path) + ": " + function.Name.Name; called["Subscribe"] && !called["All"] {
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
