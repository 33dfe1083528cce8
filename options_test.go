package ws_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/internal/harness"
)

func TestDefaultConfig(t *testing.T) {
	cfg := ws.DefaultConfig()
	require.NoError(t, cfg.Validate())
	assert.Equal(t, 10_000, cfg.MaxConnections)
	assert.Equal(t, 30*time.Second, cfg.HeartbeatInterval)
	assert.Equal(t, 90*time.Second, cfg.HeartbeatTimeout)
	assert.EqualValues(t, 512<<10, cfg.MessageSizeLimit)
	assert.Equal(t, 256, cfg.MessageQueueSize)
	assert.EqualValues(t, 1<<20, cfg.QueueBytes)
	assert.Equal(t, 64, cfg.HighQueueSize)
	assert.EqualValues(t, 256<<10, cfg.HighQueueBytes)
	assert.Zero(t, cfg.QueueBudget)
	assert.Equal(t, ws.DropNewest, cfg.OverflowPolicy)
	assert.Equal(t, 2*time.Second, cfg.HighWaterAge)
	assert.Equal(t, 64<<10, cfg.UnsentBytes)
	assert.Zero(t, cfg.RecvBuffer)
	assert.Zero(t, cfg.SendBuffer)
	assert.Equal(t, 10*time.Second, cfg.HandshakeTimeout)
	assert.Equal(t, ws.RoomConfig{
		MaxRoomsPerClient: 1024, MaxRoomName: 256, CleanupInterval: 5 * time.Minute,
		EmptyRoomTTL: 10 * time.Minute,
	}, cfg.Room)
	assert.Equal(t, 5*time.Second, cfg.Broadcast.Timeout)
	assert.Positive(t, cfg.Broadcast.QueueSize)
	assert.Equal(t, 64, cfg.Broadcast.BatchSize)
	assert.Equal(t, ws.Pooled, cfg.HandlerMode)
	assert.Equal(t, []string{"/ws"}, cfg.Paths)
	assert.Equal(t, []string{"/healthz", "/readyz"}, []string{cfg.LivePath, cfg.ReadyPath})
	assert.Equal(t, 16<<10, cfg.HeadBytes)
	assert.Equal(t, 128, cfg.HeadLines)
	assert.Equal(t, 64, cfg.MailboxSize)
	assert.EqualValues(t, 1<<20, cfg.MailboxBytes)
	assert.Zero(t, cfg.RateLimit)
	assert.Equal(t, ws.Idempotency{Bytes: 64 << 20, PerUser: 1 << 20}, cfg.Idempotency)
	assert.Zero(t, cfg.Admission)
	assert.False(t, cfg.EnableCompression)
	assert.False(t, cfg.AllowAllOrigins)
	_, err := ws.NewManager()
	require.NoError(t, err)
}

// badOptions are options that a manager refuses, with the fields that the errors name.
var badOptions = []struct {
	name, field string
	option      ws.Option
}{
	{"no connections", "MaxConnections", ws.WithMaxConnections(0)},
	{"negative connections", "MaxConnections", ws.WithMaxConnections(-1)},
	{"negative lifetime", "MaxLifetime", ws.WithMaxLifetime(-1, 0)},
	{"negative jitter", "MaxLifetimeJitter", ws.WithMaxLifetime(time.Second, -1)},
	{"jitter beyond the lifetime", "MaxLifetimeJitter", ws.WithMaxLifetime(time.Second, time.Minute)},
	{"no interval", "HeartbeatInterval", ws.WithHeartbeatInterval(0)},
	{"negative interval", "HeartbeatInterval", ws.WithHeartbeatInterval(-time.Second)},
	{"no timeout", "HeartbeatTimeout", ws.WithHeartbeatTimeout(0)},
	{"timeout equals interval", "HeartbeatTimeout", ws.WithHeartbeatTimeout(30 * time.Second)},
	{"interval beyond timeout", "HeartbeatTimeout", ws.WithHeartbeatInterval(2 * time.Minute)},
	{"no message size", "MessageSizeLimit", ws.WithMessageSizeLimit(0)},
	{"negative message size", "MessageSizeLimit", ws.WithMessageSizeLimit(-1)},
	{"no queue", "MessageQueueSize", ws.WithMessageQueueSize(0)},
	{"negative queue", "MessageQueueSize", ws.WithMessageQueueSize(-1)},
	{"huge queue", "MessageQueueSize", ws.WithMessageQueueSize(1<<20 + 1)},
	{"no queue bytes", "QueueBytes", ws.WithQueueBytes(0)},
	{"negative queue bytes", "QueueBytes", ws.WithQueueBytes(-1)},
	{"huge queue bytes", "QueueBytes", ws.WithQueueBytes(1 << 62)},
	{"no high queue", "HighQueueSize", ws.WithHighQueueSize(0)},
	{"huge high queue", "HighQueueSize", ws.WithHighQueueSize(1<<20 + 1)},
	{"no high queue bytes", "HighQueueBytes", ws.WithHighQueueBytes(0)},
	{"negative budget", "QueueBudget", ws.WithQueueBudget(-1)},
	{"unknown policy", "OverflowPolicy", ws.WithOverflowPolicy(ws.Disconnect + 1)},
	{"no high-water mark", "HighWaterMark", ws.WithHighWaterMark(0)},
	{"high-water mark beyond the queue", "HighWaterMark", ws.WithHighWaterMark(1.01)},
	{"high-water mark that is no number", "HighWaterMark", ws.WithHighWaterMark(math.NaN())},
	{"no low-water mark", "LowWaterMark", ws.WithLowWaterMark(0)},
	{"low-water mark at the high one", "LowWaterMark", ws.WithLowWaterMark(0.5)},
	{"negative high-water age", "HighWaterAge", ws.WithHighWaterAge(-1)},
	{"negative inbound budget", "InboundBudget", ws.WithInboundBudget(-1)},
	{"negative message timeout", "MessageTimeout", ws.WithMessageTimeout(-1)},
	{"negative write timeout", "WriteTimeout", ws.WithWriteTimeout(-1)},
	{"negative window", "Idempotency.Window", ws.WithIdempotency(-1)},
	{"short window", "Idempotency.Window", ws.WithIdempotency(time.Second - 1)},
	{"few bytes of replies", "Idempotency.Bytes", ws.WithIdempotencyBytes(1023, 1024)},
	{"few bytes of replies of a user", "Idempotency.PerUser", ws.WithIdempotencyBytes(1<<20, 1023)},
	{"a user with more than all", "Idempotency.PerUser", ws.WithIdempotencyBytes(1<<20, 1<<20+1)},
	{"negative rooms of a client", "Room.MaxRoomsPerClient", ws.WithMaxRoomsPerClient(-1)},
	{"negative room name", "Room.MaxRoomName", ws.WithMaxRoomName(-1)},
	{"negative unsent bytes", "UnsentBytes", ws.WithUnsentBytes(-1)},
	{"huge unsent bytes", "UnsentBytes", ws.WithUnsentBytes(1<<30 + 1)},
	{"negative receive buffer", "RecvBuffer", ws.WithSocketBuffers(-1, 0)},
	{"negative send buffer", "SendBuffer", ws.WithSocketBuffers(0, -1)},
	{"huge send buffer", "SendBuffer", ws.WithSocketBuffers(0, 1<<30+1)},
	{"no handshake timeout", "HandshakeTimeout", ws.WithHandshakeTimeout(0)},
	{"small head", "HeadBytes", ws.WithHeadLimits(1023, 128)},
	{"huge head", "HeadBytes", ws.WithHeadLimits(256<<10+1, 128)},
	{"few lines", "HeadLines", ws.WithHeadLimits(16<<10, 15)},
	{"many lines", "HeadLines", ws.WithHeadLimits(16<<10, 1025)},
	{"no close timeout", "CloseTimeout", ws.WithCloseTimeout(0)},
	{"rooms without an interval", "Room.CleanupInterval", ws.WithRoomConfig(ws.RoomConfig{MaxRoomSize: 1})},
	{
		"broadcasts without a ring", "Broadcast.QueueSize",
		ws.WithBroadcastConfig(ws.BroadcastConfig{Timeout: time.Second}),
	},
	{"empty subprotocol", "Subprotocols", ws.WithSubprotocols("a", "")},
	{"subprotocol with a space", "Subprotocols", ws.WithSubprotocols("a b")},
	{"subprotocols in one string", "Subprotocols", ws.WithSubprotocols("a,b")},
	{"subprotocol not ASCII", "Subprotocols", ws.WithSubprotocols("caf\u00e9")},
	{"subprotocol twice", "Subprotocols", ws.WithSubprotocols("a", "b", "a")},
	{"too many subprotocols", "Subprotocols", func(c *ws.Config) {
		for i := range 256 {
			c.Subprotocols = append(c.Subprotocols, strconv.Itoa(i))
		}
	}},
	{"origin without scheme", "OriginWhitelist", ws.WithCheckOriginWhitelist([]string{"example.com"})},
	{"origin with port, without scheme", "OriginWhitelist", ws.WithCheckOriginWhitelist([]string{"example.com:80"})},
	{"origin with path", "OriginWhitelist", ws.WithCheckOriginWhitelist([]string{"https://example.com/"})},
	{"origin with query", "OriginWhitelist", ws.WithCheckOriginWhitelist([]string{"https://example.com?a"})},
	{"origin with fragment", "OriginWhitelist", ws.WithCheckOriginWhitelist([]string{"https://example.com#a"})},
	{"origin with user", "OriginWhitelist", ws.WithCheckOriginWhitelist([]string{"https://me@example.com"})},
	{"empty origin", "OriginWhitelist", ws.WithCheckOriginWhitelist([]string{"https://example.com", ""})},
	{"empty whitelist", "OriginWhitelist", ws.WithCheckOriginWhitelist([]string{})},
	{"two origin checks", "OriginWhitelist", func(c *ws.Config) {
		c.CheckOrigin, c.OriginWhitelist = allowOrigin, []string{"https://example.com"}
	}},
	{"check and all origins", "AllowAllOrigins", func(c *ws.Config) {
		c.CheckOrigin, c.AllowAllOrigins = allowOrigin, true
	}},
	{"negative room size", "Room.MaxRoomSize", ws.Option(func(c *ws.Config) { c.Room.MaxRoomSize = -1 })},
	{"no cleanup interval", "Room.CleanupInterval", ws.Option(func(c *ws.Config) { c.Room.CleanupInterval = 0 })},
	{"unknown policy for IDs", "DuplicateID", ws.Option(func(c *ws.Config) { c.DuplicateID = 2 })},
	{"negative TTL", "Room.EmptyRoomTTL", ws.Option(func(c *ws.Config) { c.Room.EmptyRoomTTL = -1 })},
	{"no ring", "Broadcast.QueueSize", ws.Option(func(c *ws.Config) { c.Broadcast.QueueSize = 0 })},
	{"huge ring", "Broadcast.QueueSize", ws.Option(func(c *ws.Config) { c.Broadcast.QueueSize = 1<<20 + 1 })},
	{"negative batch", "Broadcast.BatchSize", ws.Option(func(c *ws.Config) { c.Broadcast.BatchSize = -1 })},
	{"huge batch", "Broadcast.BatchSize", ws.Option(func(c *ws.Config) { c.Broadcast.BatchSize = 4097 })},
	{"no broadcast timeout", "Broadcast.Timeout", ws.Option(func(c *ws.Config) { c.Broadcast.Timeout = 0 })},
	{"address without host", "ListenAddr", ws.WithListenAddr("tcp://")},
	{"address of another scheme", "ListenAddr", ws.WithListenAddr("udp://:8080")},
	{"address with http", "ListenAddr", ws.WithListenAddr("http://:8080")},
	{"address without port", "ListenAddr", ws.WithListenAddr("tcp://localhost")},
	{"mode of another kind", "UnixSocketMode", ws.WithUnixSocketMode(fs.ModeSetuid | 0o600)},
	{"port out of range", "ListenAddr", ws.WithListenAddr("tcp://:65536")},
	{"TLS without a certificate", "TLSConfig", func(c *ws.Config) {
		c.ListenAddr, c.TLSConfig = "localhost:0", &tls.Config{}
	}},
	{"simnet and a listener", "Simnet", func(c *ws.Config) {
		c.ListenAddr, c.Simnet = "localhost:0", ws.NewSimnet()
	}},
	{"negative pace", "Admission.PerSecond", ws.WithAdmission(ws.Admission{PerSecond: -1})},
	{"pace that is no number", "Admission.PerSecond", ws.WithAdmission(ws.Admission{PerSecond: math.NaN()})},
	{"endless pace", "Admission.PerSecond", ws.WithAdmission(ws.Admission{PerSecond: math.Inf(1)})},
	{"negative burst", "Admission.Burst", ws.WithAdmission(ws.Admission{PerSecond: 1, Burst: -1})},
	{"burst without a pace", "Admission.Burst", ws.WithAdmission(ws.Admission{Burst: 1})},
	{"no TLS handshakes", "TLSHandshakes", ws.WithTLSHandshakes(0)},
	{"path without slash", "Paths", ws.WithPath("/ws", "ws")},
	{"empty path", "Paths", ws.WithPath("")},
	{"no path", "Paths", ws.WithPath()},
	{"path of health checks", "Paths", ws.WithPath("/ws", "/readyz")},
	{"live path without slash", "LivePath", ws.WithHealthPaths("live", "/ready")},
	{"ready path without slash", "ReadyPath", ws.WithHealthPaths("/live", "ready")},
	{"one path for both health checks", "ReadyPath", ws.WithHealthPaths("/up", "/up")},
	{"negative loops", "Loops", ws.WithLoops(-1)},
	{"too many loops", "Loops", ws.WithLoops(257)},
	{"negative shards", "RoomShards", ws.WithRoomShards(-4)},
	{"shards no power of two", "RoomShards", ws.WithRoomShards(3)},
	{"unknown mode", "HandlerMode", ws.WithHandlerMode(2)},
	{"negative workers", "Workers", ws.Option(func(c *ws.Config) { c.Workers = -1 })},
	{"no mailbox", "MailboxSize", ws.WithMailboxSize(0)},
	{"negative mailbox", "MailboxSize", ws.WithMailboxSize(-1)},
	{"no mailbox bytes", "MailboxBytes", ws.WithMailboxBytes(0)},
	{"negative mailbox bytes", "MailboxBytes", ws.WithMailboxBytes(-1)},
	{"negative rate", "RateLimit.Messages", ws.WithRateLimit(ws.RateLimit{Messages: -1})},
	{"rate that is no number", "RateLimit.Messages", ws.WithRateLimit(ws.RateLimit{Messages: math.NaN()})},
	{"infinite rate", "RateLimit.Messages", ws.WithRateLimit(ws.RateLimit{Messages: math.Inf(1)})},
	{"negative byte rate", "RateLimit.Bytes", ws.WithRateLimit(ws.RateLimit{Bytes: -0.5})},
	{"byte rate that is no number", "RateLimit.Bytes", ws.WithRateLimit(ws.RateLimit{Bytes: math.NaN()})},
	{"infinite byte rate", "RateLimit.Bytes", ws.WithRateLimit(ws.RateLimit{Bytes: math.Inf(-1)})},
	{"negative burst", "RateLimit.MessageBurst", ws.WithRateLimit(ws.RateLimit{Messages: 1, MessageBurst: -1})},
	{"negative byte burst", "RateLimit.ByteBurst", ws.WithRateLimit(ws.RateLimit{Bytes: 1, ByteBurst: -1})},
	{"negative tolerance", "RateLimit.Tolerance", ws.WithRateLimit(ws.RateLimit{Messages: 1, Tolerance: -1})},
	{"zero Config", "MaxConnections", ws.WithConfig(ws.Config{})},
}

// allowOrigin allows every request.
func allowOrigin(*http.Request) bool { return true }

func TestBadOptions(t *testing.T) {
	for _, tt := range badOptions {
		t.Run(tt.name, func(t *testing.T) {
			m, err := ws.NewManager(tt.option)
			require.ErrorIs(t, err, ws.ErrInvalidConfig)
			assert.Nil(t, m)
			assert.ErrorContains(t, err, tt.field)

			cfg := ws.DefaultConfig()
			tt.option(&cfg)
			require.ErrorIs(t, cfg.Validate(), ws.ErrInvalidConfig)
		})
	}
}

func TestGoodOptions(t *testing.T) {
	tests := []struct {
		name   string
		option ws.Option
	}{
		{"origins with port", ws.WithCheckOriginWhitelist([]string{"https://example.com:8443", "http://[::1]:80"})},
		{"own check", ws.WithCheckOrigin(func(*http.Request) bool { return true })},
		{"compression", ws.WithEnableCompression(true)},
		{"nil metrics", ws.WithMetrics(nil)},
		{"one of each", func(c *ws.Config) { c.Loops, c.RoomShards, c.Workers, c.Broadcast.QueueSize = 1, 1, 1, 1 }},
		{"most loops", ws.WithLoops(256)},
		{"default batch", func(c *ws.Config) { c.Broadcast.BatchSize = 0 }},
		{"largest batch", func(c *ws.Config) { c.Broadcast.BatchSize = 4096 }},
		{"no TTL", func(c *ws.Config) { c.Room.EmptyRoomTTL = 0 }},
		{"listen on IPv6", ws.WithListenAddr("tcp6://[::1]:0")},
		{"listen on host:port", ws.WithListenAddr("localhost:0")},
		{"listen on a path", ws.WithListenAddr("unix:///tmp/ws.sock")},
		{"a socket's mode", ws.WithUnixSocketMode(0o660)},
		{"rate limit", ws.WithRateLimit(ws.RateLimit{
			Messages: math.MaxFloat64, Bytes: math.SmallestNonzeroFloat64, MessageBurst: math.MaxInt, ByteBurst: 1, Tolerance: 1,
		})},
		{"default policy", ws.WithOverflowPolicy(0)},
		{"highest mark", ws.WithHighWaterMark(1)},
		{"a budget", ws.WithQueueBudget(1)},
		{"TLS of Serve alone", ws.WithTLSConfig(&tls.Config{Certificates: make([]tls.Certificate, 1)})},
		{"no TLS", ws.WithTLSConfig(nil)},
		{"no rate limit", ws.WithRateLimit(ws.RateLimit{})},
		{"whole Config", ws.WithConfig(ws.DefaultConfig())},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m, err := ws.NewManager(tt.option)
			require.NoError(t, err)
			require.NoError(t, m.Shutdown(context.Background()))
		})
	}
}

// An entry with a wildcard is accepted, logged once, and matches nothing.
func TestWildcardOrigins(t *testing.T) {
	log := new(harness.Buffer)
	list := []string{"https://*.example.com", "*", "https://exact.example", "http://localhost:*"}
	s := harness.Start(t, ws.WithCheckOriginWhitelist(list),
		func(c *ws.Config) { c.Logger = slog.New(slog.NewTextHandler(log, nil)) })
	for origin, want := range map[string]int{
		"https://exact.example": 101, "https://a.example.com": 403, "https://*.example.com": 403, "*": 403,
		"https://other.example": 403, "http://localhost:80": 403, "http://localhost:*": 403,
	} {
		for _, w := range []harness.Way{harness.Native, harness.NetHTTP} {
			assert.Equal(t, want, statusFor(s, w, origin), "%s from %s", w, origin)
		}
	}
	assert.Equal(t, 1, strings.Count(log.String(), "level=WARN"))
	assert.True(t, harness.ContainsLine(log.String(), "https://*.example.com * http://localhost:*"), log.String())
	log = new(harness.Buffer)
	harness.NewManager(t, ws.WithCheckOriginWhitelist([]string{"https://exact.example"}),
		func(c *ws.Config) { c.Logger = slog.New(slog.NewTextHandler(log, nil)) })
	assert.Empty(t, log.String())
}

// statusFor returns the status of the answer to an upgrade request from a page of origin.
func statusFor(s *harness.Server, w harness.Way, origin string) int {
	s.T.Helper()
	c := s.DialTCP(w)
	c.WriteRaw(harness.UpgradeRequest("/ws", "Origin: "+origin+"\r\n"))
	resp, _ := c.ReadResponse()
	return resp.StatusCode
}

// The last of the three origin options holds.
func TestLastOriginOptionHolds(t *testing.T) {
	const page, other = "https://page.example", "https://other.example"
	list := ws.WithCheckOriginWhitelist([]string{page})
	check := ws.WithCheckOrigin(func(r *http.Request) bool { return r.Header.Get("Origin") == other })
	all := ws.WithAllowAllOrigins()
	tests := []struct {
		name        string
		opts        []ws.Option
		page, other int
	}{
		{"list", []ws.Option{all, check, list}, 101, 403},
		{"check", []ws.Option{list, all, check}, 403, 101},
		{"all", []ws.Option{check, list, all}, 101, 101},
		{"list behind a whole Config", []ws.Option{ws.WithConfig(func() ws.Config {
			c := ws.DefaultConfig()
			c.AllowAllOrigins, c.ListenAddr = true, "tcp://127.0.0.1:0"
			return c
		}()), list}, 101, 403},
		{"none of them", []ws.Option{all, ws.WithCheckOrigin(nil)}, 403, 403},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := harness.Start(t, tt.opts...)
			for _, w := range []harness.Way{harness.Native, harness.NetHTTP} {
				assert.Equal(t, tt.page, statusFor(s, w, page), "%s", w)
				assert.Equal(t, tt.other, statusFor(s, w, other), "%s", w)
			}
		})
	}
}

// Options that set a whole struct, or a field for which there is no bad value.
func TestOptionsSetTheirField(t *testing.T) {
	cfg := ws.DefaultConfig()
	logger := slog.New(slog.DiscardHandler)
	ws.WithLogger(logger)(&cfg)
	assert.Same(t, logger, cfg.Logger)
	rooms := ws.DefaultConfig().Room
	rooms.MaxRoomSize = 7
	ws.WithRoomConfig(rooms)(&cfg)
	assert.Equal(t, rooms, cfg.Room)
	broadcast := ws.DefaultConfig().Broadcast
	broadcast.QueueSize = 7
	ws.WithBroadcastConfig(broadcast)(&cfg)
	assert.Equal(t, broadcast, cfg.Broadcast)
	ws.WithHandshakeTimeout(time.Minute)(&cfg)
	ws.WithCloseTimeout(time.Hour)(&cfg)
	assert.Equal(t, []time.Duration{time.Minute, time.Hour}, []time.Duration{cfg.HandshakeTimeout, cfg.CloseTimeout})
	require.NoError(t, cfg.Validate())
}

// NewManager copies the configuration.
func TestConfigIsCopied(t *testing.T) {
	origins := []string{"https://example.com"}
	s := harness.Start(t, ws.WithCheckOriginWhitelist(origins))
	origins[0] = "https://evil.example"
	c := s.DialTCP(harness.Native)
	c.WriteRaw(harness.UpgradeRequest("/ws", "Origin: https://evil.example\r\n"))
	resp, _ := c.ReadResponse()
	assert.Equal(t, 403, resp.StatusCode)
}

// One connection works with the smallest configuration there is.
func TestSmallestConfig(t *testing.T) {
	s := harness.Start(t, func(c *ws.Config) {
		c.MaxConnections, c.MessageQueueSize, c.QueueBytes = 1, 1, 1
		c.Loops, c.RoomShards, c.Workers, c.MailboxSize, c.MailboxBytes = 1, 1, 1, 1, 1
		c.Broadcast.QueueSize, c.Broadcast.BatchSize = 1, 1
	})
	harness.RegisterGreetings(t, s.Manager)
	c := s.Dial(harness.Native)
	for range 10 {
		c.Send(harness.Request("only", "1", ""))
		c.ExpectReply("1", 200, "")
	}
}

// placedByPath is an Authenticate that uses the query as the key of WithPlacement.
func placedByPath(r *http.Request) ([]ws.ClientOption, error) {
	return []ws.ClientOption{ws.WithPlacement(r.URL.RawQuery), ws.WithMetadata("addr", r.RemoteAddr)}, nil
}

// loopsInUse returns the number of loops with connections.
func loopsInUse(m *ws.Manager) (n int) {
	for _, loop := range m.Stats().Loops {
		if loop.Connections > 0 {
			n++
		}
	}
	return n
}

// Clients with one key share a loop, and lose nothing on their way to it.
func TestPlacement(t *testing.T) {
	harness.OnEachTransport(t, func(t *testing.T, start func(opts ...ws.Option) *harness.Endpoint) {
		const clients = 12
		s := start(ws.WithLoops(4), ws.WithHandlerMode(ws.Inline), ws.WithAuthenticate(placedByPath))
		s.HandleRaw(harness.Echo)
		for i := range clients {
			c := s.DialTCP(s.Way)
			if s.Wrap != nil {
				c = s.Wrap(c)
			}
			early := fmt.Sprint("early ", i)
			c.WriteRaw(harness.UpgradeRequest("/ws?room", "") + harness.Frame(1, early))
			resp, body := c.ReadResponse()
			require.Equal(t, http.StatusSwitchingProtocols, resp.StatusCode, body)
			c.Expect(early)
			c.Send("later")
			c.Expect("later")
		}
		st := s.Stats()
		assert.Equal(t, clients, st.Clients)
		assert.Equal(t, clients, st.Total.Connections)
		assert.Equal(t, 1, loopsInUse(s.Manager))
		s.RangeClients(func(c *ws.Client) bool {
			addr, _ := c.GetMetadata("addr")
			return assert.Equal(t, addr, c.RemoteAddr())
		})
	})
}

// proxied is a listener whose connections have the address of another client, as
// with the PROXY protocol.
type proxied struct{ net.Listener }

type proxiedConn struct{ *net.TCPConn }

func (l proxied) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return proxiedConn{c.(*net.TCPConn)}, nil
}

func (proxiedConn) RemoteAddr() net.Addr {
	return &net.TCPAddr{IP: net.ParseIP("2001:db8::1"), Port: 7}
}

// A client of Serve keeps the address that its listener gave it.
func TestPlacementKeepsTheAddress(t *testing.T) {
	s := harness.Start(t, ws.WithLoops(4), ws.WithAuthenticate(placedByPath))
	l := harness.Listen(t, "tcp", "127.0.0.1:0")
	s.ServeOn(proxied{l})
	for range 4 {
		s.DialOn("tcp", l.Addr().String()).WriteRaw(harness.UpgradeRequest("/ws?room", ""))
	}
	harness.Eventually(t, func() bool { return s.GetClientCount() == 4 }, "not all are connected")
	assert.Equal(t, 1, loopsInUse(s.Manager))
	s.RangeClients(func(c *ws.Client) bool { return assert.Equal(t, "[2001:db8::1]:7", c.RemoteAddr()) })
}

// Different keys, and clients without one, spread over the loops.
func TestPlacementSpreads(t *testing.T) {
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		s := harness.Start(t, ws.WithLoops(4), ws.WithAuthenticate(placedByPath))
		for i := range 64 {
			s.Dial(w, fmt.Sprint(i))
		}
		assert.Equal(t, 4, loopsInUse(s.Manager))
	})
}

// A client that hangs up on its way to its loop leaves nothing behind.
func TestPlacementOfTheDead(t *testing.T) {
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		const clients = 200
		s := harness.Start(t, ws.WithLoops(4), ws.WithMaxConnections(clients), ws.WithAuthenticate(placedByPath))
		for i := range clients {
			c := s.DialTCP(w)
			c.WriteRaw(harness.UpgradeRequest("/ws?room", ""))
			if i%2 == 0 {
				c.Abort()
			} else {
				_ = c.Close()
			}
		}
		none := func() bool { st := s.Stats(); return st.Clients == 0 && st.Total.Connections == 0 }
		harness.Eventually(t, none, "%+v", s.Stats().Total)
		for range clients { // each of them gave its place back
			harness.Eventually(t, func() bool { _, err := s.TryDial(w, "room"); return err == nil }, "no place")
		}
		assert.Equal(t, clients, s.Stats().Clients)
	})
}

// Shutdown ends the clients that are on their way to a loop.
func TestPlacementAtShutdown(t *testing.T) {
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		s := harness.Start(t, ws.WithLoops(4), ws.WithCloseTimeout(100*time.Millisecond), ws.WithAuthenticate(placedByPath))
		for range 50 {
			s.DialTCP(w).WriteRaw(harness.UpgradeRequest("/ws?room", ""))
		}
		s.Stop()
		assert.Zero(t, s.GetClientCount())
	})
}
