//go:build dragonfly || freebsd || netbsd

package engine

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// writev writes the buffers of iov in one system call.
func writev(fd int, iov []unix.Iovec) (int, error) {
	n, _, errno := unix.Syscall(unix.SYS_WRITEV,
		uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(iov))), uintptr(len(iov)))
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// write writes b in one system call.
func write(fd int, b []byte) (int, error) { return unix.Write(fd, b) }
