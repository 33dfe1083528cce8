//go:build amd64 || arm64

package gid

// getg returns the address of the running goroutine's descriptor.
func getg() uintptr
