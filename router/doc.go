// Package router finds the handler for an event name, with the middleware around it, and
// reads the JSON envelope that carries the name. It knows no connections: client and message
// are type parameters.
package router
