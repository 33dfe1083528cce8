package ws_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	gobwas "github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"github.com/qi-realtime/ws"
)

// A whole server, and a client that asks it something.
func Example() {
	type Question struct {
		Name string `json:"name"`
	}
	type Answer struct {
		Text string `json:"text"`
	}

	m, err := ws.NewManager(ws.WithMaxConnections(1000))
	if err != nil {
		panic(err)
	}
	err = ws.Handle(m, "greet", func(_ *ws.Client, q *Question) (*Answer, error) {
		if q.Name == "" {
			return nil, ws.NewClientError(422, "who are you?")
		}
		return &Answer{Text: "hello, " + q.Name}, nil
	})
	if err != nil {
		panic(err)
	}
	go func() { _ = m.Run() }()

	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = m.HandleUpgrade(w, r) // it has answered the request in either case
	}))
	defer server.Close()

	conn, _, _, err := gobwas.Dial(context.Background(), strings.Replace(server.URL, "http", "ws", 1))
	if err != nil {
		panic(err)
	}
	ask := func(question string) {
		if err := wsutil.WriteClientText(conn, []byte(question)); err != nil {
			panic(err)
		}
		reply, err := wsutil.ReadServerText(conn)
		if err != nil {
			panic(err)
		}
		fields := strings.Split(string(reply), `,"trace_id"`) // which differs each time, like what follows
		fmt.Println(fields[0])
	}
	ask(`{"type":"request","event":"greet","request_id":"1","data":{"name":"Ann"}}`)
	ask(`{"type":"request","event":"greet","request_id":"2","data":{}}`)
	ask(`{"type":"request","event":"dance","request_id":"3"}`)
	_ = conn.Close()

	if err := m.Shutdown(context.Background()); err != nil {
		panic(err)
	}
	// Output:
	// {"type":"response","request_id":"1","code":200,"message":"success","data":{"text":"hello, Ann"}
	// {"type":"error","request_id":"2","code":422,"message":"who are you?"
	// {"type":"error","request_id":"3","code":404,"message":"handler not found"
}

// Clients that join a room receive the messages that are published to it.
func ExampleManager_BroadcastToRoom() {
	m, err := ws.NewManager(ws.WithListenAddr("tcp://127.0.0.1:0"))
	if err != nil {
		panic(err)
	}
	err = ws.Handle0(m, "join", func(c *ws.Client, room *string) error {
		if err := c.JoinRoom(*room); err != nil {
			return err
		}
		return m.BroadcastToRoom(*room, []byte("somebody joined"), nil)
	})
	if err != nil {
		panic(err)
	}
	go func() { _ = m.Run() }()

	conn, _, _, err := gobwas.Dial(context.Background(), "ws://"+m.Addr().String()+"/ws")
	if err != nil {
		panic(err)
	}
	err = wsutil.WriteClientText(conn, []byte(`{"type":"request","event":"join","data":"lobby"}`))
	if err != nil {
		panic(err)
	}
	message, err := wsutil.ReadServerText(conn)
	if err != nil {
		panic(err)
	}
	fmt.Printf("%s\n", message)
	fmt.Println(m.BroadcastToRoom("attic", []byte("anybody?"), nil))
	_ = conn.Close()

	if err := m.Shutdown(context.Background()); err != nil {
		panic(err)
	}
	// Output:
	// somebody joined
	// ws: room not found
}

// A message that goes to many, again and again, is encoded once.
func ExamplePrepare() {
	m, err := ws.NewManager(ws.WithListenAddr("tcp://127.0.0.1:0"))
	if err != nil {
		panic(err)
	}
	go func() { _ = m.Run() }()
	conn, _, _, err := gobwas.Dial(context.Background(), "ws://"+m.Addr().String()+"/ws")
	if err != nil {
		panic(err)
	}

	tick := ws.Prepare(ws.OpText, []byte("tick"))
	m.RangeClients(func(c *ws.Client) bool {
		_ = c.SendPrepared(tick)
		_ = c.SendPrepared(tick)
		return true
	})

	for range 2 {
		message, err := wsutil.ReadServerText(conn)
		if err != nil {
			panic(err)
		}
		fmt.Printf("%s\n", message)
	}
	_ = conn.Close()
	if err := m.Shutdown(context.Background()); err != nil {
		panic(err)
	}
	// Output:
	// tick
	// tick
}

// A price feed: a client that reads too slowly gets the newest price, never a
// backlog of old ones, and none that is older than two seconds.
func ExampleManager_Publish() {
	m, err := ws.NewManager()
	if err != nil {
		panic(err)
	}
	if _, err = m.CreateRoom("prices", nil, ws.WithRoomOverflowPolicy(ws.DropOldest)); err != nil {
		panic(err)
	}
	tick := []byte(`{"pair":"EURUSD","price":1.0842}`)
	d, err := m.Publish("prices", tick, ws.ConflateKey("EURUSD"), ws.TTL(2*time.Second))
	if err != nil {
		panic(err)
	}
	<-d.Done()
	fmt.Println("queued for", d.Queued(), "members, dropped for", d.Dropped())
	// Output: queued for 0 members, dropped for 0
}
