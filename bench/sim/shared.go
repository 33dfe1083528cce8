//go:build linux

package sim

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/bench/control"
)

const (
	sharedConns = 1024
	publishers  = 1000 // that wait for space at the same time
)

// shared measures the operations in which all loops meet: tasks of the workers, the
// wait for space in a full ring, and full sockets. It needs a manager of its own.
func (s *simulation) shared() error {
	var handled atomic.Int64
	t := &simulation{config: s.config, net: ws.NewSimnet(), payload: s.payload}
	var err error
	t.manager, err = ws.NewManager(ws.WithMaxConnections(sharedConns), ws.WithLoops(s.Loops), func(c *ws.Config) {
		c.Simnet, c.HeartbeatInterval = t.net, heartbeat
		c.Broadcast.QueueSize, c.Broadcast.Timeout = 1, time.Minute
	})
	if err != nil {
		return err
	}
	t.clients = make([]*ws.Client, 0, sharedConns)
	t.manager.HandleRaw(func(*ws.Client, ws.Opcode, []byte) { handled.Add(1) })
	run := make(chan error, 1)
	go func() { run <- t.manager.Run() }() // ends with Shutdown
	t.net.Connect(sharedConns, request)
	t.net.Wait()
	t.manager.RangeClients(func(c *ws.Client) bool {
		t.clients = append(t.clients, c)
		return true
	})
	if len(t.clients) != sharedConns {
		return errors.New("not all are connected")
	}
	if s.step.TaskNanos, err = t.tasks(&handled); err != nil {
		return err
	}
	if s.step.GrantNanos, err = t.grants(); err != nil {
		return err
	}
	if s.step.BlockNanos, err = t.blocks(); err != nil {
		return err
	}
	if err := t.manager.Shutdown(context.Background()); err != nil {
		return err
	}
	return <-run
}

// tasks lets every peer send messages that workers handle.
func (s *simulation) tasks(handled *atomic.Int64) (nanos float64, err error) {
	frame := []byte{0x82, 0x84, 0, 0, 0, 0, 1, 2, 3, 4}
	n := int64(rounds(sharedConns))
	spent, err := s.cpu(func() error {
		for i := range n {
			for peer := range sharedConns {
				s.net.Send(peer, frame)
			}
			s.net.Wait()
			for handled.Load() < (i+1)*sharedConns {
				time.Sleep(10 * time.Microsecond)
			}
		}
		return nil
	})
	return float64(spent) / float64(n*sharedConns), err
}

// grants lets many publishers publish to a room of one member, whose ring is full.
func (s *simulation) grants() (nanos float64, err error) {
	if err := s.clients[0].JoinRoom("one"); err != nil {
		return 0, err
	}
	const each = least / publishers
	var failed atomic.Int64
	spent, _ := s.cpu(func() error {
		var publishing sync.WaitGroup
		for range publishers {
			publishing.Go(func() {
				for range each {
					if s.manager.BroadcastToRoom("one", s.payload, nil) != nil {
						failed.Add(1)
					}
				}
			})
		}
		publishing.Wait()
		return nil
	})
	if failed.Load() > 0 {
		err = errors.New("publishes failed")
	}
	return float64(spent) / (each * publishers), err
}

// blocks fills the sockets of all peers, and lets the peers read again.
func (s *simulation) blocks() (nanos float64, err error) {
	if err := s.joinAll(everybody, sharedConns); err != nil {
		return 0, err
	}
	n := rounds(sharedConns)
	var total time.Duration
	for range n {
		for peer := range sharedConns {
			s.net.Stall(peer)
		}
		s.net.Wait()
		start := control.CPUTime()
		if err := s.manager.BroadcastToRoom(simRoom(everybody, 0), s.payload, nil); err != nil {
			return 0, err
		}
		s.net.Wait()
		for peer := range sharedConns {
			s.net.Resume(peer)
		}
		s.net.Wait()
		total += control.CPUTime() - start
	}
	return float64(total) / float64(n*sharedConns), nil
}
