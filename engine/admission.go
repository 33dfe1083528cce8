package engine

import (
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/qi-realtime/ws/codec"
	"github.com/qi-realtime/ws/internal/addrlimit"
	"github.com/qi-realtime/ws/internal/invariants"
)

// The limits of an address are applied as soon as the address is known, and before
// anything is done for the connection: AdmitAddress decides and counts. A counted
// connection has the flag counted until Uncount, which detach calls. Its address does
// not change meanwhile.
//
// A peer of the native path is refused without a Conn, an owner or a TLS handshake,
// and its permit of the pace goes to the next one. If the handler wants to refuse it
// politely, its request is read, and Handler.Screen answers.

// The refusals of an address beyond its limits.
var (
	ErrAddressRate = &codec.RequestError{Status: http.StatusTooManyRequests, Reason: addressRefused}
	ErrAddressFull = &codec.RequestError{Status: http.StatusTooManyRequests, Reason: addressRefused}
)

const addressRefused = "too many connections from this address"

// newAddressTable returns the table of the limits by address, nil if there are none.
// The peers of a Simnet share an address that says nothing.
func newAddressTable(cfg *Config) *addrlimit.Table {
	if cfg.Simnet != nil {
		return nil
	}
	return addrlimit.New(addrlimit.Limits{
		PerSecond: cfg.AdmissionPerIP, Burst: max(1, cfg.AdmissionPerIPBurst),
		Connections: cfg.AdmissionPerIPConnections, Places: cfg.MaxConnections,
	})
}

// AdmitAddress decides on one more connection of a peer at addr: it returns ErrAddressRate
// or ErrAddressFull, or nil. If it has counted the connection, LeaveAddress must follow, or
// SetCounted. A zero addr, as of a Unix socket, has no limit. A refusal allocates nothing.
// Safe for concurrent use.
func (e *Engine) AdmitAddress(addr netip.Addr) (counted bool, err error) {
	key := addrlimit.KeyOf(addr)
	if e.addresses == nil || key == 0 {
		return false, nil
	}
	switch e.addresses.Admit(key, e.elapsed()) {
	case addrlimit.Counted:
		return true, nil
	case addrlimit.TooFast:
		return false, ErrAddressRate
	case addrlimit.TooMany:
		return false, ErrAddressFull
	case addrlimit.Uncounted:
	}
	return false, nil
}

// LeaveAddress ends a connection that AdmitAddress has counted. Safe for concurrent use.
func (e *Engine) LeaveAddress(addr netip.Addr) {
	if !e.addresses.Leave(addrlimit.KeyOf(addr)) && invariants.Enabled {
		panic("engine: an address has no connection that could leave")
	}
}

// SetCounted gives c, before Enroll, the address of a peer that AdmitAddress has counted.
// If c does not come to Enroll, Uncount must follow.
func (c *Conn) SetCounted(addr netip.AddrPort) {
	c.setPeer(addr)
	c.set(counted)
}

// Uncount ends the count of c, if it is counted. The caller is the only user of c.
func (e *Engine) Uncount(c *Conn) {
	if c.is(counted) {
		c.unset(counted)
		e.LeaveAddress(c.peerAddr().Addr())
	}
}

// admitArrival decides by its address on a peer that a loop has accepted. It returns
// false if the peer is refused and its socket is to be closed. On a proxy that reports
// its clients, admitClient decides later.
func (e *Engine) admitArrival(fd int, socket net.Addr, a *arrival) (in bool) {
	if e.addresses == nil {
		return true
	}
	addr := a.peer.Addr()
	if tcp, ok := socket.(*net.TCPAddr); ok && !addr.IsValid() {
		addr = tcp.AddrPort().Addr()
	}
	if e.reportsClients(addr) {
		return true
	}
	if a.flags, in = e.admitOrTurnAway(addr); !in {
		e.refuseAddress(fd)
	}
	return in
}

// admitClient decides by its address on the client that a proxy has reported. It
// returns false if the client is refused.
func (c *Conn) admitClient() (in bool) {
	e := c.shard.eng
	flags, in := e.admitOrTurnAway(c.peerAddr().Addr())
	c.set(flags)
	if !in {
		c.refuse(e.addressRefusal())
	}
	return in
}

// admitOrTurnAway decides on a peer at addr. It returns the flags of its connection, or
// false if the peer is refused.
func (e *Engine) admitOrTurnAway(addr netip.Addr) (flags connFlags, in bool) {
	isCounted, err := e.AdmitAddress(addr)
	switch {
	case isCounted:
		return counted, true
	case err == nil:
		return 0, true
	case e.handler.TurnAway(addr, err):
		return turnedAway, true
	}
	e.accept.takeBack()
	return 0, false
}

// takeBack takes the permit of a connection back that was refused because of its
// address. So an address beyond its limits takes nothing of the pace of others.
func (g *acceptGate) takeBack() {
	if g.pace.perSecond == 0 {
		return
	}
	g.mu.Lock()
	defer g.unlock()
	g.pace.tokens = min(g.pace.burst, g.pace.tokens+1)
	g.serveLocked(time.Now())
}

// refuseAddress answers the peer of a socket whose address is beyond its limits.
func (e *Engine) refuseAddress(fd int) {
	if e.cfg.TLSConfig != nil {
		endSocket(fd, nil)
		return
	}
	endSocket(fd, e.addressRefusal())
}

// addressRefusal returns one of the rendered answers, shared.
func (e *Engine) addressRefusal() []byte { return e.refusals[rand.IntN(len(e.refusals))] }

// addressRefusals are rendered answers to peers beyond the limits of their address. They
// differ in the time after which the peer may come back.
type addressRefusals [16][]byte

func newAddressRefusals() (a addressRefusals) {
	for i := range a {
		a[i] = renderRefusal(ErrAddressRate)
	}
	return a
}

// endSocket writes an answer, which may be nil, to a socket that is about to be closed, and
// ends the stream. It reads the bytes that have come, because the close would reset the
// connection otherwise, and the peer might lose the answer.
func endSocket(fd int, answer []byte) {
	if answer != nil {
		_, _ = unix.Write(fd, answer)
	}
	_ = unix.Shutdown(fd, unix.SHUT_WR)
	drainDescriptor(fd)
}

// RetryAfter returns a time after which a refused client may come back, at random, so
// that clients that were refused together come back apart. A server that stops sends
// its clients to another one, so they need not wait for long.
func RetryAfter(stopping bool) time.Duration {
	if stopping {
		return time.Second + rand.N(4*time.Second)
	}
	return 5*time.Second + rand.N(25*time.Second)
}

// retryHeader returns the header of a refusal that is not for ever, or nil.
func retryHeader(err *codec.RequestError) http.Header {
	switch err.Status {
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		seconds := RetryAfter(err == errStopping) / time.Second
		return http.Header{"Retry-After": {strconv.Itoa(int(seconds))}}
	}
	return nil
}
