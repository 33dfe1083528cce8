//go:build !invariants

package codec

// invariants is set by the build tag of that name: released buffers are then poisoned.
const invariants = false

// poison does nothing in a normal build.
func poison([]byte) {}
