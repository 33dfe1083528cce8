// Package harness has a server that runs a [ws.Manager], on both ways in which connections reach
// it, and a client that can also send invalid bytes, for the tests of the module. Applications use
// package wstest.
package harness
