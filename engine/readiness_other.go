//go:build !linux

package engine

// The portable fallback, for development: the kernel pauses nothing.

func (r *readiness) pause(int) error           { return errNoReadiness }
func (r *readiness) resume(int) error          { return errNoReadiness }
func (r *readiness) remove(int) error          { return errNoReadiness }
func findReadiness([]int) ([]readiness, error) { return nil, errNoReadiness }
