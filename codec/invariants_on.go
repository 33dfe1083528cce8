//go:build invariants

package codec

// invariants is set by the build tag of that name: released buffers are then poisoned.
const invariants = true

// poison overwrites b, so that a use after release shows.
func poison(b []byte) {
	for i := range b {
		b[i] = 0xDB
	}
}
