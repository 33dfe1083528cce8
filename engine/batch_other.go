//go:build !linux

package engine

// batch is never made on this system.
type batch struct{}

// minBatch is larger than any number of connections.
const minBatch = int(^uint(0) >> 1)

func newBatch(*Config) *batch   { return nil }
func (*batch) flush(*dirtyList) {}
func (*batch) holds(*Conn) bool { return false }
func (*batch) close()           {}
