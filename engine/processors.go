package engine

import (
	"os"
	"runtime"
	"sync"
)

// processors keeps one of Go's processors (GOMAXPROCS) for the goroutines beside the
// event loops of all engines. A loop keeps its processor while it waits for events in a
// system call, and the scheduler takes the processor back late: if no other is idle,
// after up to 10 ms, in which no goroutine learns that its socket is readable.
var processors struct {
	mu     sync.Mutex
	loops  int // of all running engines; guarded by mu
	raised int // GOMAXPROCS as joinProcessors has set it, one higher than it was; or 0; guarded by mu
}

// Processors returns GOMAXPROCS as the process has set it. Safe for concurrent use.
func Processors() int {
	processors.mu.Lock()
	defer processors.mu.Unlock()
	procs := runtime.GOMAXPROCS(0)
	if procs == processors.raised {
		return procs - 1
	}
	return procs
}

// joinProcessors counts the loops of an engine that begins to run, and raises GOMAXPROCS
// by one if they and those of others may take all processors. An environment that sets
// GOMAXPROCS has decided.
func (e *Engine) joinProcessors() {
	processors.mu.Lock()
	defer processors.mu.Unlock()
	processors.loops += e.cfg.Loops
	procs := runtime.GOMAXPROCS(0)
	if !e.cfg.KeepGOMAXPROCS && processors.raised == 0 && processors.loops >= procs && os.Getenv("GOMAXPROCS") == "" {
		processors.raised = procs + 1
		runtime.GOMAXPROCS(processors.raised)
	}
}

// leaveProcessors takes back what joinProcessors has done, when the last engine ends. It
// leaves a number that the process has set since.
func (e *Engine) leaveProcessors() {
	processors.mu.Lock()
	defer processors.mu.Unlock()
	processors.loops -= e.cfg.Loops
	if processors.loops > 0 {
		return
	}
	if runtime.GOMAXPROCS(0) == processors.raised {
		runtime.GOMAXPROCS(processors.raised - 1)
	}
	processors.raised = 0
}

// spareProcessor reports whether there are more processors than loops.
func spareProcessor() bool {
	processors.mu.Lock()
	defer processors.mu.Unlock()
	return runtime.GOMAXPROCS(0) > processors.loops
}
