//go:build linux

package main

import (
	"errors"
	"os"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"

	"github.com/qi-realtime/ws/bench/control"
)

// natsServer is a NATS server in this process, which does nothing else.
type natsServer struct {
	noRooms
	*natsserver.Server
	dir string
}

func startNATS() (*natsServer, error) {
	dir, err := os.MkdirTemp("", "bench-nats-")
	if err != nil {
		return nil, err
	}
	s, err := natsserver.NewServer(&natsserver.Options{
		Host: "127.0.0.1", Port: natsserver.RANDOM_PORT, NoSigs: true, NoLog: true, JetStream: true, StoreDir: dir,
	})
	if err != nil {
		_ = os.RemoveAll(dir)
		return nil, err
	}
	s.Start()
	if !s.ReadyForConnections(time.Minute) {
		s.Shutdown()
		_ = os.RemoveAll(dir)
		return nil, errors.New("nodes: the NATS server does not start")
	}
	return &natsServer{Server: s, dir: dir}, nil
}

func (s *natsServer) hello() *control.Report {
	return &control.Report{Native: s.ClientURL(), Library: "nats-server v" + natsserver.VERSION}
}

func (s *natsServer) stop() {
	s.Shutdown()
	s.WaitForShutdown()
	_ = os.RemoveAll(s.dir)
}

// Report implements control.Server.
func (s *natsServer) Report(r *control.Report) {
	v, err := s.Varz(nil)
	if err != nil {
		return // it never fails
	}
	r.BrokerIn, r.BrokerOut = uint64(v.InMsgs), uint64(v.OutMsgs)
	r.BrokerBytesIn, r.BrokerBytesOut = uint64(v.InBytes), uint64(v.OutBytes)
}
