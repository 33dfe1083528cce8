//go:build !invariants

package engine

// invariants switches on checks that cost time; see mustBeInLoop.
const invariants = false
