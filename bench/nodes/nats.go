//go:build linux

package main

import (
	"errors"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"

	"github.com/qi-realtime/ws/bench/control"
)

// natsServer is a NATS server in this process, which does nothing else.
type natsServer struct {
	noRooms
	*natsserver.Server
}

func startNATS() (*natsServer, error) {
	s, err := natsserver.NewServer(&natsserver.Options{
		Host: "127.0.0.1", Port: natsserver.RANDOM_PORT, NoSigs: true, NoLog: true,
	})
	if err != nil {
		return nil, err
	}
	s.Start()
	if !s.ReadyForConnections(time.Minute) {
		s.Shutdown()
		return nil, errors.New("nodes: the NATS server does not start")
	}
	return &natsServer{Server: s}, nil
}

func (s *natsServer) hello() *control.Report {
	return &control.Report{Native: s.ClientURL(), Library: "nats-server v" + natsserver.VERSION}
}

func (s *natsServer) stop() { s.Shutdown() }

// Report implements control.Server.
func (s *natsServer) Report(r *control.Report) {
	v, err := s.Varz(nil)
	if err != nil {
		return // it never fails
	}
	r.BrokerIn, r.BrokerOut = uint64(v.InMsgs), uint64(v.OutMsgs)
	r.BrokerBytesIn, r.BrokerBytesOut = uint64(v.InBytes), uint64(v.OutBytes)
}
