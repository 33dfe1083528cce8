// Package result holds the results of commands: tables and their cells, which
// several processes can merge, histograms, and the description of the machine.
package result
