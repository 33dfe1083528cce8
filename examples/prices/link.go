package main

import (
	"context"
	"net"
	"net/http"
	"net/http/httputil"
	"strconv"
	"sync"
	"time"
)

// maxRate is the highest rate of a link, in bytes a second: no limit in effect.
const maxRate = 100_000_000

// links are the slow links of all pages. A page chooses a name for its links, and passes it and
// the rate in the query of each connection. Safe for concurrent use.
type links struct {
	mu    sync.Mutex
	conns map[*slowConn]string // names
}

// serve passes an upgrade request on to the server at addr. The page gets the bytes of the server
// at the rate of its link. A browser reads its WebSocket even when the page is busy, so a page
// cannot be slow by itself.
func (l *links) serve(w http.ResponseWriter, r *http.Request, addr net.Addr) {
	name := r.URL.Query().Get("link")
	rate, err := strconv.Atoi(r.URL.Query().Get("rate"))
	if err != nil || !validRate(rate) || name == "" {
		http.Error(w, "link or rate is not valid", http.StatusBadRequest)
		return
	}
	proxy := httputil.ReverseProxy{
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				conn, err := new(net.Dialer).DialContext(ctx, addr.Network(), addr.String())
				if err != nil {
					return nil, err
				}
				return l.add(conn, name, rate), nil
			},
			DisableKeepAlives: true,
		},
		Rewrite: func(r *httputil.ProxyRequest) { // keeps Host, for the check of the Origin
			r.Out.URL.Scheme, r.Out.URL.Host, r.Out.URL.Path = "http", r.In.Host, "/ws"
		},
	}
	proxy.ServeHTTP(w, r)
}

func validRate(rate int) bool { return rate >= 0 && rate <= maxRate }

// add makes a slow link of conn.
func (l *links) add(conn net.Conn, name string, rate int) *slowConn {
	ended, end := context.WithCancel(context.Background())
	c := &slowConn{Conn: conn, rate: rate, rates: make(chan int, 1), ended: ended.Done()}
	c.end = func() {
		end()
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.conns, c)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conns[c] = name
	return c
}

// set changes the rate of the links of this name.
func (l *links) set(name string, rate int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c, n := range l.conns {
		if n != name {
			continue
		}
		select { // one that the reader has not seen is out of date
		case <-c.rates:
		default:
		}
		c.rates <- rate // has space, because mu is held
	}
}

// slowConn is a connection whose reader gets the bytes at a rate. One goroutine reads; Write and
// Close are safe for concurrent use.
type slowConn struct {
	net.Conn
	rate  int             // bytes a second; 0 is a stopped link
	free  time.Time       // when the link has passed the bytes that were read
	rates chan int        // new rates for the reader
	ended <-chan struct{} // closed by end
	end   func()          // ends a Read that waits, and takes the connection off the list
}

// Read reads the bytes that the link passes in a tenth of a second, at most.
func (c *slowConn) Read(p []byte) (int, error) {
	if err := c.wait(); err != nil {
		return 0, err
	}
	n, err := c.Conn.Read(p[:min(len(p), c.rate/10+1)])
	if now := time.Now(); c.free.Before(now) {
		c.free = now
	}
	c.free = c.free.Add(time.Duration(n) * time.Second / time.Duration(c.rate))
	return n, err
}

// wait returns when the link is free.
func (c *slowConn) wait() error {
	for {
		var free <-chan time.Time // never, if the link is stopped
		if c.rate > 0 {
			free = time.After(time.Until(c.free))
		}
		select {
		case <-free:
			return nil
		case c.rate = <-c.rates:
			c.free = time.Time{} // the new rate holds at once
		case <-c.ended:
			return net.ErrClosed
		}
	}
}

func (c *slowConn) Close() error {
	c.end()
	return c.Conn.Close()
}
