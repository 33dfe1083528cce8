// Package sim holds the command that simulates up to a million connections
// without sockets.
package sim
