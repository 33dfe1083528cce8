package integration_test

import (
	"fmt"
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

// freePort returns a port that nobody has.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", ":0")
	require.NoError(t, err)
	require.NoError(t, l.Close())
	return l.Addr().(*net.TCPAddr).Port
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
				s := harness.Start(t, ws.WithListenAddr(addr), ws.WithLoops(3))
				bound := s.Addr().(*net.TCPAddr)
				if port != 0 {
					require.Equal(t, port, bound.Port)
				}
				for host, want := range map[string]bool{"127.0.0.1": tt.v4, "::1": tt.v6} {
					nc, err := net.Dial("tcp", net.JoinHostPort(host, strconv.Itoa(bound.Port)))
					if assert.Equal(t, want, err == nil, "%s: %v", host, err) && want {
						_ = nc.Close()
					}
				}
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
