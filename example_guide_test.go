package ws_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"

	gobwas "github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"github.com/qi-realtime/ws"
)

// must returns v, and panics with err if there is one.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// dialExample connects to the native path of m.
func dialExample(m *ws.Manager, header http.Header) (net.Conn, error) {
	dialer := gobwas.Dialer{Header: gobwas.HandshakeHeaderHTTP(header)}
	conn, _, _, err := dialer.Dial(context.Background(), "ws://"+m.Addr().String()+"/ws")
	return conn, err
}

// Users are known before they are connected: a token decides who the client is. A wrong one is
// refused with 401.
func ExampleWithAuthenticate() {
	tokens := map[string]int64{"Bearer of-ann": 7}
	m := must(ws.NewManager(
		ws.WithListenAddr("tcp://127.0.0.1:0"),
		ws.WithAuthenticate(func(r *http.Request) ([]ws.ClientOption, error) {
			user, ok := tokens[r.Header.Get("Authorization")]
			if !ok {
				return nil, errors.New("unknown token")
			}
			return []ws.ClientOption{ws.WithUserID(user)}, nil
		}),
	))
	m.HandleRaw(func(c *ws.Client, _ ws.Opcode, _ []byte) {
		_ = c.SendBytes([]byte("you are user " + strconv.FormatInt(c.UserID, 10)))
	})
	go func() { _ = m.Run() }()

	_, err := dialExample(m, nil)
	fmt.Println(err)
	conn := must(dialExample(m, http.Header{"Authorization": {"Bearer of-ann"}}))
	if err := wsutil.WriteClientText(conn, []byte("who am I?")); err != nil {
		panic(err)
	}
	fmt.Printf("%s\n", must(wsutil.ReadServerText(conn)))
	_ = conn.Close()
	_ = m.Shutdown(context.Background())
	// Output:
	// unexpected HTTP response status: 401
	// you are user 7
}

// Subscribers learn who comes and goes. They run one after the other on a goroutine of the event
// bus, so they may block.
func ExampleManager_Subscribe() {
	m := must(ws.NewManager(ws.WithListenAddr("tcp://127.0.0.1:0")))
	gone := make(chan struct{})
	m.Subscribe(ws.EventClientConnected, func(ws.Event) { fmt.Println("connected") })
	m.Subscribe(ws.EventClientDisconnected, func(e ws.Event) {
		fmt.Println("disconnected with", e.Data.(*ws.CloseError).Code)
		close(gone)
	})
	go func() { _ = m.Run() }()

	conn := must(dialExample(m, nil))
	closeFrame := gobwas.NewCloseFrame(gobwas.NewCloseFrameBody(gobwas.StatusGoingAway, ""))
	if err := gobwas.WriteFrame(conn, gobwas.MaskFrame(closeFrame)); err != nil {
		panic(err)
	}
	<-gone
	_ = conn.Close()
	_ = m.Shutdown(context.Background())
	// Output:
	// connected
	// disconnected with 1001
}

// Messages without the envelope, for a protocol of your own. The payload is valid until the
// handler returns.
func ExampleManager_HandleRaw() {
	m := must(ws.NewManager(ws.WithListenAddr("tcp://127.0.0.1:0"), ws.WithHandlerMode(ws.Inline)))
	m.HandleRaw(func(c *ws.Client, op ws.Opcode, payload []byte) {
		if op == ws.OpBinary {
			_ = c.SendBinary(payload)
			return
		}
		_ = c.SendBytes(append([]byte("you said: "), payload...))
	})
	go func() { _ = m.Run() }()

	conn := must(dialExample(m, nil))
	if err := wsutil.WriteClientText(conn, []byte("hello")); err != nil {
		panic(err)
	}
	fmt.Printf("%s\n", must(wsutil.ReadServerText(conn)))
	if err := wsutil.WriteClientBinary(conn, []byte{1, 2, 3}); err != nil {
		panic(err)
	}
	fmt.Printf("%v\n", must(wsutil.ReadServerBinary(conn)))
	_ = conn.Close()
	_ = m.Shutdown(context.Background())
	// Output:
	// you said: hello
	// [1 2 3]
}

// A socket that systemd has opened (socket activation): it passes descriptors from 3 on, and their
// number in LISTEN_FDS. Started by hand, the program listens by itself.
func ExampleManager_Serve() {
	m := must(ws.NewManager())
	listener := must(net.Listen("tcp", "127.0.0.1:0"))
	if os.Getenv("LISTEN_FDS") == "1" {
		listener = must(net.FileListener(os.NewFile(3, "systemd")))
	}
	go func() { _ = m.Run() }()
	served := make(chan error)
	go func() { served <- m.Serve(listener) }()

	conn, _, _, err := gobwas.Dial(context.Background(), "ws://"+listener.Addr().String()+"/ws")
	if err != nil {
		panic(err)
	}
	fmt.Println("connected")
	_ = conn.Close()
	_ = m.Shutdown(context.Background())
	fmt.Println(<-served)
	// Output:
	// connected
	// <nil>
}

// A server that stops in order: no new requests, then a close frame with 1001 for each client
// behind all that is queued for it. An http.Server does not know the connections that HandleUpgrade
// has taken, so the Manager is shut down by itself.
func ExampleManager_Shutdown() {
	m := must(ws.NewManager())
	mux := http.NewServeMux()
	mux.HandleFunc("/ws", func(w http.ResponseWriter, r *http.Request) { _ = m.HandleUpgrade(w, r) })
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	listener := must(net.Listen("tcp", "127.0.0.1:0"))
	go func() { _ = m.Run() }()
	go func() { _ = server.Serve(listener) }()
	conn, _, _, err := gobwas.Dial(context.Background(), "ws://"+listener.Addr().String()+"/ws")
	if err != nil {
		panic(err)
	}

	stopped := make(chan struct{})
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		fmt.Println(errors.Join(server.Shutdown(ctx), m.Shutdown(ctx)))
		close(stopped)
	}()
	_, err = wsutil.ReadServerText(conn) // which answers the close frame
	fmt.Println(err)
	<-stopped
	// Output:
	// ws closed: 1001 server is shutting down
	// <nil>
}

// A deploy: the clients leave one after the other, and know when to come back.
func ExampleManager_Drain() {
	m := must(ws.NewManager(ws.WithListenAddr("tcp://127.0.0.1:0")))
	go func() { _ = m.Run() }()
	conn, _, _, err := gobwas.Dial(context.Background(), "ws://"+m.Addr().String()+"/ws")
	if err != nil {
		panic(err)
	}

	config := ws.DrainConfig{
		Grace:       10 * time.Millisecond, // of the load balancer; 5 s by default
		Window:      100 * time.Millisecond,
		RetrySpread: -1,
	}
	stopped := make(chan struct{})
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		defer cancel()
		fmt.Println(errors.Join(m.Drain(ctx, config), m.Shutdown(ctx)))
		close(stopped)
	}()
	header := must(gobwas.ReadHeader(conn))
	payload := make([]byte, header.Length)
	must(io.ReadFull(conn, payload))
	code, reason := gobwas.ParseCloseFrameData(payload)
	fmt.Println(code, reason)
	if err := gobwas.WriteFrame(conn, gobwas.MaskFrame(gobwas.NewCloseFrame(payload))); err != nil {
		panic(err)
	}
	<-stopped
	fmt.Println(m.DrainStats().Closed, "closed")
	// Output:
	// 1012 {"retry_ms":0}
	// <nil>
	// 1 closed
}
