package ws

import (
	"errors"
	"fmt"
	"log/slog"

	"github.com/qi-realtime/ws/internal/loglimit"
)

// recovered calls fn; a panic is logged and refuses with 500.
func (m *Manager) recovered(fn func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			m.reportPanic(r)
			err = errInternal(fmt.Errorf("ws: panic: %v", r))
		}
	}()
	return fn()
}

// reportPanic logs a panic that nothing nearer has recovered.
// The stack that it logs is the caller's.
func (m *Manager) reportPanic(recovered any) {
	m.cfg.Logger.Error("ws: panic recovered", slog.Any("panic", recovered), loglimit.Stack())
}

// errGoexit stands for the panic of a handler that has ended its goroutine. The worker
// is replaced; an event loop is not, see engine/goexit.go.
var errGoexit = errors.New("runtime.Goexit")
