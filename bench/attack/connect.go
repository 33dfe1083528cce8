//go:build linux

package attack

import (
	"crypto/tls"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/qi-realtime/ws/bench/load"
)

// Attacks with connections and handshakes.

// prepareHangup returns 60 requests to the handler that takes a millisecond.
func prepareHangup(*strike) any {
	var b []byte
	for range 60 {
		b = append(b, requestFrame("work", "1", `{}`)...)
	}
	return b
}

func hangup(s *strike, i int) {
	s.paced(i, 800, func(int) bool {
		if a, err := s.open("", ""); err == nil {
			_ = a.write(s.shared.([]byte))
			_ = s.sleep(hangupAfter)
			_ = a.Close()
		}
		return true
	})
}

// hangupAfter lets the server read the requests before the reset.
const hangupAfter = 50 * time.Millisecond

func authStuck(s *strike, _ int) {
	_, _ = s.open("?stuck", "") // open counts the result
}

// helloConn is a connection that keeps the bytes sent and brings none.
type helloConn struct {
	net.Conn // for the methods that a TLS client does not call
	sent     []byte
}

func (c *helloConn) Write(b []byte) (int, error)      { c.sent = append(c.sent, b...); return len(b), nil }
func (c *helloConn) Read([]byte) (int, error)         { return 0, net.ErrClosed }
func (c *helloConn) SetWriteDeadline(time.Time) error { return nil }

// prepareHello returns the first flight of a TLS handshake.
func prepareHello(*strike) any {
	c := new(helloConn)
	_ = tls.Client(c, &tls.Config{ServerName: "localhost"}).Handshake() // it fails when it reads
	return c.sent
}

// tlsTrickle sends a whole hello, and then one record, byte by byte.
func tlsTrickle(s *strike, _ int) {
	record := append([]byte{0x17, 3, 3, 0x40, 0}, make([]byte, 16<<10)...)
	for !s.over() {
		a, err := s.plain()
		if err != nil {
			return
		}
		s.connects.Add(1)
		err = a.write(s.shared.([]byte))
		a.read(1) // the server's flight, or a part
		for k := 0; err == nil && a.err == nil && s.sleep(700*time.Millisecond); k++ {
			err = a.write(record[k : k+1])
		}
		a.skip()
	}
}

// skip ends a connection that does not carry a WebSocket, and counts how it ended.
func (a *attacker) skip() {
	_ = a.SetReadDeadline(time.Now().Add(lastLook))
	for a.err == nil || isTimeout(a.err) {
		n, err := a.Read(a.buf)
		a.received.Add(uint64(n))
		if a.err = err; isTimeout(err) {
			break
		}
	}
	if isTimeout(a.err) {
		a.kept.Add(1)
	} else {
		a.end(cause(a.err))
	}
	_ = a.Close()
}

// slowHead sends half of a request, and then a header byte by byte.
func slowHead(s *strike, i int) {
	if !s.sleep(time.Duration(i) * time.Millisecond) {
		return
	}
	a, err := s.raw()
	if err != nil {
		return
	}
	s.connects.Add(1)
	err = a.write([]byte("GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nX-Wait: "))
	for err == nil && s.sleep(time.Second) {
		err = a.write([]byte("x"))
	}
	a.skip()
}

// connectFlood connects, on TLS without a hello, and sends nothing.
func connectFlood(s *strike, i int) {
	if !s.sleep(time.Duration(i) * s.Duration / 2 / time.Duration(s.Clients)) {
		return
	}
	a, err := s.plain()
	if err != nil {
		return
	}
	s.connects.Add(1)
	_ = a.SetReadDeadline(s.until)
	a.buf = a.buf[:256]
	_, a.err = a.Read(a.buf)
	if isTimeout(a.err) {
		a.kept.Add(1)
	} else {
		a.end(causeOfEnd(a.err))
	}
	_ = a.Close()
}

// causeOfEnd is the cause of the end of a connection that was open.
func causeOfEnd(err error) string {
	if err == nil {
		return "answered"
	}
	return cause(err)
}

// resets connects and ends the connection at once, or behind its request.
func resets(s *strike, i int) {
	request := []byte(load.UpgradeRequest("/ws", ""))
	s.paced(i, 2000, func(k int) bool {
		if a, err := s.plain(); err == nil {
			s.connects.Add(1)
			if k%2 == 0 {
				_ = a.write(request)
			}
			_ = a.Close()
		}
		return true
	})
}

// garbage sends noise in place of the request, and noise, unmasked and broken
// frames behind it.
func garbage(s *strike, i int) {
	rnd := rand.New(rand.NewPCG(1, uint64(i)))
	noise := make([]byte, 4096)
	unmasked := append([]byte{0x82, 125}, noise[:125]...)
	broken := load.MaskedFrame(load.OpText, []byte("hello"))
	broken[0] ^= 0x70
	s.paced(i, 500, func(k int) bool {
		for at := range noise {
			noise[at] = byte(rnd.Uint32())
		}
		if k%4 == 0 {
			if a, err := s.raw(); err == nil {
				s.connects.Add(1)
				_ = a.write(noise)
				a.skip()
			}
		} else if a, err := s.open("", ""); err == nil {
			_ = a.write([][]byte{noise, unmasked, broken}[k%4-1])
			a.finish()
		}
		return true
	})
}

// closers begin a close handshake and keep their side of the connection.
func closers(s *strike, i int) {
	var opened []*attacker
	s.paced(i, 500, func(int) bool {
		if a, err := s.open("", ""); err == nil {
			_ = a.write(load.MaskedFrame(load.OpClose, []byte{0x03, 0xE8}))
			opened = append(opened, a)
		}
		return true
	})
	var wg sync.WaitGroup
	for _, a := range opened {
		wg.Go(a.finish) // ends soon after the strike
	}
	wg.Wait()
}

// duplicates connects with one client ID, and keeps the connection for a while.
func duplicates(s *strike, i int) {
	s.paced(i, 500, func(int) bool {
		if a, err := s.open("?id=one", ""); err == nil {
			_ = s.sleep(20 * time.Millisecond)
			_ = a.Close()
		}
		return true
	})
}
