//go:build linux

package main

import (
	"context"
	"flag"
)

// command is a subcommand of bench. Immutable.
type command struct {
	name, about   string // about is one line
	help, example string
	notInAll      bool // "bench all" leaves it out: it takes long, or measures nothing
	varies        bool // it sets -loops, -ring, -batch and -room-shards of the server itself
	procs         bool // -procs can run it in several processes
	new           func() runner
}

// runner holds the options of one run of a command. Not safe for concurrent use.
type runner interface {
	// flags declares the command's own flags. The options that the runner holds
	// are their defaults.
	flags(fs *flag.FlagSet)
	// validate returns an error if an option is out of range.
	validate(s *session) error
	// run measures. It may change its session.
	run(ctx context.Context, s *session) ([]*table, error)
}
