package loglimit_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws/internal/loglimit"
)

// newLogger returns a limited logger and its text, without times.
func newLogger(options slog.HandlerOptions) (*slog.Logger, *buffer) {
	var b buffer
	options.ReplaceAttr = func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}
	return loglimit.New(slog.New(slog.NewTextHandler(&b, &options))), &b
}

// buffer is a bytes.Buffer that goroutines may share.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer // guarded by mu
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

// lines returns the text since the last call.
func lines(b *buffer) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	defer b.b.Reset()
	return strings.FieldsFunc(b.b.String(), func(r rune) bool { return r == '\n' })
}

func TestTenInEachSecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, b := newLogger(slog.HandlerOptions{})
		for i := range 1000 {
			l.Error("full", "i", i)
		}
		l.Warn("full") // another level
		got := lines(b)
		require.Len(t, got, 11)
		assert.Equal(t, `level=ERROR msg=full i=9`, got[9])
		sleep(time.Second)
		synctest.Wait()
		assert.Equal(t, []string{"level=ERROR msg=full suppressed=990"}, lines(b), "without a further message")
		for range 25 { // 10 s
			l.Error("full")
			sleep(400 * time.Millisecond)
		}
		assert.Len(t, lines(b), 25, "nothing is suppressed at that pace")
		sleep(time.Second)
		for i := range 100 {
			l.Error("full", "i", i)
			sleep(25 * time.Millisecond)
		}
		sleep(time.Second)
		synctest.Wait()
		var logged, suppressed int
		for _, line := range lines(b) {
			var n int
			if _, err := fmt.Sscanf(line, "level=ERROR msg=full suppressed=%d", &n); err == nil {
				suppressed += n
			} else {
				logged++
			}
		}
		assert.Equal(t, 30, logged)
		assert.Equal(t, 70, suppressed)
	})
}

// Flush does not wait for the end of the second.
func TestFlush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, b := newLogger(slog.HandlerOptions{})
		with := l.With("k", "v")
		for range 30 {
			with.Error("full")
		}
		_ = lines(b)
		loglimit.Flush(l)
		assert.Equal(t, []string{"level=ERROR msg=full k=v suppressed=20"}, lines(b))
		loglimit.Flush(l)
		sleep(time.Minute)
		assert.Empty(t, lines(b), "once")
		loglimit.Flush(slog.New(slog.DiscardHandler))
		assert.Same(t, l, loglimit.New(l))
	})
}

// The memory for counts is bounded for any number of messages.
func TestManyMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, b := newLogger(slog.HandlerOptions{})
		for i := range 1000 {
			l.Error(fmt.Sprint("message ", i))
		}
		assert.Len(t, lines(b), 128+10)
		sleep(time.Second)
		synctest.Wait()
		assert.Equal(t, []string{fmt.Sprintf(`level=ERROR msg="ws: other messages" suppressed=%d`, 1000-138)}, lines(b))
	})
}

// counted counts the calls for its value.
type counted struct{ n *int }

func (c counted) LogValue() slog.Value {
	*c.n++
	return slog.StringValue("")
}

func TestStack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // the messages come within a second
		l, b := newLogger(slog.HandlerOptions{Level: slog.LevelInfo})
		var n int
		panics := func() {
			defer func() {
				_ = recover()
				l.Error("panic", loglimit.Stack(), slog.Any("counted", counted{&n}))
			}()
			panic("oops")
		}
		for range 100 {
			panics()
		}
		got := lines(b)
		assert.Len(t, got, 10)
		assert.Contains(t, got[0], "TestStack.func1.1", "the function that has panicked")
		assert.Equal(t, 10, n)
		l.Debug("not enabled", slog.Any("counted", counted{&n}))
		assert.Equal(t, 10, n)
		assert.Empty(t, lines(b))
	})
}

// panicking panics in the chosen methods.
type panicking struct{ enabled, handle, with bool }

func (p panicking) Enabled(context.Context, slog.Level) bool {
	if p.enabled {
		panic("enabled")
	}
	return true
}

func (p panicking) Handle(context.Context, slog.Record) error {
	if p.handle {
		panic("handle")
	}
	return nil
}

func (p panicking) WithAttrs([]slog.Attr) slog.Handler {
	if p.with {
		panic("attrs")
	}
	return p
}

func (p panicking) WithGroup(string) slog.Handler {
	if p.with {
		panic("group")
	}
	return p
}

func TestPanickingHandler(t *testing.T) {
	for _, p := range []panicking{{enabled: true}, {handle: true}, {with: true}, {true, true, true}} {
		synctest.Test(t, func(t *testing.T) {
			l := loglimit.New(slog.New(p))
			for range 20 {
				l.With("k", "v").WithGroup("g").Error("full")
			}
			sleep(2 * time.Second) // the timer
			l.Error("full")
			loglimit.Flush(l)
		})
	}
}

func TestConcurrently(t *testing.T) {
	var mu sync.Mutex
	var logged, suppressed int64
	l := loglimit.New(slog.New(countingHandler{func(r slog.Record) {
		mu.Lock()
		defer mu.Unlock()
		logged++
		r.Attrs(func(a slog.Attr) bool {
			if a.Key == "suppressed" {
				suppressed += a.Value.Int64()
				logged--
			}
			return true
		})
	}}))
	const writers, each = 8, 10_000
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for range each {
				l.Error("full")
			}
		})
	}
	wg.Wait()
	loglimit.Flush(l)
	require.Eventually(t, func() bool {
		mu.Lock()
		defer mu.Unlock()
		return logged+suppressed == writers*each
	}, time.Minute, time.Millisecond, "each is logged or counted")
	assert.Less(t, logged, int64(writers*each/2))
}

type countingHandler struct{ handle func(slog.Record) }

func (h countingHandler) Enabled(context.Context, slog.Level) bool { return true }

func (h countingHandler) Handle(_ context.Context, r slog.Record) error {
	h.handle(r)
	return nil
}
func (h countingHandler) WithAttrs([]slog.Attr) slog.Handler { return h }
func (h countingHandler) WithGroup(string) slog.Handler      { return h }

func BenchmarkSuppressed(b *testing.B) {
	l, _ := newLogger(slog.HandlerOptions{})
	b.ReportAllocs()
	for b.Loop() {
		l.Error("full", slog.String("k", "v"), loglimit.Stack())
	}
}

func sleep(d time.Duration) { <-time.After(d) }
