// Package conformance tests the server against RFC 6455 and RFC 7692 over real sockets. It has
// tests only.
//
// A raw client sends bytes, because no library would send such frames. Each case demands the
// exact frames of the answer, the exact close code, nothing behind the close frame, and then the
// orderly end of the TCP connection by the server. The names of the cases begin with the section
// of the RFC:
//
//	4.1, 4.2, 4.4, 11.3  the opening handshake
//	5.1, 5.2, 5.3        masks, header fields, lengths, reserved bits and opcodes
//	5.4                  fragmentation, and every order of three frames
//	5.5                  pings, pongs, and close frames as control frames
//	5.6                  messages of 64 KiB to 16 MiB, and many small ones
//	7                    the closing handshake, codes and reasons
//	8.1                  UTF-8, refused at the first byte that makes it invalid
//	10.4                 the limit of a message
//
// Together the cases cover the Autobahn test suite for servers, and are strict: each accepts one
// answer only. Most run twice, on a connection that the event loop accepted and on one that
// net/http handed over. The handler that echoes runs on the event loop, so that the order of all
// frames is known. TestPooled runs a part of the cases with the handler on workers.
//
//	go test ./conformance                     # all cases
//	go test ./conformance -run Count -v       # the number of cases, by section
//	go test ./conformance -run 'UTF8/native/8.1/fail_fast'
//	go test -tags heavy ./conformance         # with the largest fragmentation
//	go test ./conformance -run '^$' -fuzz FuzzConnection
//
// A new case is an entry in the table of its section. Its answer comes from the RFC, not from
// the library.
package conformance
