//go:build linux || darwin

package engine

import (
	"os"

	"golang.org/x/sys/unix"
)

// boundUnsent makes a write to the socket fd end once n bytes are unsent, and
// the socket writable once less than half of them are. On macOS it does the
// second alone.
func boundUnsent(fd, n int) error {
	return os.NewSyscallError("setsockopt", unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, n))
}
