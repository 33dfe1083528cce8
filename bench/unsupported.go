//go:build !linux

// Command bench measures the library on this machine. It needs Linux: its load
// generator is built on epoll.
package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "bench needs Linux: its load generator is built on epoll")
	os.Exit(1)
}
