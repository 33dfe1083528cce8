// Command feedserver runs servers for the tests of client/ts. It prints one line of JSON with
// their URLs when they listen, and ends with its standard input. The connections of the server
// "moving" live for about a second; "strict" accepts 10 messages in a second.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"time"

	"github.com/qi-realtime/ws"
)

func main() {
	if err := run(); err != nil {
		slog.Error("feedserver", slog.Any("error", err))
		os.Exit(1)
	}
}

func run() (err error) {
	urls := map[string]string{}
	for name, opts := range map[string][]ws.Option{
		"main":   {ws.WithIdempotency(time.Minute), ws.WithInbox(ws.Inbox{Size: longHistorySize})},
		"moving": {ws.WithMaxLifetime(time.Second, time.Second/2)},
		"strict": {ws.WithRateLimit(ws.RateLimit{Messages: 10})},
	} {
		stop, url, err := start(opts...)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, stop()) }()
		urls[name] = url
	}
	if err := json.NewEncoder(os.Stdout).Encode(urls); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// start runs a manager on a free port of loopback.
func start(opts ...ws.Option) (stop func() error, url string, err error) {
	m, err := ws.NewManager(append(opts,
		ws.WithListenAddr("tcp://127.0.0.1:0"), ws.WithAuthenticate(authenticate),
		ws.WithCheckOrigin(func(*http.Request) bool { return true }), // the page comes from another port
		ws.WithLogger(slog.New(slog.DiscardHandler)),
	)...)
	if err != nil {
		return nil, "", err
	}
	if err := register(m); err != nil {
		return nil, "", err
	}
	ran := make(chan error, 1)
	go func() { ran <- m.Run() }() // ends with Shutdown below
	return func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		err := m.Shutdown(ctx)
		if errors.Is(err, context.DeadlineExceeded) { // a connection that the tests have cut does not answer
			err = nil
		}
		return errors.Join(err, <-ran)
	}, "ws://" + m.Addr().String() + "/ws", nil
}

// authenticate takes the notice from the query, as the client sends it, the user and the token.
func authenticate(r *http.Request) (opts []ws.ClientOption, err error) {
	query := r.URL.Query()
	if query.Get("notice") == "1" {
		opts = append(opts, ws.WithReconnectNotice())
	}
	if user := query.Get("user"); user != "" {
		opts = append(opts, ws.WithUser(user))
	}
	return append(opts, ws.WithMetadata("token", query.Get("token"))), nil
}
