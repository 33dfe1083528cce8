// Package wstest tests the handlers of a [ws.Manager] over real sockets: Start serves a
// Manager on a loopback address, and a Client sends requests to it and waits for messages.
// No call sleeps. Each wait ends when the message arrives, or fails the test after a minute.
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
