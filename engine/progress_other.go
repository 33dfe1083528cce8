//go:build !linux

package engine

// The portable fallback, for development: the signs of life are received bytes
// and a full socket that becomes writable.

func hasUnread(int) bool        { return false }
func readProgress(int) progress { return progress{} }
