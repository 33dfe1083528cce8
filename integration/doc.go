// Package integration tests whole managers over real sockets: order, slow clients, shutdown, random
// operations, and loads. It has tests only.
//
//	go test ./integration
//	go test -tags heavy -run Heavy ./integration    # larger loads, minutes
package integration
