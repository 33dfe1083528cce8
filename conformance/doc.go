// Package conformance judges the server by RFC 6455 over real sockets. It has tests only.
//
// A raw client speaks bytes, so that it can send what no library would, and each case demands
// the exact frames of the answer, the exact close code, nothing behind the close frame, and
// then the orderly end of the TCP connection, by the server. The cases have names that begin
// with the section of the RFC:
//
//	4.1, 4.2, 4.4, 11.3  the opening handshake
//	5.1, 5.2, 5.3        masks, header fields, lengths, reserved bits and opcodes
//	5.4                  fragmentation, and every order of three frames
//	5.5                  pings, pongs, and close frames as control frames
//	5.6                  messages of 64 KiB to 16 MiB, and many small ones
//	7                    the closing handshake, codes and reasons
//	8.1                  UTF-8, refused with the first byte that cannot be right
//	10.4                 the limit of a message
//
// Together they cover what the Autobahn test suite asks of a server, strictly: nowhere is a
// second answer accepted. Most run twice, on a connection that the event loop accepted and on
// one that net/http handed over. The handler that echoes runs on the event loop, so that the
// order of all frames is known; TestPooled runs a part of the cases with the handler on workers.
//
//	go test ./conformance                     # all cases
//	go test ./conformance -run Count -v       # how many there are, by section
//	go test ./conformance -run 'UTF8/native/8.1/fail_fast'
//	go test -tags heavy ./conformance         # with the largest fragmentation
//	go test ./conformance -run '^$' -fuzz FuzzConnection
//
// A new case is a line in the table of its section. Its answer is what the RFC says, not what
// the library does.
package conformance
