//go:build !heavy

package conformance_test

// mostFragments is the number of fragments of the largest message.
const mostFragments = 1 << 14
