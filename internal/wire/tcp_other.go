//go:build !linux && !darwin

package wire

import "errors"

// setUserTimeout does nothing on other systems, where TCP uses its own timeout.
func setUserTimeout(uintptr, int) error { return nil }

// setMaxUnsent fails on other systems, where the send buffer is limited instead.
func setMaxUnsent(uintptr, int) error { return errors.ErrUnsupported }
