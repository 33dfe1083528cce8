package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/qi-realtime/ws"
	natsbroker "github.com/qi-realtime/ws/contrib/nats"
)

// node is one node of the cluster: in a real service, a process. Immutable.
type node struct {
	name    string
	manager *ws.Manager
	link    *tap
	addr    string // of its HTTP server
	server  *http.Server
}

// startNode starts a node with an HTTP server of its own.
func startNode(name, natsURL string) (*node, error) {
	broker, err := natsbroker.New(natsbroker.Config{Servers: []string{natsURL}})
	if err != nil {
		return nil, err
	}
	n := &node{name: name, link: newTap(broker)}
	n.manager, err = ws.NewManager(ws.WithBroker(n.link))
	if err != nil {
		return nil, err
	}
	if err := n.register(); err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	n.addr = listener.Addr().String()
	n.server = &http.Server{Handler: http.HandlerFunc(n.upgrade), ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = n.manager.Run() }()          // until stop
	go func() { _ = n.server.Serve(listener) }() // until stop
	return n, nil
}

func (n *node) upgrade(w http.ResponseWriter, r *http.Request) {
	if err := n.manager.HandleUpgrade(w, r); err != nil { // HandleUpgrade has answered the request
		slog.Debug("upgrade", "err", err)
	}
}

type (
	helloRequest struct {
		Name string `json:"name"`
	}
	helloResponse struct {
		Node string `json:"node"`
	}
	sayRequest struct {
		Room string `json:"room"`
		Text string `json:"text"`
	}
	saidMessage struct {
		From string `json:"from"`
		Node string `json:"node"` // of the sender
		Text string `json:"text"`
	}
)

// register adds the handlers. Nothing in them knows of the other nodes.
func (n *node) register() error {
	m := n.manager
	hello := func(c *ws.Client, req *helloRequest) (*helloResponse, error) {
		c.SetMetadata("name", req.Name)
		return &helloResponse{n.name}, nil
	}
	say := func(c *ws.Client, req *sayRequest) error {
		if !slices.Contains(c.GetRooms(), req.Room) {
			return ws.NewClientError(403, "join the room first")
		}
		_, err := m.PublishEvent(context.Background(), req.Room, "said", saidMessage{nameOf(c), n.name, req.Text})
		if errors.Is(err, ws.ErrBrokerUnavailable) {
			return ws.NewClientError(503, "the NATS server is away")
		}
		return err
	}
	everybody := func(*ws.Client, string) ([]ws.RoomOption, error) { return nil, nil }
	return errors.Join(ws.Handle(m, "hello", hello), ws.Handle0(m, "say", say), ws.HandleJoin(m, everybody))
}

func nameOf(c *ws.Client) string {
	v, _ := c.GetMetadata("name")
	name, _ := v.(string)
	return name
}

// nodeState is the state of a node for the page.
type nodeState struct {
	Name     string              `json:"name"`
	Clients  int                 `json:"clients"`
	Rooms    map[string][]string `json:"rooms"`    // names of the members
	Link     bool                `json:"link"`     // whether NATS is there
	Topics   []string            `json:"topics"`   // that the node subscribes to
	Received map[string]int      `json:"received"` // messages of other nodes, by topic
}

func (n *node) state() *nodeState {
	s := &nodeState{Name: n.name, Clients: n.manager.GetClientCount(), Rooms: make(map[string][]string)}
	n.manager.RangeRooms(func(r *ws.Room) bool {
		for _, c := range n.manager.GetRoomMembers(r.ID()) {
			s.Rooms[r.ID()] = append(s.Rooms[r.ID()], nameOf(c))
		}
		slices.SortFunc(s.Rooms[r.ID()], strings.Compare)
		return true
	})
	n.link.describe(s)
	return s
}

// stop ends the node as a deploy would.
func (n *node) stop() {
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
	defer cancel()
	if err := errors.Join(n.manager.Shutdown(ctx), n.server.Shutdown(ctx)); err != nil {
		slog.Warn("a node did not stop in time", "node", n.name, "err", err)
	}
}
