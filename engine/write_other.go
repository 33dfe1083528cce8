//go:build !linux

package engine

import "golang.org/x/sys/unix"

// writev writes bufs in one system call and changes none of them.
func writev(fd int, bufs [][]byte) (int, error) { return unix.Writev(fd, bufs) }

// write writes b in one system call.
func write(fd int, b []byte) (int, error) { return unix.Write(fd, b) }
