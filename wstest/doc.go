// Package wstest tests the handlers of a [ws.Manager]: Start serves a Manager on a loopback
// address, and a Client sends requests to it and waits for messages. Each wait ends when the
// message arrives, or fails the test after a minute. A [Network] takes the place of sockets
// and of time, for tests of heartbeats and timeouts.
//
//	func TestGreet(t *testing.T) {
//		m, err := newManager() // the application's own
//		if err != nil {
//			t.Fatal(err)
//		}
//		client := wstest.Start(t, m).Dial(nil)
//		reply := client.Request("greet", map[string]string{"name": "Ann"})
//		if reply.Code != 200 {
//			t.Fatalf("%d %s", reply.Code, reply.Message)
//		}
//	}
package wstest
