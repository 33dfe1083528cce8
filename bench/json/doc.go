// Package json compares JSON libraries for ws.WithJSON with encoding/json: their results, on documents that
// a client may send, and the cost of a typed request. It has tests only, and is a module of its own because of
// its dependencies.
//
//	go test -v -run Differences .
//	go test -run '^$' -bench . .
package json
