package integration_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"strconv"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/internal/harness"
)

// needIPv6 skips a test on a machine without IPv6.
func needIPv6(t *testing.T) {
	t.Helper()
	l, err := net.Listen("tcp6", "[::1]:0")
	if err != nil {
		t.Skip("no IPv6 here: ", err)
	}
	_ = l.Close()
}

// freePort returns a port that nobody has. It is below the ports that the kernel gives to others
// meanwhile.
func freePort(t *testing.T) int {
	t.Helper()
	for range 1000 {
		port := 10_000 + rand.IntN(20_000)
		if l, err := net.Listen("tcp", fmt.Sprintf(":%d", port)); err == nil {
			require.NoError(t, l.Close())
			return port
		}
	}
	require.Fail(t, "no port is free")
	return 0
}

// Families are those of package net, whether the port is given or not.
func TestListenFamilies(t *testing.T) {
	needIPv6(t)
	for _, tt := range []struct {
		addr   string
		v4, v6 bool
	}{
		{"tcp://:%d", true, true},
		{"tcp://[::]:%d", true, true},
		{"tcp://0.0.0.0:%d", true, true},
		{":%d", true, true},
		{"tcp4://:%d", true, false},
		{"tcp4://0.0.0.0:%d", true, false},
		{"tcp6://:%d", false, true},
		{"tcp6://[::]:%d", false, true},
		{"tcp://127.0.0.1:%d", true, false},
		{"tcp4://localhost:%d", true, false},
		{"tcp://[::1]:%d", false, true},
		{"tcp6://[::1]:%d", false, true},
	} {
		for _, port := range []int{0, freePort(t)} {
			t.Run(fmt.Sprintf(tt.addr, port), func(t *testing.T) {
				addr := fmt.Sprintf(tt.addr, port)
				want := map[string]bool{"127.0.0.1": tt.v4, "::1": tt.v6}
				s := harness.Start(t, ws.WithListenAddr(addr), ws.WithLoops(3))
				for range 2 { // another process may have the port that the kernel gives, in the other family
					if port != 0 || maps.Equal(want, reached(s)) {
						break
					}
					s = harness.Start(t, ws.WithListenAddr(addr), ws.WithLoops(3))
				}
				if port != 0 {
					require.Equal(t, port, s.Addr().(*net.TCPAddr).Port)
				}
				assert.Equal(t, want, reached(s))
				c := s.Dial(harness.Native) // to the address that Addr returns
				s.RangeClients(func(sc *ws.Client) bool {
					assert.Equal(t, c.LocalAddr().(*net.TCPAddr).AddrPort().Port(), uint16(portOf(t, sc.RemoteAddr())))
					return true
				})
				_ = c.Close()
			})
		}
	}
}

// reached reports which addresses of this machine reach the port of s.
func reached(s *harness.Server) map[string]bool {
	ok := make(map[string]bool)
	for _, host := range []string{"127.0.0.1", "::1"} {
		nc, err := net.Dial("tcp", net.JoinHostPort(host, strconv.Itoa(s.Addr().(*net.TCPAddr).Port)))
		if ok[host] = err == nil; err == nil {
			_ = nc.Close()
		}
	}
	return ok
}

func portOf(t *testing.T, addr string) int {
	t.Helper()
	_, port, err := net.SplitHostPort(addr)
	require.NoError(t, err)
	n, err := strconv.Atoi(port)
	require.NoError(t, err)
	return n
}

// The two families of one port are two listeners.
func TestListenOnBothFamiliesApart(t *testing.T) {
	needIPv6(t)
	port := freePort(t)
	harness.Start(t, ws.WithListenAddr(fmt.Sprintf("tcp4://:%d", port)))
	harness.Start(t, ws.WithListenAddr(fmt.Sprintf("tcp6://:%d", port)))
	for _, addr := range []string{"tcp4://127.0.0.1:%d", "tcp6://[::1]:%d", "tcp://:%d"} {
		require.ErrorContains(t, runOn(t, fmt.Sprintf(addr, port)), "address already in use")
	}
}

// Link-local addresses have a zone, the interface by name or number.
func TestListenOnALinkLocalAddress(t *testing.T) {
	ip, iface := linkLocal(t)
	for _, zone := range []string{iface.Name, strconv.Itoa(iface.Index)} {
		for _, port := range []int{0, freePort(t)} {
			t.Run(fmt.Sprintf("%s:%d", zone, port), func(t *testing.T) {
				s := harness.Start(t, ws.WithListenAddr(fmt.Sprintf("tcp://[%s%%%s]:%d", ip, zone, port)))
				assert.Equal(t, iface.Name, s.Addr().(*net.TCPAddr).Zone)
				c := s.DialTCP(harness.Native)
				c.Upgrade()
				_ = c.Close()
			})
		}
	}
}

// linkLocal returns a link-local address of this machine.
func linkLocal(t *testing.T) (net.IP, net.Interface) {
	t.Helper()
	ifaces, err := net.Interfaces()
	require.NoError(t, err)
	for _, iface := range ifaces {
		addrs, err := iface.Addrs()
		require.NoError(t, err)
		for _, addr := range addrs {
			if ipNet, ok := addr.(*net.IPNet); ok && ipNet.IP.To4() == nil && ipNet.IP.IsLinkLocalUnicast() {
				return ipNet.IP, iface
			}
		}
	}
	t.Skip("no interface has a link-local address")
	return nil, net.Interface{}
}
