//go:build unix

// Package unixonly makes a build for a system that is no Unix fail with one error that names
// the cause. Otherwise the compiler lists undefined names of golang.org/x/sys/unix.
package unixonly
