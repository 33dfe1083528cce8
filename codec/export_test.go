package codec

// The internals that tests use.
const (
	MaxPooledBytes   = maxPooledBytes
	MinAssemblyBytes = minAssemblyBytes
)

// UTF8State is the incremental validator.
type UTF8State struct{ s utf8State }

func (u *UTF8State) Write(b []byte) bool { return u.s.write(b) }
func (u *UTF8State) Complete() bool      { return u.s.complete() }

// HasPartial reports whether d holds partial state.
func (d *Decoder) HasPartial() bool { return d.p != nil }

// AssemblyCap returns the capacity of d's assembly buffer.
func (d *Decoder) AssemblyCap() int {
	if d.p == nil {
		return 0
	}
	return cap(d.p.buf)
}

// PooledCap returns the capacity of the assembly buffer that a partial keeps in the pool if it
// had the capacity n.
func PooledCap(n int) int {
	p := &partial{buf: make([]byte, 0, n)}
	putPartial(p)
	return cap(p.buf)
}

// EqualFold is equalFold.
func EqualFold(s, t string) bool { return equalFold(s, t) }
