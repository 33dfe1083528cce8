package harness

import (
	"bytes"
	"slices"
	"strings"
	"sync"
)

// Buffer collects a log. Safe for concurrent use.
type Buffer struct {
	mu  sync.Mutex
	buf bytes.Buffer // guarded by mu
}

// Write appends p.
func (b *Buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

// String returns the log so far.
func (b *Buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// ContainsLine reports whether one line of text contains all parts.
func ContainsLine(text string, parts ...string) bool {
	return slices.ContainsFunc(strings.Split(text, "\n"), func(line string) bool {
		return !slices.ContainsFunc(parts, func(part string) bool { return !strings.Contains(line, part) })
	})
}
