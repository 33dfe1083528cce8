package engine

import "golang.org/x/sys/unix"

// hasUnread reports whether the kernel holds bytes that were received on fd.
func hasUnread(fd int) bool {
	n, err := unix.IoctlGetInt(fd, unix.SIOCINQ)
	return err == nil && n > 0
}

// readProgress returns the progress of the peer of fd. Kernels before 5.4 do
// not show the window; then only the acknowledged bytes count.
func readProgress(fd int) progress {
	if info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
		return progress{int64(info.Bytes_acked) + int64(info.Snd_wnd), true}
	}
	n, err := unix.IoctlGetInt(fd, unix.SIOCOUTQ) // a Unix socket
	return progress{-int64(n), err == nil}
}
