package engine

import "github.com/panjf2000/gnet/v2"

// TakeWritable returns the connection of an event of the writability poller.
func (e *Engine) TakeWritable(fd int32, generation uint32) *Conn {
	return e.writable.take(fd, generation)
}

// ArmWritable arms the poller for c; call it on the loop.
func (e *Engine) ArmWritable(c *Conn) error { return e.writable.arm(c) }

// FilesLeft reads the content of /proc/sys/fs/file-nr.
func FilesLeft(content string) int { return parseFileNr(content) }

// InheritsUnsent reports whether the loop relies on its listener's bound of
// unsent bytes.
func (s *Shard) InheritsUnsent() bool { return s.driver.(*gnetLoop).inheritsInLoop() }

// WatchedEvents returns the events of c for which the loop's epoll waits.
func (c *Conn) WatchedEvents() (events uint32, err error) {
	targets, err := epollTargets(c.shard.driver.(*gnetLoop).ready.Load().epfd)
	return targets[int(c.fd)], err
}

// EnrollLate enrolls an accepted socket that the loop has not taken in time,
// and for which gnet then returns err.
func (s *Shard) EnrollLate(fd int, err error) error {
	s.eng.beginEnroll()
	result := make(chan gnet.RegisteredResult, 1)
	result <- gnet.RegisteredResult{Err: err}
	return s.place().enrollLate(result, fd, arrival{})
}
