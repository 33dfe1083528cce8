package ws

import (
	"context"
	"errors"
	"math"
	"net/http"

	"github.com/qi-realtime/ws/engine"
)

// Admission is the policy that accepts new connections at a bounded pace, those of
// ListenAddr and of HandleUpgrade together. It refuses no connection: one of ListenAddr
// waits in the kernel's backlog until the event loops accept again, and HandleUpgrade waits
// for its turn.
type Admission struct {
	// PerSecond is the number of connections that are accepted each second. 0, the
	// default, is no limit.
	PerSecond float64
	// Burst is the number of connections that are accepted at once after a quiet
	// time. 0, the default, is a tenth of PerSecond, at least 1. A burst below the
	// connections of a few milliseconds makes the pace slower than PerSecond, because
	// timers are not finer.
	Burst int
}

func (a *Admission) validate() error {
	return firstError(
		invalidIf(!(a.PerSecond >= 0 && a.PerSecond <= math.MaxInt32),
			"Admission.PerSecond", "must be at least 0 and finite"),
		between("Admission.Burst", a.Burst, 0, math.MaxInt32),
		invalidIf(a.Burst > 0 && a.PerSecond == 0, "Admission.Burst", "needs PerSecond"),
	)
}

func (a Admission) withDefaults() Admission {
	if a.Burst == 0 {
		a.Burst = max(1, int(a.PerSecond/10))
	}
	return a
}

// awaitAdmission waits until one more connection may be let in.
func (m *Manager) awaitAdmission(ctx context.Context) error {
	err := m.engine.AwaitAdmission(ctx)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, engine.ErrStopped):
		return ErrManagerStopped
	case errors.Is(err, engine.ErrNoDescriptors):
		return ErrTooManyConnections
	}
	return refuse(refusedFull, http.StatusServiceUnavailable, "too many connections at once", err)
}
