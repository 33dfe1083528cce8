package ws_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	gobwas "github.com/gobwas/ws"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/internal/harness"
)

// visit is the result of one upgrade: the status of the answer, 0 if the server closed
// without one, and the code and reason of a close frame behind a 101.
type visit struct {
	client *harness.Client // nil unless connected
	status int
	retry  string // of the header Retry-After
	code   int
	reason string
}

// visitFrom upgrades from an address of the loopback network, and looks for a close frame
// that comes behind the 101 at once if polite is true. A refusal may come before the request.
func visitFrom(s *harness.Endpoint, ip string, polite bool) (v visit) {
	s.T.Helper()
	c := dialFrom(s.Server, s.AddrOf(s.Way), ip)
	if s.TLS != nil {
		if c = tryTLS(s, c); c == nil {
			return v
		}
	}
	_, _ = c.Write([]byte(harness.UpgradeRequest("/ws", "")))
	resp, err := http.ReadResponse(c.R, nil)
	if err != nil {
		return v
	}
	v.status, v.retry = resp.StatusCode, resp.Header.Get("Retry-After")
	_ = resp.Body.Close()
	switch {
	case v.status != http.StatusSwitchingProtocols:
		_ = c.Close()
	case polite:
		f := c.ReadFrame()
		require.Equal(s.T, gobwas.OpClose, f.Header.OpCode)
		code, reason := gobwas.ParseCloseFrameData(f.Payload)
		v.code, v.reason = int(code), reason
		c.Finish(v.code)
	default:
		v.client = c
	}
	return v
}

// tryTLS returns nil if the server closes before the end of the handshake.
func tryTLS(s *harness.Endpoint, c *harness.Client) *harness.Client {
	tc := tls.Client(c.Conn, s.TLS)
	if tc.Handshake() != nil {
		return nil
	}
	return &harness.Client{Conn: tc, T: s.T, R: bufio.NewReaderSize(tc, 4<<10)}
}

func dialFrom(s *harness.Server, addr, ip string) *harness.Client {
	s.T.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}, Timeout: harness.Patience}
	nc, err := d.Dial("tcp", addr)
	require.NoError(s.T, err)
	require.NoError(s.T, nc.SetDeadline(time.Now().Add(2*harness.Patience)))
	s.T.Cleanup(func() { _ = nc.Close() })
	return &harness.Client{Conn: nc, T: s.T, R: bufio.NewReaderSize(nc, 4<<10)}
}

// requireRefused asserts that v was refused with a status and Retry-After. Over TLS the native
// path closes without an answer.
func requireRefused(s *harness.Endpoint, v visit, status int) {
	s.T.Helper()
	if s.Wrap != nil && s.Way != harness.NetHTTP && status == http.StatusTooManyRequests {
		require.Zero(s.T, v.status)
		return
	}
	require.Equal(s.T, status, v.status)
	seconds, err := strconv.Atoi(v.retry)
	require.NoError(s.T, err)
	require.True(s.T, 5 <= seconds && seconds <= 30, "Retry-After: %d", seconds)
}

// requirePolite asserts that v was refused politely.
func requirePolite(s *harness.Endpoint, v visit) {
	s.T.Helper()
	require.Equal(s.T, 1013, v.code)
	var reason struct {
		Retry int `json:"retry_ms"`
	}
	require.NoError(s.T, json.Unmarshal([]byte(v.reason), &reason))
	require.True(s.T, 5000 <= reason.Retry && reason.Retry <= 30_000, v.reason)
}

// onEachEntry runs test on all ways, plain and with TLS.
func onEachEntry(t *testing.T, test func(t *testing.T, start func(opts ...ws.Option) *harness.Endpoint)) {
	harness.OnEachTransport(t, test)
	t.Run("Serve", func(t *testing.T) {
		test(t, func(opts ...ws.Option) *harness.Endpoint {
			return &harness.Endpoint{Server: harness.Start(t, opts...), Way: harness.Served}
		})
	})
}

func TestConnectionsOfAnAddress(t *testing.T) {
	onEachEntry(t, func(t *testing.T, start func(opts ...ws.Option) *harness.Endpoint) {
		var authenticated atomic.Int64
		s := start(ws.WithAdmission(ws.Admission{PerIPConnections: 2}),
			ws.WithAuthenticate(func(*http.Request) ([]ws.ClientOption, error) {
				authenticated.Add(1)
				return nil, nil
			}))
		first := visitFrom(s, "127.0.0.1", false)
		require.NotNil(t, first.client)
		require.NotNil(t, visitFrom(s, "127.0.0.1", false).client)
		requireRefused(s, visitFrom(s, "127.0.0.1", false), 429)
		require.NotNil(t, visitFrom(s, "127.0.0.2", false).client, "another address")
		require.EqualValues(t, 3, authenticated.Load(), "a refusal called Authenticate")
		st := s.Stats()
		require.Equal(t, 2, st.Accept.Addresses)
		require.EqualValues(t, 1, st.Refused.AddressFull)
		require.EqualValues(t, 1, st.Refused.Total())
		require.Zero(t, st.Refused.AddressRate)
		_ = first.client.Close()
		harness.Eventually(t, func() bool {
			return visitFrom(s, "127.0.0.1", false).client != nil
		}, "the end of a connection freed no place")
		s.RangeClients(func(c *ws.Client) bool {
			c.Abort()
			return true
		})
		harness.Eventually(t, func() bool { return s.Stats().Accept.Addresses == 0 }, "a connection counts for ever")
	})
}

func TestRateOfAnAddress(t *testing.T) {
	onEachEntry(t, func(t *testing.T, start func(opts ...ws.Option) *harness.Endpoint) {
		s := start(ws.WithAdmission(ws.Admission{PerIP: 1e-6, PerIPBurst: 3}))
		for range 3 {
			require.NotNil(t, visitFrom(s, "127.0.0.1", false).client)
		}
		for range 3 {
			requireRefused(s, visitFrom(s, "127.0.0.1", false), 429)
		}
		require.NotNil(t, visitFrom(s, "127.0.0.2", false).client)
		require.EqualValues(t, 3, s.Stats().Refused.AddressRate)
		if s.Way == harness.NetHTTP {
			require.Equal(t, map[int]int{0: 4, 429: 3}, upgradeStatuses(s.Server, 7))
		}
	})
}

// upgradeStatuses counts the statuses of n calls of HandleUpgrade, which return in any order; 0
// is a client.
func upgradeStatuses(s *harness.Server, n int) map[int]int {
	s.T.Helper()
	statuses := make(map[int]int)
	for range n {
		err := harness.Receive(s.T, s.Upgrades, "HandleUpgrade does not return")
		var status int
		if h, ok := errors.AsType[*ws.HandshakeError](err); ok {
			status = h.Status
		} else {
			require.NoError(s.T, err)
		}
		statuses[status]++
	}
	return statuses
}

func TestPoliteRefusals(t *testing.T) {
	t.Parallel()
	for name, admission := range map[string]ws.Admission{
		"PerIP":            {PerIP: 1e-6, PerIPBurst: 1},
		"PerIPConnections": {PerIPConnections: 1},
		"MaxConnections":   {},
	} {
		t.Run(name, func(t *testing.T) {
			onEachEntry(t, func(t *testing.T, start func(opts ...ws.Option) *harness.Endpoint) {
				admission.Polite = 1e-6 // one at once, and practically none later
				var calls atomic.Int64
				s := start(ws.WithAdmission(admission), ws.WithMaxConnections(1),
					ws.WithCheckOrigin(func(*http.Request) bool { calls.Add(1); return true }),
					ws.WithAuthenticate(func(*http.Request) ([]ws.ClientOption, error) { calls.Add(1); return nil, nil }))
				require.NotNil(t, visitFrom(s, "127.0.0.1", false).client)
				requirePolite(s, visitFrom(s, "127.0.0.1", true))
				status := 429
				if name == "MaxConnections" {
					status = 503
				}
				requireRefused(s, visitFrom(s, "127.0.0.1", false), status)
				require.EqualValues(t, 2, calls.Load(), "a refusal called code of the application")
				require.EqualValues(t, 1, s.Stats().Accept.Polite)
				st := s.Stats()
				require.EqualValues(t, 2, st.Refused.Total())
				require.Equal(t, 1, s.GetClientCount())
				harness.Eventually(t, func() bool { return s.Stats().Total.Connections == 1 }, "a refused connection stays")
			})
		})
	}
}

// TestPoliteRefusalOfALateTurn covers a turn of PerSecond that does not come in time.
func TestPoliteRefusalOfALateTurn(t *testing.T) {
	t.Parallel()
	harness.OnEachTransport(t, func(t *testing.T, start func(opts ...ws.Option) *harness.Endpoint) {
		t.Parallel()
		s := start(ws.WithAdmission(ws.Admission{PerSecond: 1e-6, Burst: 1, Polite: 10}),
			ws.WithHandshakeTimeout(5*time.Second)) // of the first client, too
		if s.Way == harness.Native {
			t.Skip("connections wait in the kernel's backlog")
		}
		require.NotNil(t, visitFrom(s, "127.0.0.1", false).client)
		requirePolite(s, visitFrom(s, "127.0.0.1", true))
	})
}

// TestPoliteRefusalOfADrain has a server whose clients leave over a long time, and a newcomer.
func TestPoliteRefusalOfADrain(t *testing.T) {
	onEachEntry(t, func(t *testing.T, start func(opts ...ws.Option) *harness.Endpoint) {
		s := start(ws.WithAdmission(ws.Admission{Polite: 1e-6}))
		for range 2 {
			require.NotNil(t, visitFrom(s, "127.0.0.1", false).client)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- s.Drain(ctx, ws.DrainConfig{Grace: -1, Window: time.Hour, Settle: -1}) }()
		harness.Eventually(t, func() bool { return s.DrainStats().Phase == ws.DrainSlots }, "the drain does not begin")
		v := visitFrom(s, "127.0.0.1", true)
		require.Equal(t, 1013, v.code)
		require.Contains(t, v.reason, `{"retry_ms":`)
		v = visitFrom(s, "127.0.0.1", false)
		require.Equal(t, 503, v.status)
		require.NotEmpty(t, v.retry)
		require.EqualValues(t, 2, s.Stats().Refused.Stopped)
		cancel()
		require.ErrorIs(t, harness.Receive(t, ended, "Drain does not return"), context.Canceled)
	})
}

// TestPoliteNegotiates asserts that a browser would accept the 101: with the subprotocol that
// it must read.
func TestPoliteNegotiates(t *testing.T) {
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		s := harness.Start(t, ws.WithAdmission(ws.Admission{Polite: 100}), ws.WithMaxConnections(1),
			ws.WithSubprotocols("chat"))
		s.Dial(w)
		for header, want := range map[string]int{
			"Sec-WebSocket-Protocol: chat\r\n":     101,
			"Origin: http://elsewhere.example\r\n": 403,
			"Sec-WebSocket-Version: 8\r\n":         400,
		} {
			c := s.DialTCP(w)
			c.WriteRaw(harness.UpgradeRequest("/ws", header))
			resp, _ := c.ReadResponse()
			require.Equal(t, want, resp.StatusCode, header)
			if want == 101 {
				require.Equal(t, "chat", resp.Header.Get("Sec-WebSocket-Protocol"))
				c.ExpectClose(1013)
			}
		}
	})
}

// TestPoliteRefusesOtherRequestsByStatus has a health check from an address beyond its limits.
func TestPoliteRefusesOtherRequestsByStatus(t *testing.T) {
	s := harness.Start(t, ws.WithAdmission(ws.Admission{PerIPConnections: 1, Polite: 100}))
	s.Dial(harness.Native)
	for _, request := range []string{
		"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
		strings.Replace(harness.UpgradeRequest("/ws", ""), "/ws", "/elsewhere", 1),
	} {
		c := s.DialTCP(harness.Native)
		c.WriteRaw(request)
		resp, _ := c.ReadResponse()
		require.Equal(t, 429, resp.StatusCode)
	}
	require.EqualValues(t, 2, s.Stats().Refused.AddressFull)
	require.Zero(t, s.Stats().Accept.Polite)
}

// TestRefusalsOfARequestCountForTheirTime asserts that all ways out of a handshake end the
// count of the address.
func TestRefusalsOfARequestCountForTheirTime(t *testing.T) {
	t.Parallel()
	onEachEntry(t, func(t *testing.T, start func(opts ...ws.Option) *harness.Endpoint) {
		s := start(ws.WithAdmission(ws.Admission{PerIPConnections: 1000}), ws.WithMaxConnections(2),
			ws.WithAuthenticate(func(r *http.Request) ([]ws.ClientOption, error) {
				if r.URL.Query().Has("refuse") {
					return nil, errors.New("no")
				}
				return []ws.ClientOption{ws.WithClientID("one"), ws.WithPlacement(r.URL.Query().Get("place"))}, nil
			}))
		for _, path := range []string{"/ws?place=a", "/ws?place=b", "/ws?refuse", "/ws?place=c"} {
			c := dialFrom(s.Server, s.AddrOf(s.Way), "127.0.0.3")
			if s.Wrap != nil {
				c = s.Wrap(c)
			}
			c.WriteRaw(harness.UpgradeRequest(path, ""))
			resp, _ := c.ReadResponse()
			t.Log(path, resp.StatusCode)
			if resp.StatusCode == 101 {
				require.Equal(t, 1, s.Stats().Accept.Addresses)
			}
		}
		s.RangeClients(func(c *ws.Client) bool {
			c.Abort()
			return true
		})
		harness.Eventually(t, func() bool { return s.Stats().Accept.Addresses == 0 }, "a connection counts for ever")
	})
}

// TestAHijackThatFailsEndsTheCount has a writer without a connection.
func TestAHijackThatFailsEndsTheCount(t *testing.T) {
	s := harness.Start(t, ws.WithAdmission(ws.Admission{PerIPConnections: 1}))
	web := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = s.HandleUpgrade(struct{ http.ResponseWriter }{w}, r)
	})}
	l := harness.Listen(t, "tcp", "127.0.0.1:0")
	go func() { _ = web.Serve(l) }()
	defer web.Close()
	for range 3 {
		c := s.DialOn("tcp", l.Addr().String())
		c.WriteRaw(harness.UpgradeRequest("/ws", ""))
		resp, _ := c.ReadResponse()
		require.Equal(t, 500, resp.StatusCode)
		harness.Eventually(t, func() bool { return s.Stats().Accept.Addresses == 0 }, "the address counts for ever")
	}
}

// TestTheAddressOfMiddleware asserts that HandleUpgrade limits the RemoteAddr of its request,
// which middleware may have set, and ends the count of the same address.
func TestTheAddressOfMiddleware(t *testing.T) {
	s := harness.Start(t, ws.WithAdmission(ws.Admission{PerIPConnections: 1}))
	web := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.RemoteAddr = r.Header.Get("X-Real-Ip")
		_ = s.HandleUpgrade(w, r)
	})}
	l := harness.Listen(t, "tcp", "127.0.0.1:0")
	go func() { _ = web.Serve(l) }()
	defer web.Close()
	for _, step := range []struct {
		ip   string
		want int
	}{
		{"192.0.2.1", 101},
		{"192.0.2.1", 429},
		{"[::ffff:192.0.2.1]:80", 429},
		{"2001:db8::1", 101},
		{"[2001:db8::2]:9", 429},
		{"2001:db8:0:1::1", 101},
		{"unknown", 101},
		{"unknown", 101},
	} {
		c := s.DialOn("tcp", l.Addr().String())
		c.WriteRaw(harness.UpgradeRequest("/ws", "X-Real-Ip: "+step.ip+"\r\n"))
		resp, _ := c.ReadResponse()
		require.Equal(t, step.want, resp.StatusCode, step.ip)
	}
	require.Equal(t, 3, s.Stats().Accept.Addresses)
	s.RangeClients(func(c *ws.Client) bool {
		c.Abort()
		return true
	})
	harness.Eventually(t, func() bool { return s.Stats().Accept.Addresses == 0 }, "a connection counts for ever")
}

func TestUnixSocketsHaveNoAddress(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ws.sock")
	s := harness.Start(t, ws.WithListenAddr("unix://"+path),
		ws.WithAdmission(ws.Admission{PerIPConnections: 1, PerIP: 1e-6}))
	for range 5 {
		c := s.DialOn("unix", path)
		c.Upgrade()
	}
	require.Zero(t, s.Stats().Accept.Addresses)
}

func TestASimnetHasNoAddresses(t *testing.T) {
	sim := ws.NewSimnet()
	m := harness.NewManager(t, ws.WithListenAddr(""), ws.WithSimnet(sim),
		ws.WithAdmission(ws.Admission{PerIPConnections: 1, PerIP: 1e-6}))
	go func() { _ = m.Run() }()
	sim.Connect(100, []byte(harness.UpgradeRequest("/ws", "")))
	harness.Eventually(t, func() bool { return m.GetClientCount() == 100 }, "not all connect")
}

// TestAuthentications asserts that no more calls run at once, and that nobody is refused.
func TestAuthentications(t *testing.T) {
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		const atOnce, clients = 3, 30
		var running, most atomic.Int64
		open := make(chan struct{}) // closed when as many calls run as may, and others wait
		var greeted sync.WaitGroup
		greeted.Add(clients)
		enter := func() {
			n := running.Add(1)
			defer running.Add(-1)
			for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
			}
			<-open
		}
		s := harness.Start(t, ws.WithAdmission(ws.Admission{Authentications: atOnce}),
			ws.WithHandshakeTimeout(harness.Patience),
			ws.WithCheckOrigin(func(*http.Request) bool { enter(); return true }),
			ws.WithAuthenticate(func(*http.Request) ([]ws.ClientOption, error) { enter(); return nil, nil }),
			// Would never end if OnConnect took turns, too.
			ws.WithOnConnect(func(*ws.Client) error { greeted.Done(); greeted.Wait(); return nil }))
		var all sync.WaitGroup
		for range clients {
			c := s.DialTCP(w)
			all.Go(func() {
				_, _ = c.Write([]byte(harness.UpgradeRequest("/ws", "")))
				resp, err := http.ReadResponse(c.R, nil)
				if assert.NoError(t, err) {
					assert.Equal(t, 101, resp.StatusCode)
				}
			})
		}
		harness.Eventually(t, func() bool { return running.Load() == atOnce && s.Stats().Accept.AuthQueue > 0 },
			"%d calls run, and nobody waits", running.Load())
		close(open)
		all.Wait()
		require.EqualValues(t, atOnce, most.Load())
		harness.Eventually(t, func() bool {
			st := s.Stats().Accept
			return st.Authenticating == 0 && st.AuthQueue == 0
		}, "a call is left")
		st := s.Stats()
		require.Zero(t, st.Refused.Total())
	})
}

func TestWarningsOfAddressesAreRare(t *testing.T) {
	var log harness.Buffer
	s := harness.Start(t, ws.WithAdmission(ws.Admission{PerIPConnections: 1}),
		ws.WithLogger(slog.New(slog.NewTextHandler(&log, nil))))
	s.Dial(harness.Native)
	for range 20 {
		c := s.DialTCP(harness.Native)
		_, _ = c.Write([]byte(harness.UpgradeRequest("/ws", "")))
		_, _ = http.ReadResponse(c.R, nil)
	}
	require.Equal(t, 1, strings.Count(log.String(), "connections of an address are refused"))
	require.Contains(t, log.String(), "limit=PerIPConnections address=127.0.0.1 refused=1")
}
