package engine

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// writev writes bufs in one system call and changes none of them.
//
// The socket does not block, so the call needs no scheduler's help: a raw
// system call saves handing the processor over.
func writev(fd int, bufs [][]byte) (int, error) {
	if len(bufs) == 1 {
		return write(fd, bufs[0])
	}
	return unix.Writev(fd, bufs)
}

// write writes b in one system call.
func write(fd int, b []byte) (int, error) {
	n, _, errno := unix.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}
