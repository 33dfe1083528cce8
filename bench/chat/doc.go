// Package chat is clients that speak in rooms, change rooms and reconnect, and
// check that each gets exactly the messages of a room from its entering to its
// leaving.
package chat
