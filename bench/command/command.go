//go:build linux

package command

import (
	"context"
	"flag"

	"github.com/qi-realtime/ws/bench/result"
)

// Command is a subcommand of bench. Immutable.
type Command struct {
	Name, About   string // About is one line
	Help, Example string
	NotInAll      bool // "bench all" leaves it out: it takes long, or measures nothing
	Varies        bool // it sets -loops, -ring, -batch and -room-shards of the server itself
	Procs         bool // -procs can run it in several processes
	New           func() Runner
}

// Runner holds the options of one run of a command. Not safe for concurrent use.
type Runner interface {
	// Flags declares the command's own flags. The options that the runner holds
	// are their defaults.
	Flags(fs *flag.FlagSet)
	// Validate returns an error if an option is out of range.
	Validate(s *Session) error
	// Run measures and returns the tables. It may change its session.
	Run(ctx context.Context, s *Session) ([]*result.Table, error)
}

// Func runs a command.
type Func func(context.Context, *Session) ([]*result.Table, error)

// VerdictError is the fault that a command has found, beside its tables.
type VerdictError struct{ Fault string }

func (e *VerdictError) Error() string { return e.Fault }
