package engine

import (
	"context"
	"fmt"
	"log/slog"
)

// logger sends gnet's messages to a slog.Logger. gnet logs its own starts and
// stops at the info level; here they are debug messages.
type logger struct{ l *slog.Logger }

// Debugf drops gnet's debug messages.
func (g logger) Debugf(string, ...any) {}

// Infof logs at the debug level.
func (g logger) Infof(format string, args ...any) {
	g.log(slog.LevelDebug, "gnet: info", format, args)
}

// Warnf logs at the debug level. All warnings of gnet concern events for a
// connection that was closed in the same round, one line for each, which is
// normal when many connections break at once.
func (g logger) Warnf(format string, args ...any) {
	g.log(slog.LevelDebug, "gnet: warning", format, args)
}

// Errorf logs at the error level.
func (g logger) Errorf(format string, args ...any) {
	g.log(slog.LevelError, "gnet: error", format, args)
}

// Fatalf does not exit, because that is the application's decision.
func (g logger) Fatalf(format string, args ...any) {
	g.log(slog.LevelError, "gnet: fatal error", format, args)
}

// log logs gnet's text as an attribute, because the messages are counted by
// their text.
func (g logger) log(level slog.Level, message, format string, args []any) {
	ctx := context.Background()
	if g.l.Enabled(ctx, level) {
		g.l.Log(ctx, level, message, slog.String("text", fmt.Sprintf(format, args...)))
	}
}
