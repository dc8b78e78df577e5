//go:build race

package rig

// Race is whether the race detector runs, which allocates itself.
const Race = true
