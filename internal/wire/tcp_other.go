//go:build !linux && !darwin

package wire

// Elsewhere TCP itself decides when to give up.
func setUserTimeout(uintptr, int) error { return nil }
