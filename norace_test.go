//go:build !race

package resock_test

// raceEnabled is whether the race detector runs, which allocates itself.
const raceEnabled = false
