// Package server is the server under load: the process that serves connections with
// this library, and the handle by which the load generator starts and asks it.
package server
