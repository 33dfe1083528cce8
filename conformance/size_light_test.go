//go:build !heavy

package conformance_test

// mostFragments is how many fragments the largest message comes in.
const mostFragments = 1 << 14
