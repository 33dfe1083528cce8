package engine_test

import (
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/qi-realtime/ws/codec"
	"github.com/qi-realtime/ws/engine"
	"github.com/qi-realtime/ws/internal/race"
)

// limited starts a server with limits by address.
func limited(t *testing.T, configure func(cfg *engine.Config, s *server)) *server {
	return start(t, func(cfg *engine.Config, s *server) {
		cfg.MaxConnections = 1000
		configure(cfg, s)
	})
}

// dialFrom connects from an address of the loopback network.
func (s *server) dialFrom(ip string) *client {
	s.t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}, Timeout: patience}
	nc, err := d.Dial(s.Addr().Network(), s.Addr().String())
	require.NoError(s.t, err)
	require.NoError(s.t, nc.SetDeadline(time.Now().Add(2*patience)))
	s.t.Cleanup(func() { _ = nc.Close() })
	return newClient(s.t, nc)
}

// TestARefusalNeedsNoConn asserts that a peer beyond the limits of its address costs nothing
// of the handler: no connection is made, and nothing is decided.
func TestARefusalNeedsNoConn(t *testing.T) {
	var made, decided, reported atomic.Int64
	s := limited(t, func(cfg *engine.Config, s *server) {
		cfg.AdmissionPerIPConnections = 1
		s.newConn = func() { made.Add(1) }
		s.admit = func(r *http.Request) ([]byte, bool) {
			decided.Add(1)
			return codec.AppendAccept(nil, r, codec.Accept{}), true
		}
		s.turnAway = func(addr netip.Addr, err error) bool {
			reported.Add(1)
			assert.Equal(t, "127.0.0.1", addr.String())
			assert.Equal(t, error(engine.ErrAddressFull), err)
			return false
		}
	})
	s.dial().echo()
	for range 20 {
		require.Equal(t, 429, s.dialTCP().response(), "the answer does not wait for the request")
	}
	require.EqualValues(t, 1, made.Load())
	require.EqualValues(t, 1, decided.Load())
	require.EqualValues(t, 20, reported.Load())
}

// TestARefusalAllocatesNothing measures both parts of a refusal.
func TestARefusalAllocatesNothing(t *testing.T) {
	if race.Enabled {
		t.Skip("the race detector allocates")
	}
	s := limited(t, func(cfg *engine.Config, _ *server) { cfg.AdmissionPerIPConnections = 1 })
	addr := netip.MustParseAddr("192.0.2.1")
	counted, err := s.AdmitAddress(addr)
	require.NoError(t, err)
	require.True(t, counted)
	defer s.LeaveAddress(addr)
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	require.NoError(t, err)
	defer unix.Close(fds[0])
	defer unix.Close(fds[1])
	require.NoError(t, unix.SetNonblock(fds[0], true))
	peer := &net.TCPAddr{IP: addr.AsSlice(), Port: 1}
	require.Zero(t, testing.AllocsPerRun(100, func() {
		if s.AdmitArrival(fds[0], peer) {
			t.Error("the peer comes in")
		}
	}))
}

// scarce is the number of free descriptors below which the gate accepts by hand.
const scarce = 4096

// TestARefusalTakesNoTurn has a pace without a second turn within the test: it is left for
// the other address, because the refused connections have taken none.
func TestARefusalTakesNoTurn(t *testing.T) {
	for name, descriptors := range map[string]int{"by the loop": 0, "by hand": nextFD(t) + scarce/2} {
		t.Run(name, func(t *testing.T) {
			s := limited(t, func(cfg *engine.Config, _ *server) {
				cfg.MaxDescriptors = descriptors
				cfg.AdmissionPerSecond, cfg.AdmissionBurst = 1e-6, 2
				cfg.AdmissionPerIP, cfg.AdmissionPerIPBurst = 1e-6, 1
			})
			s.dialFrom("127.0.0.1").upgrade()
			for range 20 {
				require.Equal(t, 429, s.dialFrom("127.0.0.1").response())
			}
			s.dialFrom("127.0.0.2").upgrade()
		})
	}
}

func TestAPoliteRefusalReadsTheRequest(t *testing.T) {
	s := limited(t, func(cfg *engine.Config, s *server) {
		cfg.AdmissionPerIPConnections = 1
		cfg.HandshakeTimeout = patience
		s.turnAway = func(netip.Addr, error) bool { return true }
	})
	s.dial().echo()
	c := s.dial()
	c.expectClose(codec.CloseTryAgainLater)
	c.raw(frame(8, ""))
	c.expectEOF()
	silent := s.dialTCP() // never sends a request
	s.eventually(func() bool { return s.Shards()[0].Stats().Connections+s.Shards()[1].Stats().Connections == 2 },
		"the connections are not closed")
	_ = silent.Close()
	require.EqualValues(t, 1, s.turnedAway.Load())
	require.EqualValues(t, 1, s.opened.Load())
	require.Equal(t, 1, s.AcceptStats().Addresses)
}

// TestCountsEnd lets connections end in many ways at once.
func TestCountsEnd(t *testing.T) {
	t.Parallel()
	s := limited(t, func(cfg *engine.Config, s *server) {
		cfg.AdmissionPerIPConnections = 20
		cfg.HandshakeTimeout = 500 * time.Millisecond
		s.offLoop = true
	})
	var all sync.WaitGroup
	for i := range 200 {
		c := s.dialFrom([]string{"127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4"}[i%4])
		all.Go(func() {
			defer func() { _ = c.Close() }()
			switch i / 4 % 5 {
			case 0: // at once
			case 1:
				_, _ = c.Write([]byte(upgradeRequest))
			case 2:
				_, _ = c.Write([]byte("GET /ws HTTP/1.1\r\n"))
				_, _ = c.r.ReadByte() // the answer at the timeout
			case 3:
				_, _ = c.Write([]byte("nonsense\r\n\r\n"))
				_, _ = c.r.ReadByte()
			default:
				_, _ = c.Write([]byte(upgradeRequest + frame(8, "")))
				for err := error(nil); err == nil; {
					_, err = c.r.ReadByte()
				}
			}
		})
	}
	all.Wait()
	s.eventually(func() bool { return s.AcceptStats().Addresses == 0 }, "an address counts for ever")
}

func BenchmarkAdmitAddress(b *testing.B) {
	for name, limit := range map[string]int{"counted": 1 << 30, "refused": 1, "off": 0} {
		b.Run("peer="+name, func(b *testing.B) {
			s := start(b, func(cfg *engine.Config, _ *server) {
				cfg.MaxConnections, cfg.AdmissionPerIPConnections = 10_000, limit
			})
			addr := netip.MustParseAddr("192.0.2.1")
			if limit == 1 {
				_, _ = s.AdmitAddress(addr)
			}
			b.ReportAllocs()
			for b.Loop() {
				if counted, _ := s.AdmitAddress(addr); counted {
					s.LeaveAddress(addr)
				}
			}
		})
	}
}
