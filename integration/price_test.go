//go:build linux

package integration_test

import (
	"bufio"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"net"
	"syscall"
	"testing"
	"time"

	gobwas "github.com/gobwas/ws"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/internal/harness"
)

const (
	// quoteSize is the size of a quote's payload, quoteFrame of its frame.
	quoteSize  = 256
	quoteFrame = quoteSize + 4
	// segment is the most that one segment adds to Config.UnsentBytes.
	segment = 64 << 10
	// sealedBytes is the number of bytes that TLS seals at once.
	sealedBytes = 32 << 10
)

// lastQuote is the number of the quote behind which none comes.
const lastQuote = 1<<64 - 1

// quote is the payload of the quote of that number.
func quote(number uint64) []byte {
	return binary.BigEndian.AppendUint64(make([]byte, 0, quoteSize), number)[:quoteSize]
}

// exchange publishes numbered quotes to the room "prices".
type exchange struct {
	*harness.Server
	ttl       time.Duration
	symbols   int
	published []time.Time // when each quote had been published
}

// publish publishes the next quote under a key.
func (e *exchange) publish(key string) {
	e.T.Helper()
	_, err := e.Publish("prices", quote(uint64(len(e.published))),
		ws.Binary(), ws.ConflateKey(key), ws.TTL(e.ttl))
	require.NoError(e.T, err)
	e.published = append(e.published, time.Now())
}

// run publishes a quote of each symbol in turn at the rate of the ticker, until
// enough says so.
func (e *exchange) run(every time.Duration, enough func() bool) {
	e.T.Helper()
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for deadline := time.Now().Add(harness.Patience); !enough(); <-ticker.C {
		require.True(e.T, time.Now().Before(deadline), "the client's silence never showed: %+v", e.Stats().Total)
		e.publish(fmt.Sprint("symbol ", len(e.published)%e.symbols))
	}
}

// expired returns how many quotes have been too old since before that time:
// those with a lower number.
func (e *exchange) expired(at time.Time) (n uint64) {
	for n < uint64(len(e.published)) && !e.published[n].Add(e.ttl).After(at) {
		n++
	}
	return n
}

// readQuotes reads to the last quote. It returns how many came, and how many of
// them have a number below stale.
func readQuotes(c *harness.Client, stale uint64) (all, old int) {
	c.T.Helper()
	for {
		f := c.Next()
		require.Equal(c.T, gobwas.OpBinary, f.Header.OpCode)
		switch n := binary.BigEndian.Uint64(f.Payload); {
		case n == lastQuote:
			return all, old
		case n < stale:
			old++
		}
		all++
	}
}

// dialNarrow connects with a receive buffer of a fixed size, if it is not 0,
// and returns how many bytes the kernel makes of it.
func dialNarrow(s *harness.Server, w harness.Way, config *tls.Config, size int) (c *harness.Client, bytes int) {
	s.T.Helper()
	d := net.Dialer{Timeout: harness.Patience, Control: func(_, _ string, rc syscall.RawConn) error {
		return rc.Control(func(fd uintptr) {
			if size > 0 {
				require.NoError(s.T, unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, size))
			}
			n, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF)
			require.NoError(s.T, err)
			bytes = n
		})
	}}
	nc, err := d.Dial("tcp", s.AddrOf(w))
	require.NoError(s.T, err)
	require.NoError(s.T, nc.SetDeadline(time.Now().Add(2*harness.Patience)))
	s.T.Cleanup(func() { _ = nc.Close() })
	c = &harness.Client{Conn: nc, T: s.T, R: bufio.NewReaderSize(nc, 4<<10)}
	if config != nil {
		c = c.Over(config)
	}
	c.WriteRaw(harness.UpgradeRequest("/ws", ""))
	resp, body := c.ReadResponse()
	require.Equal(s.T, 101, resp.StatusCode, body)
	return c, bytes
}

// onlyClient returns the one client of s, put into the room "prices".
func onlyClient(s *harness.Server) (sc *ws.Client) {
	s.T.Helper()
	s.RangeClients(func(c *ws.Client) bool { sc = c; return false })
	require.NotNil(s.T, sc)
	require.NoError(s.T, sc.JoinRoom("prices"))
	return sc
}

// onAllTransports runs test on both ways, plain and with TLS.
func onAllTransports(t *testing.T, opts []ws.Option,
	test func(t *testing.T, s *harness.Server, w harness.Way, config *tls.Config),
) {
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		t.Run("plain", func(t *testing.T) { test(t, harness.Start(t, opts...), w, nil) })
		t.Run("TLS", func(t *testing.T) {
			s := harness.StartTLS(t, nil, opts...)
			test(t, s.Server, w, s.ClientConfig(tls.VersionTLS13))
		})
	})
}

// A client that reads nothing for a while, and then reads on, gets the newest
// prices: of those that are older than their TTL it gets no more than its own
// receive buffer and the bound of unsent bytes hold.
func TestSlowClientGetsTheNewestPrices(t *testing.T) {
	t.Parallel()
	const unsent = 16 << 10
	var log slowLog
	opts := []ws.Option{
		ws.WithOverflowPolicy(ws.DropOldest), ws.WithUnsentBytes(unsent),
		ws.WithHighWaterAge(500 * time.Millisecond), log.options(),
	}
	onAllTransports(t, opts, func(t *testing.T, s *harness.Server, w harness.Way, config *tls.Config) {
		log.options()(new(ws.Config)) // forget the calls of the test before
		e := &exchange{Server: s, ttl: 200 * time.Millisecond, symbols: 4}
		c, window := dialNarrow(s, w, config, 16<<10)
		sc := onlyClient(s)
		const silence = 4000 // quotes, 1 MB: less than a send buffer without a bound takes
		e.run(100*time.Microsecond, func() bool { return len(e.published) == silence })
		for i := range 20 { // nothing replaces these
			e.publish(fmt.Sprint("once ", i))
		}
		e.run(time.Millisecond, func() bool {
			total := s.Stats().Total
			return e.expired(time.Now()) > silence+20 && total.Drops.Expired > 0 && total.Slow == 1
		})
		assert.Equal(t, "slow "+sc.ID, harness.Receive(t, log.calls, "no OnSlow"))
		resumed := time.Now()
		stale := e.expired(resumed)
		require.NoError(t, sc.Send(quote(lastQuote), ws.Binary()))
		all, old := readQuotes(c, stale)
		bound := window + unsent + segment
		if config != nil {
			bound += sealedBytes
		}
		assert.LessOrEqual(t, old*quoteFrame, bound, "%d of %d quotes were too old", old, all)
		drops := s.Stats().Total.Drops
		assert.Greater(t, drops.Conflated, uint64(silence/2))
		assert.Equal(t, uint64(len(e.published)), uint64(all)+drops.Conflated+drops.Expired+drops.Full)
		assert.Equal(t, "drain "+sc.ID, harness.Receive(t, log.calls, "no OnDrain"))
		caughtUp(s)
	})
}

// A client whose queue stays short because its messages replace each other is
// slow once its oldest place in the queue has the high-water age.
func TestConflatedClientIsSlowByAge(t *testing.T) {
	t.Parallel()
	const high = 300 * time.Millisecond
	var log slowLog
	opts := []ws.Option{harness.WithDeepQueue, ws.WithHighWaterAge(high), log.options()}
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		log.options()(new(ws.Config))
		s := harness.Start(t, opts...)
		e := &exchange{Server: s, symbols: 4}
		c, _ := dialNarrow(s, w, nil, 16<<10)
		sc := onlyClient(s)
		// Until the queue conflates, no message is half sent for certain.
		e.run(100*time.Microsecond, func() bool { return s.Stats().Total.Drops.Conflated > 100 })
		e.run(time.Millisecond, func() bool { return s.Stats().Total.Slow == 1 })
		assert.Equal(t, "slow "+sc.ID, harness.Receive(t, log.calls, "no OnSlow"))
		harness.Eventually(t, func() bool { return s.Stats().Total.OldestWait >= high }, "the age is missing")
		total := s.Stats().Total
		assert.Less(t, total.OldestWait, harness.Patience)
		assert.Equal(t, ws.DropCounts{Conflated: total.Drops.Conflated}, total.Drops, "it has lost nothing")
		require.NoError(t, sc.Send(quote(lastQuote), ws.Binary()))
		readQuotes(c, 0)
		assert.Equal(t, "drain "+sc.ID, harness.Receive(t, log.calls, "no OnDrain"))
		harness.Eventually(t, func() bool { return s.Stats().Total.OldestWait == 0 }, "the age stays")
	})
}

// A message half sent has an age, too.
func TestHalfSentMessageHasAnAge(t *testing.T) {
	t.Parallel()
	onAllTransports(t, []ws.Option{harness.WithDeepQueue, ws.WithHighWaterAge(300 * time.Millisecond), func(c *ws.Config) {
		c.HighWaterMark, c.LowWaterMark = 1, 0.5
	}}, func(t *testing.T, s *harness.Server, w harness.Way, config *tls.Config) {
		c, _ := dialNarrow(s, w, config, 0)
		s.Stall(onlyClient(s))
		// The age is published at the end of the tick in which the client becomes slow.
		harness.Eventually(t, func() bool {
			st := s.Stats().Total
			return st.Slow == 1 && st.OldestWait >= 300*time.Millisecond
		}, "nobody is slow")
		c.Expect(harness.BigMessage)
		caughtUp(s)
	})
}
