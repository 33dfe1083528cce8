package integration_test

import (
	"crypto/tls"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	gobwas "github.com/gobwas/ws"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/internal/harness"
)

// pacedReader reads at a rate, in bytes a second.
type pacedReader struct {
	io.Reader
	rate  int
	since time.Time
	taken int
}

func (r *pacedReader) Read(p []byte) (int, error) {
	if r.since.IsZero() {
		r.since = time.Now()
	}
	<-time.After(time.Until(r.since.Add(time.Duration(r.taken) * time.Second / time.Duration(r.rate))))
	n, err := r.Reader.Read(p[:min(len(p), r.rate/50)])
	r.taken += n
	return n, err
}

// download is a client that reads slowly and answers the pings that it finds.
type download struct {
	t      *testing.T
	conn   net.Conn
	reader pacedReader
	pings  int
}

// next reads one message; an error ends the test.
func (d *download) next() string {
	d.t.Helper()
	for {
		f, err := harness.ReadFrame(&d.reader)
		require.NoError(d.t, err, "closed after %v and %d bytes", time.Since(d.reader.since), d.reader.taken)
		if f.Header.OpCode != gobwas.OpPing {
			return string(f.Payload)
		}
		d.pings++
		_, err = io.WriteString(d.conn, harness.Frame(gobwas.OpPong, ""))
		require.NoError(d.t, err)
	}
}

// slowDownload is a download for which the heartbeat of a client would be too
// slow. It lasts for three times the heartbeat's timeout.
type slowDownload struct {
	name string
	run  func(t *testing.T, sc *ws.Client, d *download)
}

const (
	downloadTimeout = 3 * time.Second
	downloadRate    = 400_000
	downloadBytes   = int(3 * downloadTimeout / time.Second * downloadRate)
)

var slowDownloads = []slowDownload{
	{"one message", func(t *testing.T, sc *ws.Client, d *download) {
		require.NoError(t, sc.SendBytes(make([]byte, downloadBytes)))
		require.NoError(t, sc.SendBytes([]byte("the end")))
		require.Len(t, d.next(), downloadBytes)
		require.Equal(t, "the end", d.next())
	}},
	{"a stream of messages", func(t *testing.T, sc *ws.Client, d *download) {
		var publisher sync.WaitGroup
		stop := make(chan struct{})
		publisher.Go(func() {
			pace := time.NewTicker(5 * time.Millisecond)
			defer pace.Stop()
			for ok := true; ok; {
				if sc.SendBytes(make([]byte, 4<<10)) == nil {
					continue
				}
				select { // the queue is full
				case <-pace.C:
				case <-stop:
					ok = false
				}
			}
		})
		end := sync.OnceFunc(func() { close(stop); publisher.Wait() })
		defer end()
		for d.reader.taken < downloadBytes {
			require.Len(t, d.next(), 4<<10)
		}
		end()
		require.NoError(t, sc.SendBytesHigh([]byte("the end")))
		d.reader.rate = 1 << 40
		for d.next() != "the end" {
		}
	}},
}

// A client that takes bytes all the time is alive, although it reads the pings
// behind them too late.
func TestSlowDownloadsEnd(t *testing.T) {
	opts := []ws.Option{
		ws.WithHeartbeatInterval(downloadTimeout / 4), ws.WithHeartbeatTimeout(downloadTimeout),
		ws.WithQueueBytes(int64(2 * downloadBytes)),
	}
	for _, sd := range slowDownloads {
		t.Run(sd.name, func(t *testing.T) {
			t.Parallel()
			harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
				t.Parallel()
				t.Run("plain", func(t *testing.T) {
					t.Parallel()
					s := harness.Start(t, opts...)
					sd.from(t, s, s.Dial(w))
				})
				t.Run("TLS", func(t *testing.T) {
					t.Parallel()
					s := harness.StartTLS(t, nil, opts...)
					sd.from(t, s.Server, s.DialTLS(w, s.ClientConfig(tls.VersionTLS13)))
				})
			})
		})
	}
}

func (sd slowDownload) from(t *testing.T, s *harness.Server, c *harness.Client) {
	var sc *ws.Client
	s.RangeClients(func(found *ws.Client) bool { sc = found; return false })
	require.NotNil(t, sc)
	d := &download{t: t, conn: c.Conn, reader: pacedReader{Reader: c.R, rate: downloadRate}}
	sd.run(t, sc, d)
	assert.GreaterOrEqual(t, time.Since(d.reader.since), 2*downloadTimeout, "not slow enough to show anything")
	assert.EqualValues(t, 1, s.Stats().Total.Opened)
	assert.Zero(t, s.Stats().Total.Closed)
}

// A client that hangs behind a download is closed, though its kernel is there.
func TestHungDownloadEnds(t *testing.T) {
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		t.Parallel()
		s := harness.StartTLS(t, nil, ws.WithHeartbeatInterval(100*time.Millisecond),
			ws.WithHeartbeatTimeout(400*time.Millisecond), ws.WithHandlerMode(ws.Inline))
		s.HandleRaw(func(sc *ws.Client, _ ws.Opcode, _ []byte) {
			assert.NoError(t, sc.SendBytes([]byte(strings.Repeat("x", 8<<20))))
		})
		c := s.DialTCP(w).Over(s.ClientConfig(tls.VersionTLS13))
		// The message comes with the handshake: a client that is late with it would be closed before.
		c.WriteRaw(harness.UpgradeRequest("/ws", "") + harness.Frame(gobwas.OpText, "go"))
		harness.Eventually(t, func() bool { return s.Stats().Total.Closed == 1 }, "a client that reads nothing is not closed")
		_, err := io.Copy(io.Discard, c)
		require.Error(t, err, "no close_notify fits behind the message")
	})
}
