//go:build !linux

package netwatch

import "errors"

func openNetlink() (*hints, error) { return nil, errors.ErrUnsupported }
