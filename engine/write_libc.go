//go:build darwin || openbsd

package engine

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// writev writes the buffers of iov in one system call.
func writev(fd int, iov []unix.Iovec) (int, error) {
	bufs := make([][]byte, len(iov))
	for i, v := range iov {
		bufs[i] = unsafe.Slice(v.Base, v.Len)
	}
	return unix.Writev(fd, bufs)
}

// write writes b in one system call.
func write(fd int, b []byte) (int, error) { return unix.Write(fd, b) }
