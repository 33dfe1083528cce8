// Package workload holds the commands that measure one kind of load each, and the
// rooms and members that several of them use.
package workload
