//go:build !linux

package engine

// The portable fallback, for development: the kernel pauses nothing.

func (r *readiness) pause(int) error  { return errNoReadiness }
func (r *readiness) resume(int) error { return errNoReadiness }
func (r *readiness) remove(int) error { return errNoReadiness }

// eventPoll is never used, because canKick is false.
type eventPoll struct{}

func (*eventPoll) wait(*readiness) (others int, kicked bool) { return 0, false }

func (r *readiness) canKick() bool { return false }
func (r *readiness) kick() error   { return errNoReadiness }
func (r *readiness) kickAgain()    {}

func findReadiness([]int) ([]readiness, error) { return nil, errNoReadiness }
