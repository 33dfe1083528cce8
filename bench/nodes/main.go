//go:build linux

// Command nodes is a node of a cluster under load, or the server of its broker: the bench command
// cluster starts them.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/redis/rueidis"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/bench/control"
	"github.com/qi-realtime/ws/bench/server"
	natsbroker "github.com/qi-realtime/ws/contrib/nats"
	redisbroker "github.com/qi-realtime/ws/contrib/redis"
)

const usage = "usage: nodes serve CONFIG-JSON\n       nodes broker CONFIG-JSON"

func main() {
	if err := run(os.Args[1:], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// run runs the command line args: a process that obeys the commands of in until there are no more.
func run(args []string, in io.Reader, out io.Writer) error {
	if len(args) != 2 {
		return errors.New(usage)
	}
	var cfg control.Config
	if err := json.Unmarshal([]byte(args[1]), &cfg); err != nil {
		return fmt.Errorf("nodes: configuration: %w", err)
	}
	switch args[0] {
	case "serve":
		broker, err := newBroker(&cfg)
		if err != nil {
			return err
		}
		return server.Serve(args[1], in, out, broker)
	case "broker":
		return serveBroker(cfg.Broker, in, out)
	}
	return errors.New(usage)
}

// newBroker returns the broker of a node, or nil if it is to have none.
func newBroker(cfg *control.Config) (ws.HistoryBroker, error) {
	addresses := strings.Split(cfg.BrokerAddr, ",")
	switch cfg.Broker {
	case "":
		return nil, nil
	case control.NATS, control.NATSFiles:
		history := natsbroker.HistoryConfig{Memory: cfg.Broker == control.NATS}
		return natsbroker.NewWithHistory(natsbroker.Config{Servers: addresses}, history)
	case control.Redis, control.Sharded:
		return redisbroker.NewHistoryBroker(redisbroker.Config{
			Options: rueidis.ClientOption{InitAddress: addresses}, Sharded: cfg.Broker == control.Sharded,
		})
	}
	return nil, fmt.Errorf("nodes: no broker %q", cfg.Broker)
}

// brokerServer is the server of a broker.
type brokerServer interface {
	control.Server
	hello() *control.Report
	stop()
}

// serveBroker is the process of the server of a broker.
func serveBroker(kind string, in io.Reader, out io.Writer) error {
	var s brokerServer
	var err error
	switch kind {
	case control.NATS, control.NATSFiles:
		s, err = startNATS()
	case control.Redis:
		s, err = startRedis(1)
	case control.Sharded:
		s, err = startRedis(redisServers)
	default:
		err = fmt.Errorf("nodes: no broker %q", kind)
	}
	if err != nil {
		return err
	}
	defer s.stop()
	return new(control.Host).Serve(s, s.hello(), in, out)
}

// noRooms is the part of control.Server that the server of a broker does not have.
type noRooms struct{}

// Publish implements control.Server.
func (noRooms) Publish(int, []byte) error {
	return errors.New("nodes: the server of a broker has no rooms")
}
