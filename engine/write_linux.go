package engine

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// writev writes the buffers of iov in one system call.
//
// The socket does not block, so the call needs no help of the scheduler: a raw
// system call saves offering the processor to another thread and getting it
// back.
func writev(fd int, iov []unix.Iovec) (int, error) {
	n, _, errno := unix.RawSyscall(unix.SYS_WRITEV,
		uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(iov))), uintptr(len(iov)))
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// write writes b in one system call.
func write(fd int, b []byte) (int, error) {
	n, _, errno := unix.RawSyscall(unix.SYS_WRITE,
		uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}
