// Package soak is the command soak: it runs a server for long under changing loads and
// decides whether the server holds as much at the end as at the beginning.
package soak
