//go:build linux || darwin

package engine

import (
	"os"

	"golang.org/x/sys/unix"
)

// boundUnsent makes a write to the socket fd end at n unsent bytes, and the
// socket writable at less than half of them. On macOS it does only the latter.
func boundUnsent(fd, n int) error {
	return os.NewSyscallError("setsockopt", unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, n))
}
