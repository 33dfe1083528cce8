//go:build linux

package integration_test

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	gobwas "github.com/gobwas/ws"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/internal/harness"
)

// hostile is one client that means harm, on a blocking socket. It
// returns the socket if it keeps it open, or -1.
type hostile func(rnd *rand.Rand, addr string) (fd int, err error)

// garbage returns random bytes.
func garbage(rnd *rand.Rand, most int) []byte {
	b := make([]byte, 1+rnd.IntN(most))
	for i := range b {
		b[i] = byte(rnd.Uint32())
	}
	return b
}

// connectAndWrite connects and sends bytes. The server may hang up meanwhile.
func connectAndWrite(addr string, b []byte) (fd int, err error) {
	if fd, err = connectTCP(addr, 0); err == nil {
		_, _ = unix.SendmsgN(fd, b, nil, nil, unix.MSG_NOSIGNAL)
	}
	return fd, err
}

// reset closes the socket with a reset.
func reset(fd int) {
	_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	_ = unix.Close(fd)
}

var hostiles = map[string]hostile{
	"garbage in place of a request": func(rnd *rand.Rand, addr string) (int, error) {
		return connectAndWrite(addr, garbage(rnd, 4096))
	},
	"a broken request": func(rnd *rand.Rand, addr string) (int, error) {
		b := []byte(harness.UpgradeRequest("/ws", ""))
		b[rnd.IntN(len(b))] ^= byte(1 + rnd.IntN(255))
		return connectAndWrite(addr, b)
	},
	"a request without an end": func(rnd *rand.Rand, addr string) (int, error) {
		b := []byte(harness.UpgradeRequest("/ws", ""))
		return connectAndWrite(addr, b[:1+rnd.IntN(len(b)-1)])
	},
	"a header that never ends": func(_ *rand.Rand, addr string) (int, error) {
		b := []byte("GET /ws HTTP/1.1\r\nHost: x\r\nX: ")
		return connectAndWrite(addr, append(b, make([]byte, 64<<10)...))
	},
	"silence": func(_ *rand.Rand, addr string) (int, error) { return connectTCP(addr, 0) },
	"connect and reset": func(_ *rand.Rand, addr string) (int, error) {
		fd, err := connectTCP(addr, 0)
		if err == nil {
			reset(fd)
		}
		return -1, err
	},
	"reset behind the request": func(_ *rand.Rand, addr string) (int, error) {
		fd, err := connectAndWrite(addr, []byte(harness.UpgradeRequest("/ws", "")))
		if err == nil {
			reset(fd)
		}
		return -1, err
	},
	"garbage in place of frames": func(rnd *rand.Rand, addr string) (int, error) {
		return connectAndWrite(addr, append([]byte(harness.UpgradeRequest("/ws", "")), garbage(rnd, 4096)...))
	},
	"a broken frame": func(rnd *rand.Rand, addr string) (int, error) {
		b := maskedFrame(gobwas.OpText, []byte("hello"))
		b[rnd.IntN(2)] ^= byte(1 + rnd.IntN(255))
		return connectAndWrite(addr, append([]byte(harness.UpgradeRequest("/ws", "")), b...))
	},
	"a frame without an end": func(_ *rand.Rand, addr string) (int, error) {
		b := maskedFrame(gobwas.OpBinary, make([]byte, 4096))
		return connectAndWrite(addr, append([]byte(harness.UpgradeRequest("/ws", "")), b[:2048]...))
	},
	"half open": func(_ *rand.Rand, addr string) (int, error) { // never answers a ping
		return connectAndWrite(addr, []byte(harness.UpgradeRequest("/ws", "")))
	},
	"half closed": func(_ *rand.Rand, addr string) (int, error) {
		fd, err := connectAndWrite(addr, []byte(harness.UpgradeRequest("/ws", "")))
		if err == nil {
			_ = unix.Shutdown(fd, unix.SHUT_WR)
		}
		return fd, err
	},
	"an echo flood that reads nothing": func(_ *rand.Rand, addr string) (int, error) {
		fd, err := connectAndWrite(addr, []byte(harness.UpgradeRequest("/ws", "")))
		if err != nil {
			return fd, err
		}
		if err := unix.SetNonblock(fd, true); err != nil {
			return fd, err
		}
		b := maskedFrame(gobwas.OpBinary, make([]byte, 32<<10))
		for range 100 {
			if _, err := unix.SendmsgN(fd, b, nil, nil, unix.MSG_NOSIGNAL); err != nil {
				break
			}
		}
		return fd, nil
	},
}

// Clients that mean harm come in numbers, and a witness is served throughout;
// when the timeouts have passed all of them are gone.
func TestScenarioHostileClients(t *testing.T) { hostility(t, 12) }

func hostility(t *testing.T, each int) {
	for _, way := range []harness.Way{harness.Native, harness.NetHTTP} {
		t.Run(string(way), func(t *testing.T) {
			seed := rand.Uint64()
			t.Logf("seed %d", seed)
			s := startScenario(t, ws.WithHandlerMode(ws.Inline), func(c *ws.Config) {
				c.HandshakeTimeout = 2 * time.Second // for the witness, on a busy machine too
				c.CloseTimeout = 300 * time.Millisecond
				c.HeartbeatInterval = 200 * time.Millisecond
				c.HeartbeatTimeout = 3 * time.Second // the witness lives, on a busy machine too
				c.QueueBytes = 256 << 10
			})
			s.HandleRaw(func(c *ws.Client, op ws.Opcode, payload []byte) {
				_ = c.SendPrepared(ws.Prepare(op, payload)) // a flood fills the queue
			})
			var fds []int
			t.Cleanup(func() { // before the server stops
				for _, fd := range fds {
					_ = unix.Close(fd)
				}
			})
			swarm := newSwarm(t)
			witness := swarm.dial(s.AddrOf(way), dialOptions{})
			var stop atomic.Bool
			var serving sync.WaitGroup
			echoes := int64(0)
			serving.Go(func() {
				pace := time.NewTicker(100 * time.Microsecond)
				defer pace.Stop()
				for !stop.Load() && assert.NoError(t, witness.send(gobwas.OpText, []byte("still there?"))) {
					echoes++
					for since := time.Now(); witness.received.Load() < echoes; {
						if time.Since(since) > harness.Patience || witness.over.Load() {
							assert.Fail(t, "the witness is not served", "seed %d", seed)
							return
						}
						<-pace.C
					}
				}
			})
			rnd := rand.New(rand.NewPCG(seed, 0))
			for range each {
				for name, attack := range hostiles {
					fd, err := attack(rnd, s.AddrOf(way))
					require.NoError(t, err, name)
					if fd >= 0 {
						fds = append(fds, fd)
					}
				}
			}
			harness.Eventually(t, func() bool { return s.Stats().Total.Connections == 1 && s.GetClientCount() == 1 },
				"seed %d: only the witness is left: %v", seed, lazyText(func() string {
					return fmt.Sprintf("%d connections, %d clients", s.Stats().Total.Connections, s.GetClientCount())
				}))
			stop.Store(true)
			serving.Wait()
			assert.Positive(t, echoes)
			t.Logf("%d hostile clients, %d echoes meanwhile", each*len(hostiles), echoes)
		})
	}
}
