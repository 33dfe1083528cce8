package integration_test

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
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

// admissionStorm counts the results of connects.
type admissionStorm struct {
	admitted, polite, status, closed, served atomic.Int64
}

// connect upgrades from an address, and echoes if it is admitted. It waits for hold before it
// leaves.
func (r *admissionStorm) connect(s *harness.Endpoint, ip string, left *sync.WaitGroup, hold <-chan struct{}) error {
	arrived := sync.OnceFunc(left.Done)
	defer arrived()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}, Timeout: harness.Patience}
	nc, err := d.Dial("tcp", s.AddrOf(s.Way))
	if err != nil {
		return err
	}
	defer func() { _ = nc.Close() }()
	if err = nc.SetDeadline(time.Now().Add(2 * harness.Patience)); err != nil {
		return err
	}
	if s.TLS != nil {
		tc := tls.Client(nc, s.TLS)
		if tc.Handshake() != nil {
			r.closed.Add(1)
			return nil
		}
		nc = tc
	}
	_, _ = nc.Write([]byte(harness.UpgradeRequest("/ws", "")))
	br := bufio.NewReaderSize(nc, 1<<10)
	resp, err := http.ReadResponse(br, nil)
	switch {
	case err != nil:
		r.closed.Add(1)
		return nil
	case resp.StatusCode == http.StatusTooManyRequests:
		r.status.Add(1)
		return nil
	case resp.StatusCode != http.StatusSwitchingProtocols:
		return fmt.Errorf("status %d", resp.StatusCode)
	}
	_, _ = nc.Write([]byte(harness.Frame(gobwas.OpText, "echo me"))) // a polite refusal may not take it
	f, err := harness.ReadFrame(br)
	switch {
	case err != nil:
		return err
	case f.Header.OpCode == gobwas.OpClose:
		code, _ := gobwas.ParseCloseFrameData(f.Payload)
		if code != 1013 {
			return fmt.Errorf("closed with %d", code)
		}
		r.polite.Add(1)
		return nil
	case string(f.Payload) != "echo me":
		return errors.New("wrong echo")
	}
	r.served.Add(1)
	r.admitted.Add(1)
	arrived()
	<-hold
	return nil
}

// TestAdmissionStorm connects a few thousand clients at once, from 64 addresses, more than each
// address may have. It compares the sums of the clients with those of the server, and expects no
// trace of them at the end.
func TestAdmissionStorm(t *testing.T) {
	const perAddress = 20
	addresses := harness.FewerUnderRace(64)
	harness.OnEachTransport(t, func(t *testing.T, start func(opts ...ws.Option) *harness.Endpoint) {
		n := 3000
		s := start(ws.WithAdmission(ws.Admission{
			PerSecond: 2000, PerIP: 1e-3, PerIPBurst: perAddress, PerIPConnections: perAddress - 5, Polite: 20,
		}), ws.WithHandshakeTimeout(2*harness.Patience))
		if s.TLS != nil {
			n = 1500 // a handshake takes about a millisecond
		}
		n = harness.FewerUnderRace(n) / addresses * addresses
		s.HandleRaw(harness.Echo)
		var r admissionStorm
		var clients, left sync.WaitGroup
		hold := make(chan struct{})
		left.Add(n)
		for i := range n {
			ip := fmt.Sprintf("127.0.1.%d", 1+i%addresses)
			clients.Go(func() { assert.NoError(t, r.connect(s, ip, &left, hold)) })
		}
		left.Wait()
		admitted := addresses * (perAddress - 5)
		require.Greater(t, n, admitted)
		st := s.Stats()
		t.Logf("%d admitted, %d by status, %d closed, %d polite; %+v; %+v", r.admitted.Load(), r.status.Load(),
			r.closed.Load(), r.polite.Load(), st.Refused, st.Accept)
		require.EqualValues(t, admitted, r.admitted.Load(), "each address holds as many as it may")
		require.EqualValues(t, n-admitted, st.Refused.AddressFull)
		require.Equal(t, st.Refused.AddressFull, st.Refused.Total())
		require.EqualValues(t, st.Accept.Polite, r.polite.Load())
		require.EqualValues(t, n-admitted, r.polite.Load()+r.status.Load()+r.closed.Load())
		require.Equal(t, addresses, st.Accept.Addresses)
		require.Zero(t, st.Accept.Uncounted)
		close(hold)
		clients.Wait()
		harness.Eventually(t, func() bool {
			st := s.Stats()
			return st.Clients == 0 && st.Total.Connections == 0 && st.Accept.Addresses == 0
		}, "a connection is left")
	})
}
