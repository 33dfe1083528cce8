//go:build !linux

package engine

// The portable fallback, for development: life is what is read, and a full
// socket that becomes writable.

func hasUnread(int) bool        { return false }
func readProgress(int) progress { return progress{} }
