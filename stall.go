package ws

import (
	"time"

	"github.com/qi-realtime/ws/engine"
)

// Stall is a callback that holds an event loop for LoopStallThreshold: an inline handler, a
// method of Metrics, or other code on the loop that blocks or computes for long. The loop
// serves none of its connections meanwhile.
type Stall struct {
	Loop  int           // index of the event loop, as in Stats.Loops
	Held  time.Duration // time for which the loop is held when the stall is found
	Event string        // event of the last message that an inline handler has got in the callback; "" without one
	Stack string        // of the loop's goroutine; "" if the callback has returned, or within a second of another
}

// OnStall reports a stall to the application. It runs on a goroutine of the engine.
func (o *engineObserver) OnStall(st engine.Stall) {
	if o.cfg.OnStall != nil {
		defer protect(nil, (*Manager)(o).reportPanic)
		o.cfg.OnStall(Stall(st))
	}
}
