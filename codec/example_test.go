package codec_test

import (
	"fmt"

	"github.com/qi-realtime/ws/codec"
)

func ExampleDecoder() {
	// The masked "Hello" of RFC 6455 section 5.7, as a read might bring it in two pieces.
	reads := [][]byte{
		{0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f},
		{0x9f, 0x4d, 0x51, 0x58},
	}
	var d codec.Decoder
	defer d.Release()
	for _, b := range reads {
		for len(b) > 0 {
			n, m, ok, err := d.Next(b, 1<<20)
			if err != nil {
				fmt.Println(codec.CloseCodeOf(err), err)
				return
			}
			b = b[n:]
			if ok {
				fmt.Printf("%v %s\n", m.Op, m.Payload)
			}
		}
		d.Done()
	}
	// Output: text Hello
}

func ExampleParseRequest() {
	b := []byte("GET /chat HTTP/1.1\r\nHost: example.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
	r, n, err := codec.ParseRequest(b, codec.HeadLimits{Bytes: 16 << 10, Lines: 128})
	if err != nil || n == 0 {
		fmt.Println("refuse, or wait for more:", err)
		return
	}
	if err := codec.CheckUpgrade(r); err != nil {
		fmt.Println("refuse:", err)
		return
	}
	fmt.Println(r.URL.Path, r.Host, codec.AcceptKey(r.Header.Get("Sec-WebSocket-Key")))
	// Output: /chat example.com s3pPLMBiTxaQ9kYGzzhZRbK+xOo=
}
