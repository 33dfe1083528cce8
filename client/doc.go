// Package client is a client for the servers of package ws: typed requests, notifications, rooms
// with positions, and a connection that mends itself.
//
// A [Client] connects again after a fault, with the waiting times that the server asks for, joins
// its rooms again at the place where it left them, and repeats the requests that are marked
// [Idempotent]. The server either sends the messages that the client has missed, or names them
// in a [Gap]. While a server is drained, the client opens the new connection before it closes
// the old one.
//
//	c, err := client.New("wss://example.com/ws")
//	if err != nil {
//		return err
//	}
//	defer c.Close()
//	room := c.Room("r1")
//	room.On("chat.message", func(n client.Notify) { ... })
//	room.OnGap(func(g client.Gap) { ... })
//	if err := c.Connect(ctx); err != nil {
//		return err
//	}
//	if _, err := room.Join(ctx, client.Last(50)); err != nil {
//		return err
//	}
//	sent, err := client.Request[Sent](ctx, c, "chat.send", Send{Room: "r1", Text: "hello"})
//
// Callbacks run one after the other on one goroutine of the client, in the order in which the
// server has sent the messages. They may call all methods. While a callback runs, later ones
// wait; when many wait, the client reads no more, so that the server sees a slow client.
//
// The order in which messages are checked, and the rules of reconnecting, are those of the
// scripts in testdata/scripts, which the TypeScript client runs, too.
package client
