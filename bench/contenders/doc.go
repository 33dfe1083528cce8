// Package contenders finds the libraries of a comparison: this one, and the
// peers that the program bench/peers lists.
package contenders
