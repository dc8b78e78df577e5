package main

import (
	"os/exec"
	"strings"
	"testing"
)

// TestDemo runs the demonstration in short.
func TestDemo(t *testing.T) {
	output, err := exec.CommandContext(t.Context(), "go", "run", ".", "-for", "5s").CombinedOutput()
	if err != nil || !strings.Contains(string(output), "missing: 0") {
		t.Errorf("%v\n%s", err, output)
	}
}
