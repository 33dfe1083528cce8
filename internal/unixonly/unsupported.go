//go:build !unix

// Package unixonly makes a build for a system that is no Unix fail with one error that names
// the cause.
package unixonly

// The undefined name is the message of the compiler.
var _ = package_ws_needs_Linux_macOS_or_BSD_and_does_not_run_on_this_system
