// Package router finds the handler for an event name, with the middleware around it. It knows
// no connections and no encoding: client and message are type parameters.
package router
