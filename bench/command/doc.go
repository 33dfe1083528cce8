// Package command defines the subcommands of bench: their interface, the
// session that holds the options of all of them, the flags that several have,
// the progress line and the process's part of a load that several processes
// share.
package command
