// Package contenders finds the libraries that are compared: this one, and those of the
// program bench/peers.
package contenders
