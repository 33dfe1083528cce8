// Command echo runs an echo server of every kind for clients that are not written in Go. It
// prints one line of JSON when all of them listen, and ends with its standard input.
package main

import (
	"encoding/json"
	"flag"
	"io"
	"log/slog"
	"os"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/interop/clients/echoserver"
)

// server is one kind of server in the printed list.
type server struct {
	Name        string `json:"name"`
	URL         string `json:"url"`
	TLS         bool   `json:"tls"`
	NetHTTP     bool   `json:"nethttp"`
	Compression string `json:"compression"` // empty for none, else "deflate" or "takeover"
}

// list is the output of the program.
type list struct {
	Servers     []server `json:"servers"`
	Certificate string   `json:"certificate"` // PEM, of the servers with TLS
}

func main() {
	if err := run(); err != nil {
		slog.Error("echo", slog.Any("error", err))
		os.Exit(1)
	}
}

func run() error {
	limit := flag.Int("per-address", 0, "connections that one address may have; more are refused politely. 0 is no limit")
	flag.Parse()
	admission := ws.WithAdmission(ws.Admission{PerIPConnections: *limit, Polite: 100})
	identity, err := echoserver.NewIdentity()
	if err != nil {
		return err
	}
	printed := list{Certificate: string(identity.PEM)}
	for _, row := range echoserver.Rows() {
		s, err := echoserver.Start(row, identity, admission)
		if err != nil {
			return err
		}
		defer s.Close()
		printed.Servers = append(printed.Servers, server{
			Name: row.String(), URL: s.URL, TLS: row.TLS, NetHTTP: row.NetHTTP, Compression: string(row.Compression),
		})
	}
	if err := json.NewEncoder(os.Stdout).Encode(printed); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}
