package ws

import (
	"errors"
	"log/slog"

	"github.com/qi-realtime/ws/internal/loglimit"
)

// protect must be deferred by a function that calls code of the application. It recovers a
// panic of that code and passes its value to failed. The end of the goroutine
// (runtime.Goexit) goes on after protect; it is passed to failed as errGoexit if returned is
// not nil and still false.
func protect(returned *bool, failed func(recovered any)) {
	r := recover()
	if r == nil && returned != nil && !*returned {
		r = errGoexit
	}
	if r != nil {
		failed(r)
	}
}

// reportPanic logs a panic of the application's code, with the caller's stack.
func (m *Manager) reportPanic(recovered any) {
	m.cfg.Logger.Error("ws: panic recovered", slog.Any("panic", recovered), loglimit.Stack())
}

// errGoexit stands for the panic of a handler that has ended its goroutine. The worker
// is replaced; an event loop is not, see engine/goexit.go.
var errGoexit = errors.New("runtime.Goexit")
