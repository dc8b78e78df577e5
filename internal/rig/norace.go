//go:build !race

package rig

// Race reports whether the race detector is on. It allocates, so tests that count
// allocations are skipped under it.
const Race = false
