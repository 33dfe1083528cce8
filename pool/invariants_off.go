//go:build !invariants

package pool

// Invariants reports whether the build tag invariants is set: released buffers are poisoned,
// and a double release panics.
const Invariants = false
