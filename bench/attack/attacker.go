//go:build linux

package attack

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/qi-realtime/ws/bench/load"
)

// target is the argument of an attacking process: the attack and the server.
type target struct {
	Name, Address string
	TLS           bool
	Duration      time.Duration
	Clients       int
	Share         float64 // of the rates
}

// tally counts the successes of the attackers of a process.
type tally struct {
	Connects uint64            // connections that were upgraded, or made if the attack upgrades none
	Kept     uint64            // connections that were still open at the end
	Ended    map[string]uint64 // connections that the server ended, by close code, HTTP status or error
	Sent     uint64            // bytes that the server's kernel took
	Received uint64            // bytes
	Answers  uint64            // data frames
}

// strike is an attack that is under way. Safe for concurrent use.
type strike struct {
	target
	until  time.Time
	stalls bool // the connections hold little
	shared any  // data that the attack prepared for all of its clients

	connects, kept, sent, received, answers atomic.Uint64

	mu    sync.Mutex
	ended map[string]uint64 // guarded by mu
}

// Strike is the hidden command: it runs an attack to its end and prints the
// tally.
func Strike(arg string, out io.Writer) error {
	s := &strike{ended: make(map[string]uint64)}
	if err := json.Unmarshal([]byte(arg), &s.target); err != nil {
		return err
	}
	a := attackNamed(s.Name)
	if a == nil {
		return fmt.Errorf("bench: no attack %q", s.Name)
	}
	s.until, s.stalls = time.Now().Add(s.Duration), a.stalls
	if a.prepare != nil {
		s.shared = a.prepare(s)
	}
	var wg sync.WaitGroup
	for i := range s.Clients {
		wg.Go(func() { a.client(s, i) }) // ends soon after s.until
	}
	wg.Wait()
	return json.NewEncoder(out).Encode(tally{
		Connects: s.connects.Load(), Kept: s.kept.Load(), Ended: s.ended,
		Sent: s.sent.Load(), Received: s.received.Load(), Answers: s.answers.Load(),
	})
}

// over reports whether the attack's time is over.
func (s *strike) over() bool { return time.Now().After(s.until) }

// sleep waits for d, but not beyond the attack's end, and reports whether that
// has not come.
func (s *strike) sleep(d time.Duration) bool {
	<-time.After(min(d, max(0, time.Until(s.until))))
	return !s.over()
}

// paced calls f at a rate for all clients together, until f returns false or the
// end: client i has every Clients-th call. A call that is more than a second late
// is left out.
func (s *strike) paced(i int, rate float64, f func(k int) bool) {
	rate *= s.Share
	interval := time.Duration(float64(s.Clients) / rate * float64(time.Second))
	due := time.Now().Add(interval * time.Duration(i) / time.Duration(s.Clients))
	for k := 0; s.sleep(time.Until(due)) && f(k); k++ {
		if due = due.Add(interval); time.Since(due) > time.Second {
			due = time.Now()
		}
	}
}

// end counts a connection that the server has ended, or refused.
func (s *strike) end(why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended[why]++
}

// attacker is one connection of a strike. Not safe for concurrent use, except
// that one goroutine may write while another reads.
type attacker struct {
	*strike
	net.Conn
	parser load.Parser
	buf    []byte
	code   string // of the server's close frame
	err    error  // that ended reading
}

// raw connects, and speaks TLS if the server does.
func (s *strike) raw() (*attacker, error) {
	a, err := s.plain()
	if err == nil && s.TLS {
		a.Conn = insecure(a.Conn)
	}
	return a, err
}

// insecure speaks TLS to a server that makes its certificate itself.
func insecure(conn net.Conn) net.Conn {
	return tls.Client(conn, &tls.Config{InsecureSkipVerify: true})
}

// plain connects, without TLS.
func (s *strike) plain() (*attacker, error) {
	ctx, cancel := context.WithDeadline(context.Background(), s.until)
	defer cancel()
	d := new(net.Dialer)
	if s.stalls {
		d.Control = func(_, _ string, c syscall.RawConn) error {
			return c.Control(func(fd uintptr) { load.HoldLittle(int(fd)) })
		}
	}
	conn, err := d.DialContext(ctx, "tcp4", s.Address)
	if err != nil {
		if !s.over() {
			s.end("connect: " + cause(err))
		}
		return nil, err
	}
	_ = conn.(*net.TCPConn).SetLinger(0) // the end is a reset: no port lingers
	_ = conn.SetDeadline(s.until)
	return &attacker{strike: s, Conn: conn, buf: make([]byte, 4096)}, nil
}

// errRefused is an upgrade that the server refused; it was counted.
var errRefused = errors.New("bench: refused")

// open connects and upgrades.
func (s *strike) open(query, headers string) (*attacker, error) {
	a, err := s.raw()
	if err != nil {
		return nil, err
	}
	if err := a.upgrade(query, headers); err != nil {
		_ = a.Close()
		return nil, err
	}
	return a, nil
}

func (a *attacker) upgrade(query, headers string) error {
	if err := a.write([]byte(load.UpgradeRequest("/ws"+query, headers))); err != nil {
		a.failed(err)
		return err
	}
	n := 0
	for {
		more, err := a.Read(a.buf[n:])
		n += more
		head, rest, whole := bytes.Cut(a.buf[:n], []byte("\r\n\r\n"))
		switch {
		case whole && bytes.HasPrefix(head, []byte("HTTP/1.1 101 ")):
			a.connects.Add(1)
			a.take(rest)
			return nil
		case whole && len(head) > 12:
			a.end("HTTP " + string(head[9:12]))
			return errRefused
		case err != nil:
			a.failed(err)
			return err
		}
	}
}

// write sends b and counts it.
func (a *attacker) write(b []byte) error {
	n, err := a.Write(b)
	a.sent.Add(uint64(n))
	return err
}

// take looks at bytes from the server.
func (a *attacker) take(b []byte) {
	a.received.Add(uint64(len(b)))
	for len(b) > 0 && a.code == "" {
		rest, f, ok, err := a.parser.Next(b)
		if err != nil {
			a.code = "nonsense"
			return
		}
		b = rest
		switch {
		case ok && f.Op < load.OpClose:
			a.answers.Add(1)
		case ok && f.Op == load.OpClose && len(f.Head) >= 2:
			a.code = strconv.Itoa(int(binary.BigEndian.Uint16(f.Head)))
		case ok && f.Op == load.OpClose:
			a.code = "1005"
		}
	}
}

// read reads until the connection ends, or the attack, or the limit.
func (a *attacker) read(limit int) {
	for limit > 0 {
		n, err := a.Read(a.buf)
		a.take(a.buf[:n])
		if a.err = err; err != nil {
			return
		}
		limit -= n
	}
}

// reading reads on a goroutine of its own; the function that it returns waits
// for its end.
func (a *attacker) reading() (wait func()) {
	done := make(chan struct{})
	a.buf = make([]byte, 16<<10)
	go func() { // ends with the connection, or at the attack's end
		defer close(done)
		a.read(1 << 40)
	}()
	return func() { <-done }
}

// againAfter is how long an attacker waits before it connects again.
const againAfter = 20 * time.Millisecond

// reconnecting opens a connection that is read, and lets act write to it; when
// that returns and the attack is not over, it does so again.
func (s *strike) reconnecting(headers string, act func(a *attacker)) {
	for again := true; again; again = s.sleep(againAfter) {
		a, err := s.open("", headers)
		if err != nil {
			continue
		}
		wait := a.reading()
		act(a)
		if !s.over() { // the server may have sent the reason
			_ = a.SetReadDeadline(time.Now().Add(lastLook))
		}
		wait()
		a.finish()
	}
}

// lastLook is how long finish reads.
const lastLook = 100 * time.Millisecond

// finish reads a little, to see whether the server has ended the connection,
// counts how that was, and ends it with a reset.
func (a *attacker) finish() {
	if a.err == nil || isTimeout(a.err) {
		_ = a.SetReadDeadline(time.Now().Add(lastLook))
		a.read(1 << 20)
	}
	switch {
	case a.code != "":
		a.end(a.code)
	case a.err == nil || isTimeout(a.err):
		a.kept.Add(1)
	default:
		a.end(cause(a.err))
	}
	_ = a.Close()
}

// failed counts a connection that ended before it was upgraded.
func (a *attacker) failed(err error) {
	if isTimeout(err) {
		a.kept.Add(1)
		return
	}
	a.end("before the upgrade: " + cause(err))
}

func isTimeout(err error) bool {
	var n net.Error
	return errors.As(err, &n) && n.Timeout()
}

// cause is an error without the addresses in it.
func cause(err error) string {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		err = op.Err
	}
	return err.Error()
}
