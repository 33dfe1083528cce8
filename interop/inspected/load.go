package main

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"github.com/qi-realtime/ws"
)

const (
	readers = 60
	stalled = 3
	tick    = 20 * time.Millisecond
)

// load is the clients of the server and the publisher of its messages. Safe for concurrent use.
type load struct {
	manager *ws.Manager
	url     string // of the server's WebSockets
	ctx     context.Context
	cancel  context.CancelFunc
	running sync.WaitGroup
}

func startLoad(m *ws.Manager) *load {
	l := &load{manager: m, url: "ws://" + m.Addr().String() + "/ws"}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	for i := range readers {
		rooms := fmt.Sprintf("lobby,market.%d,team-%02d", i%4, i%16)
		l.running.Go(func() { l.read(i, rooms) })
	}
	for i := range stalled {
		l.running.Go(func() { l.stall(i) })
	}
	l.running.Go(l.publish)
	l.running.Go(l.churn)
	return l
}

func (l *load) stop() {
	l.cancel()
	l.running.Wait()
}

// dial connects a client that reads through a small buffer.
func (l *load) dial(query url.Values) (*websocket.Conn, error) {
	d := websocket.Dialer{
		Subprotocols: []string{"feed.v2"}, EnableCompression: query.Get("id") == "compressed-client",
		NetDialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			var plain net.Dialer
			conn, err := plain.DialContext(ctx, network, addr)
			if tcp, ok := conn.(*net.TCPConn); ok {
				err = tcp.SetReadBuffer(8 << 10)
			}
			return conn, err
		},
	}
	conn, resp, err := d.DialContext(l.ctx, l.url+"?"+query.Encode(), nil)
	if resp != nil {
		_ = resp.Body.Close()
	}
	return conn, err
}

// read runs a client that reads everything, sends now and then, and answers a ping after some
// milliseconds.
func (l *load) read(i int, rooms string) {
	query := url.Values{"user": {fmt.Sprint(100 + i/2)}, "rooms": {rooms}}
	if i == 0 {
		query.Set("id", "compressed-client")
	}
	for l.ctx.Err() == nil {
		conn, err := l.dial(query)
		if err != nil {
			l.wait(time.Second)
			continue
		}
		delay := time.Duration(2+i*i/10) * time.Millisecond
		conn.SetPingHandler(func(payload string) error {
			time.AfterFunc(delay, func() {
				_ = conn.WriteControl(websocket.PongMessage, []byte(payload), time.Now().Add(time.Second))
			})
			return nil
		})
		end := context.AfterFunc(l.ctx, func() { _ = conn.Close() })
		l.readAll(conn)
		end()
		_ = conn.Close()
	}
}

func (l *load) readAll(conn *websocket.Conn) {
	for n := 0; ; n++ {
		if _, _, err := conn.ReadMessage(); err != nil {
			return
		}
		if n%20 == 0 {
			_ = conn.WriteMessage(websocket.TextMessage, []byte(`{"type":"request","event":"none","request_id":"1"}`))
		}
	}
}

// stall runs a client that never reads.
func (l *load) stall(i int) {
	conn, err := l.dial(url.Values{"user": {"stalled"}, "rooms": {"firehose"}, "id": {fmt.Sprintf("stalled-%d", i)}})
	if err != nil {
		return
	}
	<-l.ctx.Done()
	_ = conn.Close()
}

// publish publishes at a rate that rises and falls.
func (l *load) publish() {
	small, large := bytes.Repeat([]byte("m"), 200), bytes.Repeat([]byte("f"), 8<<10)
	for n := 0; l.wait(tick); n++ {
		_ = l.manager.BroadcastToRoom("lobby", small, nil)
		_ = l.manager.BroadcastToRoom("firehose", large, nil)
		for range n / 50 % 8 {
			room := fmt.Sprintf("market.%d", rand.IntN(4))
			_, _ = l.manager.Publish(room, small, ws.TTL(time.Second), ws.ConflateKey(room))
		}
	}
}

// churn runs clients that come and end in several ways, and requests that are refused.
func (l *load) churn() {
	codes := []int{1000, 1000, 1000, 1001, 1001, 4001, 0}
	for n := 0; l.wait(10 * tick); n++ {
		conn, err := l.dial(url.Values{"user": {"guest"}, "rooms": {"lobby"}})
		if err == nil {
			if code := codes[n%len(codes)]; code != 0 {
				_ = conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, ""), time.Now().Add(time.Second))
			}
			_ = conn.Close()
		}
		l.refused(n)
	}
}

// refused sends a request that the server refuses: each fifth with a wrong path, and each eighth
// without a user.
func (l *load) refused(n int) {
	target := strings.Replace(l.url, "ws://", "http://", 1)
	switch {
	case n%5 == 0:
		target += "/nothing"
	case n%8 != 0:
		return
	}
	req, err := http.NewRequestWithContext(l.ctx, http.MethodGet, target, nil)
	if err != nil {
		return
	}
	req.Header = http.Header{
		"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Version": {"13"},
		"Sec-Websocket-Key": {"dGhlIHNhbXBsZSBub25jZQ=="},
	}
	if resp, err := http.DefaultClient.Do(req); err == nil {
		_ = resp.Body.Close()
	}
}

// wait waits for d, and reports false if the load stops first.
func (l *load) wait(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-l.ctx.Done():
		return false
	}
}
