//go:build !linux && !darwin

package wire

// setUserTimeout does nothing on other systems, where TCP uses its own timeout.
func setUserTimeout(uintptr, int) error { return nil }
