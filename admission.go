package ws

import (
	"errors"
	"io"
	"log/slog"
	"maps"
	"math"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/qi-realtime/ws/codec"
	"github.com/qi-realtime/ws/engine"
)

// Admission is the policy that accepts new connections, those of ListenAddr, Serve and
// HandleUpgrade together. Each of its limits is off if it is 0.
//
// The first two make connections wait: one of ListenAddr in the kernel's backlog, until the
// event loops accept again, and HandleUpgrade for its turn. PerIP and PerIPConnections refuse
// with HTTP 429 (Too Many Requests). An address is one IPv4 address, or one IPv6 network of 64
// bits, which a provider gives to one customer. Many clients may share an address, such as those
// of an office or a mobile network: choose the limits for them. Unix sockets have no address and
// no such limit. On ListenAddr and Serve a connection counts from its accept to its end, and those
// of health checks count, too. A refusal costs no TLS handshake, no request is read, and it takes
// no turn of PerSecond; with TLS the connection is closed without an answer, because
// the client could not read it. In HandleUpgrade a connection counts from the call to its end.
//
// Behind WithTrustedProxies the address is the client's. It is known, and the client counts or
// is refused, from the header of the PROXY protocol on, which comes before TLS, or from the
// upgrade request on. A connection of a trusted proxy that reports no client has no limit.
//
// All refusals for want of capacity (MaxConnections, these limits, a turn that does not come in
// time, a server that stops) have the header Retry-After, with a random time.
type Admission struct {
	// PerSecond is the number of connections that are accepted each second; more wait.
	PerSecond float64
	// Burst is the number of connections that are accepted at once after a quiet
	// time. 0, the default, is a tenth of PerSecond, at least 1. A burst below the
	// connections of a few milliseconds makes the pace slower than PerSecond, because
	// timers are not finer.
	Burst int
	// PerIP is the number of connections that one address may make each second; more are
	// refused. A refused connection does not count.
	PerIP float64
	// PerIPBurst is the number that one address may make at once after a quiet time. 0, the
	// default, is the number of ten seconds, at least 1.
	PerIPBurst int
	// PerIPConnections is the number of open connections that one address may have; more are
	// refused.
	//
	// The table of the addresses has a fixed size: 20 bytes for at least twice MaxConnections, or
	// 8,192 if that is more. It never refuses an address for want of space, and never forgets an
	// address with open connections. A client that comes when there is no place, which takes
	// connections of more addresses than MaxConnections, is not limited, and
	// AcceptStats.Uncounted counts it. An address without connections may be forgotten while its
	// burst is not whole.
	PerIPConnections int
	// Authentications is the number of calls of Authenticate and CheckOrigin that run at once.
	// More wait for their turn, in order, under HandshakeTimeout. A call that goes on although its
	// time is over gives its turn to another one, so up to twice as many may run. 0, the
	// default, is Config.Workers.
	Authentications int
	// Polite is the number of clients that are refused politely each second: a browser reads
	// neither the status nor the header of a refused upgrade, so its upgrade is accepted, and
	// the connection closed at once with code 1013 and the reason {"retry_ms":n}, where n is
	// random. It applies to refusals for want of capacity; all beyond the number get their
	// HTTP status. As many as in one second may come at once, but at least 1. A polite refusal
	// costs a TLS handshake, and a connection for up to a second. Neither Authenticate nor
	// CheckOrigin runs for it.
	Polite float64
}

func (a *Admission) validate() error {
	return firstError(
		validAdmissionRate("Admission.PerSecond", a.PerSecond),
		between("Admission.Burst", a.Burst, 0, math.MaxInt32),
		invalidIf(a.Burst > 0 && a.PerSecond == 0, "Admission.Burst", "needs PerSecond"),
		validAdmissionRate("Admission.PerIP", a.PerIP),
		between("Admission.PerIPBurst", a.PerIPBurst, 0, math.MaxInt32),
		invalidIf(a.PerIPBurst > 0 && a.PerIP == 0, "Admission.PerIPBurst", "needs PerIP"),
		between("Admission.PerIPConnections", a.PerIPConnections, 0, math.MaxInt32),
		between("Admission.Authentications", a.Authentications, 0, math.MaxInt32),
		validAdmissionRate("Admission.Polite", a.Polite),
	)
}

func validAdmissionRate(field string, rate float64) error {
	return invalidIf(!(rate >= 0 && rate <= math.MaxInt32), field, "must be at least 0 and finite")
}

func (a Admission) withDefaults() Admission {
	if a.Burst == 0 {
		a.Burst = max(1, int(a.PerSecond/10))
	}
	if a.PerIPBurst == 0 {
		a.PerIPBurst = max(1, int(min(10*a.PerIP, math.MaxInt32)))
	}
	return a
}

// admission is the part of a Manager that refuses clients for want of capacity. Safe for
// concurrent use.
type admission struct {
	polite  bucket        // of Admission.Polite
	created time.Time     // time 0 of last
	closes  atomic.Uint64 // polite refusals
	warned  atomic.Int64  // time of the last warning, since created

	mu      sync.Mutex
	missing float64       // in polite; guarded by mu
	last    time.Duration // time of missing; guarded by mu
}

func newAdmission(a *Admission) *admission {
	return &admission{
		polite: bucket{a.Polite, max(1, a.Polite)}, created: time.Now(),
	}
}

// takePolite takes a polite refusal, if there is one left.
func (a *admission) takePolite() bool {
	if a.polite.rate == 0 {
		return false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Since(a.created)
	missing := a.polite.refill(a.missing, now-a.last)
	if !a.polite.has(missing, 1) {
		return false
	}
	a.missing, a.last = a.polite.take(missing, 1), now
	return true
}

// warnInterval is the time between two warnings of refused addresses.
const warnInterval = 10 * time.Second

// warnOfAddress logs that addr is beyond its limits, once in each warnInterval. refused is the
// number of refusals for that reason so far.
func (m *Manager) warnOfAddress(addr netip.Addr, why refusalReason, refused uint64) {
	a := m.admission
	now, last := int64(time.Since(a.created)), a.warned.Load()
	if last != 0 && now-last < int64(warnInterval) || !a.warned.CompareAndSwap(last, max(1, now)) {
		return
	}
	limit := "PerIP"
	if why == refusedAddressFull {
		limit = "PerIPConnections"
	}
	m.cfg.Logger.Warn("ws: connections of an address are refused", slog.String("limit", limit),
		slog.String("address", addr.String()), slog.Uint64("refused", refused))
}

// forCapacity reports whether the refusal is one for want of capacity.
func (why refusalReason) forCapacity() bool {
	return why == refusedFull || why == refusedStopped || why == refusedAddressRate || why == refusedAddressFull
}

// addressReason returns the reason for a refusal of AdmitAddress.
func addressReason(err error) refusalReason {
	if errors.Is(err, engine.ErrAddressFull) {
		return refusedAddressFull
	}
	return refusedAddressRate
}

// TurnAway counts a peer that is refused because of its address, and takes a polite refusal
// for it.
func (h *engineHandler) TurnAway(addr netip.Addr, err error) (polite bool) {
	m, why := (*Manager)(h), addressReason(err)
	m.warnOfAddress(addr, why, m.refusals[why].Add(1))
	return m.admission.takePolite()
}

// politely returns the answer that refuses r politely because of e, or nil if it is refused with
// an HTTP status.
func (m *Manager) politely(r *http.Request, e *HandshakeError) []byte {
	if !e.why.forCapacity() {
		return nil
	}
	accept, ok := m.politeAccept(r)
	if !ok || !m.admission.takePolite() {
		return nil
	}
	return m.politeAnswer(r, accept, e.why)
}

// politeAccept returns the answer that would accept r, if it is an opening handshake of a page
// that may connect, as far as that needs no code of the application.
func (m *Manager) politeAccept(r *http.Request) (accept codec.Accept, ok bool) {
	if codec.CheckUpgrade(r) != nil || m.cfg.CheckOrigin == nil && m.cfg.checkOrigin(r) != nil {
		return accept, false
	}
	h, err := m.cfg.negotiate(r, clientOptions{})
	return h.accept, err == nil
}

// politeAnswer returns the 101, with the close frame behind it.
func (m *Manager) politeAnswer(r *http.Request, accept codec.Accept, why refusalReason) []byte {
	m.admission.closes.Add(1)
	wait := engine.RetryAfter(why == refusedStopped)
	return codec.AppendClose(codec.AppendAccept(nil, r, accept), codec.CloseTryAgainLater, retryReason(wait))
}

// refuseOverHTTP answers a request of net/http that is refused.
func (m *Manager) refuseOverHTTP(w http.ResponseWriter, r *http.Request, e *HandshakeError) {
	if answer := m.politely(r, e); answer != nil && writePolitely(w, answer) == nil {
		return
	}
	maps.Copy(w.Header(), e.Header)
	http.Error(w, e.Reason, e.Status)
}

const (
	// politeTime is the time that the peer of a polite refusal has to end the connection.
	politeTime = time.Second
	// politeBytes bounds the bytes that are read from it meanwhile.
	politeBytes = 64 << 10
)

// writePolitely takes the connection from net/http, writes the answer of a polite refusal, and
// waits until the client has closed. After an error w can still be used.
func writePolitely(w http.ResponseWriter, answer []byte) error {
	nc, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return err
	}
	defer func() { _ = nc.Close() }()
	_ = nc.SetDeadline(time.Now().Add(politeTime))
	_, _ = nc.Write(answer)
	if half, ok := nc.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(nc, politeBytes))
	return nil
}

// addrPortOf returns the address of a request of net/http, the zero value if it has none.
func addrPortOf(r *http.Request) netip.AddrPort {
	if addr, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		return addr
	}
	addr, _ := netip.ParseAddr(r.RemoteAddr) // middleware may have set it
	return netip.AddrPortFrom(addr, 0)
}

// admitAddress applies the limits of the address of r, which is the client's. If it has counted
// the connection, counted is valid, and the caller must end the count.
func (m *Manager) admitAddress(r *http.Request) (counted netip.AddrPort, err error) {
	addr := addrPortOf(r)
	if codec.TrustedProxies(m.cfg.TrustedProxies).Trusts(addr.Addr()) {
		return netip.AddrPort{}, nil // it has not named its client
	}
	ok, err := m.engine.AdmitAddress(addr.Addr())
	if err != nil {
		why := addressReason(err)
		m.warnOfAddress(addr.Addr(), why, m.refusals[why].Load()+1) // HandleUpgrade adds it
		return netip.AddrPort{}, asHandshakeError(err)
	}
	if !ok {
		return netip.AddrPort{}, nil
	}
	return addr, nil
}
