// Package sim is the command that simulates up to a million connections without sockets.
package sim
