package engine_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/qi-realtime/ws/codec"
	"github.com/qi-realtime/ws/engine"
)

// listeners are the kinds of listening sockets.
func listeners(t *testing.T) map[string]string {
	return map[string]string{
		"tcp":  "tcp://127.0.0.1:0",
		"unix": "unix://" + filepath.Join(t.TempDir(), "ws.sock"),
	}
}

// TestAStormIsAcceptedAtAPace asserts that all clients connect, and not faster
// than configured.
func TestAStormIsAcceptedAtAPace(t *testing.T) {
	const n, perSecond, burst = 40, 50, 10 // slow, so that clients of a busy machine wait, too
	for name, addr := range listeners(t) {
		t.Run(name, func(t *testing.T) {
			s := start(t, func(cfg *engine.Config, _ *server) {
				cfg.ListenAddr = addr
				cfg.AdmissionPerSecond, cfg.AdmissionBurst = perSecond, burst
			})
			began := time.Now()
			var clients sync.WaitGroup
			for range n {
				clients.Go(func() { s.dial().echo() })
			}
			clients.Wait()
			least := time.Duration(float64(n-burst) / perSecond * float64(time.Second))
			require.GreaterOrEqual(t, time.Since(began), least)
			st := s.AcceptStats().Pace
			require.EqualValues(t, 1, st.Times)
			require.Positive(t, st.Time)
			require.False(t, s.AcceptStats().Descriptors.Resting)
			s.eventually(func() bool { return !s.AcceptStats().Pace.Resting }, "connections still wait")
		})
	}
}

// TestEnrolledConnectionsTakeTheirTurnsToo asserts that neither kind starves
// the other.
func TestEnrolledConnectionsTakeTheirTurnsToo(t *testing.T) {
	s := start(t, func(cfg *engine.Config, _ *server) { cfg.AdmissionPerSecond, cfg.AdmissionBurst = 25, 1 })
	const n = 1000 // the last one would wait for 40 s
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	began := time.Now()
	var all sync.WaitGroup
	var granted atomic.Int64
	for range n {
		all.Go(func() {
			if s.AwaitAdmission(ctx) == nil {
				granted.Add(1)
			}
		})
	}
	s.eventually(func() bool { return s.AcceptStats().Upgrades > n/2 }, "no connection waits")
	s.dial().echo()
	assert.NotZero(t, s.AcceptStats().Upgrades, "the client has waited behind all of them")
	s.eventually(func() bool { return granted.Load() >= 10 }, "they have waited behind the client")
	cancel()
	all.Wait()
	require.GreaterOrEqual(t, time.Since(began), time.Duration(granted.Load())*time.Second/25)
}

func TestAwaitAdmissionEnds(t *testing.T) {
	s := start(t, func(cfg *engine.Config, _ *server) { cfg.AdmissionPerSecond, cfg.AdmissionBurst = 1e-6, 1 })
	require.NoError(t, s.AwaitAdmission(t.Context()))
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, s.AwaitAdmission(ctx), context.DeadlineExceeded)
	ended := make(chan error, 1)
	go func() { ended <- s.AwaitAdmission(t.Context()) }()
	s.eventually(func() bool { return s.AcceptStats().Upgrades == 1 }, "no connection waits")
	s.shutdown()
	require.ErrorIs(t, <-ended, engine.ErrStopped)
	require.ErrorIs(t, s.AwaitAdmission(t.Context()), engine.ErrStopped)
	require.Zero(t, s.AcceptStats().Upgrades)
}

func TestAwaitAdmissionWithoutDescriptors(t *testing.T) {
	s := start(t, func(cfg *engine.Config, _ *server) { cfg.ListenAddr, cfg.MaxDescriptors = "", 1 })
	require.ErrorIs(t, s.AwaitAdmission(t.Context()), engine.ErrNoDescriptors)
}

// TestStopRefusesTheBacklog asserts that clients in the backlog are refused,
// and that no client connects after them.
func TestStopRefusesTheBacklog(t *testing.T) {
	for name, addr := range listeners(t) {
		t.Run(name, func(t *testing.T) {
			s := start(t, func(cfg *engine.Config, _ *server) {
				cfg.ListenAddr = addr
				cfg.AdmissionPerSecond, cfg.AdmissionBurst = 1e-6, 1
			})
			first := s.dial()
			first.echo()
			var waiting []*client
			for range 8 {
				c := s.dialTCP()
				c.raw(upgradeRequest)
				waiting = append(waiting, c)
			}
			s.eventually(func() bool { return s.AcceptStats().Pace.Resting }, "no connection waits")
			stopped := make(chan error, 1)
			go func() {
				ctx, cancel := context.WithTimeout(context.Background(), patience)
				defer cancel()
				stopped <- s.Stop(ctx, codec.CloseGoingAway, "bye")
			}()
			for _, c := range waiting {
				require.Equal(t, 503, c.response())
				c.expectEOF()
			}
			_ = first.Close()
			require.NoError(t, <-stopped)
			s.shutdown()
			_, err := net.Dial(s.Addr().Network(), s.Addr().String())
			require.True(t, errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, unix.ENOENT), "%v", err)
			if name == "unix" {
				require.NoFileExists(t, s.Addr().String())
			}
		})
	}
}

// TestStopEndsWhileClientsConnect has a client that connects 33 times a second
// and never closes.
func TestStopEndsWhileClientsConnect(t *testing.T) {
	t.Parallel()
	for name, addr := range listeners(t) {
		t.Run(name, func(t *testing.T) {
			s := start(t, func(cfg *engine.Config, _ *server) {
				cfg.ListenAddr = addr
				cfg.CloseTimeout = time.Second
			})
			s.dial() // never answers: the close timeout ends it
			var connected atomic.Int64
			end := make(chan struct{})
			var peer sync.WaitGroup
			peer.Go(func() { connectAgain(s.Addr(), &connected, end) })
			s.eventually(func() bool { return connected.Load() > 10 }, "the peer does not connect")
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			err := s.Stop(ctx, codec.CloseGoingAway, "bye")
			close(end)
			peer.Wait()
			require.NoError(t, err)
		})
	}
}

// connectAgain connects until end is closed, and closes its connections then.
func connectAgain(addr net.Addr, connected *atomic.Int64, end <-chan struct{}) {
	pace := time.NewTicker(30 * time.Millisecond)
	defer pace.Stop()
	for {
		select {
		case <-end:
			return
		case <-pace.C:
		}
		if nc, err := net.Dial(addr.Network(), addr.String()); err == nil {
			connected.Add(1)
			defer func() { _ = nc.Close() }()
		}
	}
}

// TestDescriptorsOfOthersMakeListenersRest uses up the descriptors with files
// of this process, up to a limit.
func TestDescriptorsOfOthersMakeListenersRest(t *testing.T) {
	for name, addr := range listeners(t) {
		t.Run(name, func(t *testing.T) {
			s := start(t, func(cfg *engine.Config, _ *server) {
				cfg.ListenAddr = addr
				cfg.MaxDescriptors = nextFD(t) + 100
			})
			healthy := s.dial()
			var files []*os.File
			for range 150 {
				f, err := os.Open(os.DevNull)
				require.NoError(t, err)
				files = append(files, f)
			}
			late := s.dialTCP()
			late.raw(upgradeRequest)
			s.eventually(func() bool { return s.AcceptStats().Descriptors.Resting }, "the listener does not rest")
			healthy.echo()
			require.EqualValues(t, 1, s.opened.Load())
			for _, f := range files {
				_ = f.Close()
			}
			require.Equal(t, 101, late.response())
			late.echo()
			require.EqualValues(t, 1, s.AcceptStats().Descriptors.Times)
		})
	}
}

func TestPace(t *testing.T) {
	now := time.Now()
	p := engine.NewPace(10, 2)
	for _, step := range []struct{ after, wait time.Duration }{
		{0, 0},
		{0, 0},
		{0, 100*time.Millisecond + 1},
		{50 * time.Millisecond, 50*time.Millisecond + 1},
		{50 * time.Millisecond, 0},
		{time.Hour, 0},
		{0, 0},
		{0, 100*time.Millisecond + 1},
	} {
		now = now.Add(step.after)
		assert.InDelta(t, step.wait, p.Take(now), 10)
	}
}

// A log handler is user code: it may request the statistics, which need the
// gate's lock.
func TestTheGateLogsWithoutItsLock(t *testing.T) {
	for name, addr := range listeners(t) {
		t.Run(name, func(t *testing.T) {
			logged := make(chan engine.AcceptStats, 16)
			s := start(t, func(cfg *engine.Config, s *server) {
				cfg.ListenAddr = addr
				cfg.MaxDescriptors = 1
				cfg.Logger = slog.New(logFunc(func() { logged <- s.AcceptStats() }))
			})
			s.dialTCP()
			select {
			case st := <-logged:
				require.True(t, st.Descriptors.Resting)
			case <-time.After(patience):
				t.Fatal("nothing is logged: the handler waits for the lock")
			}
		})
	}
}

// logFunc is a log handler that calls a function for each warning.
type logFunc func()

func (logFunc) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelWarn }

func (f logFunc) Handle(context.Context, slog.Record) error { f(); return nil }

func (f logFunc) WithAttrs([]slog.Attr) slog.Handler { return f }

func (f logFunc) WithGroup(string) slog.Handler { return f }
