//go:build !linux && !darwin

package engine

import "errors"

// boundUnsent returns an error: the BSDs have no such option.
func boundUnsent(int, int) error { return errors.ErrUnsupported }
