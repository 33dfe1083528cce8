// Package router finds the handler for an event name, with the middleware around it. It knows
// no connections and no encoding: client and message are type parameters.
//
// The package is a part of ws with no promise of compatibility. Programs use package ws.
package router
