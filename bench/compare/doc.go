// Package compare holds the command that gives the same loads to this library
// and to its peers.
package compare
