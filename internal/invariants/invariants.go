// Package invariants switches on checks that cost time: under the build tag invariants, released
// buffers are overwritten, a double release panics, and the engine asserts that loop-confined
// functions run on their event loop. Callers ask Enabled, a constant, so that other builds pay nothing.
package invariants

// PoisonByte is the byte that Poison writes. It is no ASCII and no valid UTF-8 text on its own.
const PoisonByte = 0xDB

// Poison overwrites b, so that a use after release shows.
func Poison(b []byte) {
	for i := range b {
		b[i] = PoisonByte
	}
}
