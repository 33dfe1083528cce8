package cluster_test

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"github.com/qi-realtime/ws"
	natsbroker "github.com/qi-realtime/ws/contrib/nats"
	redisbroker "github.com/qi-realtime/ws/contrib/redis"
)

// nodeConfig is the configuration of a node, as JSON.
type nodeConfig struct {
	Name, Address string
	Broker        brokerConfig
	Rooms         int           // in which it publishes
	Every         time.Duration // between the messages in a room
	Window        time.Duration // of a drain
	Heartbeat     time.Duration // of the node; 0 for 500 ms
	Presence      bool          // of each room that is joined
	History       int           // messages in the history of each room; 0 for none
}

// brokerConfig names the servers of a broker.
type brokerConfig struct {
	NATS     []string // URLs
	Prefix   string   // of the subjects; empty for the default
	Replicas int      // NATS servers that store each history; 0 for the default
	Redis    []string // addresses
	Master   string   // that the addresses, of Sentinels, know; empty without Sentinels
}

func (c brokerConfig) open(history bool) (ws.Broker, error) {
	cfg := natsbroker.Config{Servers: c.NATS, Prefix: c.Prefix}
	switch {
	case c.NATS != nil && history:
		return natsbroker.NewWithHistory(cfg, natsbroker.HistoryConfig{Streams: 4, Replicas: c.Replicas})
	case c.NATS != nil:
		return natsbroker.New(cfg)
	}
	o := rueidis.ClientOption{InitAddress: c.Redis}
	o.Sentinel.MasterSet = c.Master
	if history {
		return redisbroker.NewHistoryBroker(redisbroker.Config{Options: o})
	}
	return redisbroker.New(redisbroker.Config{Options: o})
}

// message is the data of each message. Publisher and N name it in its room: a publisher counts from
// 1, and skips no number but those in nodeState.Unsure.
type message struct {
	Publisher string // the name of the node, and its start
	N         int
	Started   int64 // of the publisher, in Unix nanoseconds
	Sent      int64 // in Unix nanoseconds
}

// event is the name of the messages.
const event = "numbered"

// roomName returns the name of a room.
func roomName(i int) string { return fmt.Sprint("room ", i) }

// nodeState is the answer of a node to a command.
type nodeState struct {
	Publisher string
	Last      map[string]int   // the number of the last message, by room
	Unsure    map[string][]int // numbers of messages whose publish in a room with a history has failed
	Refused   int              // publishes that returned ErrBrokerUnavailable
	Failed    int              // publishes that returned another error
	Clients   int
	Rooms     int // with members
	Nodes     int // that are alive, with this one
	Present   int // users that are present in room 0
	Cluster   ws.ClusterStats
}

// node is the program of a node. Safe for concurrent use.
type node struct {
	cfg       nodeConfig
	manager   *ws.Manager
	publisher string
	started   int64

	quiet   atomic.Bool
	refused atomic.Int64
	failed  atomic.Int64

	mu     sync.Mutex
	last   map[string]int   // guarded by mu
	unsure map[string][]int // guarded by mu
}

// runNode serves until the standard input ends, or a drain has ended.
func runNode(config string) {
	n := &node{started: time.Now().UnixNano(), last: make(map[string]int), unsure: make(map[string][]int)}
	n.quiet.Store(true)
	if err := errors.Join(json.Unmarshal([]byte(config), &n.cfg), n.open()); err != nil {
		panic(err)
	}
	n.publisher = fmt.Sprint(n.cfg.Name, ".", n.started)
	go func() { // until the end of the process
		if err := n.manager.Run(); err != nil {
			panic(err)
		}
	}()
	for n.manager.Addr() == nil {
		<-time.After(time.Millisecond)
	}
	for i := range n.cfg.Rooms {
		go n.publish(roomName(i)) // until the end of the process
	}
	fmt.Println("ready")
	for commands := bufio.NewScanner(os.Stdin); commands.Scan(); {
		n.obey(commands.Text())
	}
}

// open makes the Manager.
func (n *node) open() error {
	broker, err := n.cfg.Broker.open(n.cfg.History > 0)
	if err != nil {
		return err
	}
	n.manager, err = ws.NewManager(
		ws.WithListenAddr("tcp://"+n.cfg.Address), ws.WithBroker(broker),
		ws.WithCluster(ws.ClusterConfig{Name: n.cfg.Name, Heartbeat: cmp.Or(n.cfg.Heartbeat, 500*time.Millisecond)}),
		ws.WithLogger(slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelInfo}))),
		ws.WithAuthenticate(func(r *http.Request) ([]ws.ClientOption, error) {
			var options []ws.ClientOption
			if r.URL.Query().Get("notice") == "1" {
				options = append(options, ws.WithReconnectNotice())
			}
			if user := r.URL.Query().Get("user"); user != "" {
				options = append(options, ws.WithUser(user))
			}
			return options, nil
		}))
	if err != nil {
		return err
	}
	for i := range n.cfg.Rooms {
		if opts := n.roomOptions(); opts != nil {
			if _, err := n.manager.CreateRoom(roomName(i), nil, opts...); err != nil {
				return err
			}
		}
	}
	return ws.HandleJoin(n.manager, func(*ws.Client, string) ([]ws.RoomOption, error) { return n.roomOptions(), nil })
}

func (n *node) roomOptions() (options []ws.RoomOption) {
	if n.cfg.History > 0 {
		options = append(options, ws.WithHistory(ws.History{Size: n.cfg.History, Bytes: 1 << 20}))
	}
	if n.cfg.Presence {
		options = append(options, ws.WithPresence(ws.Presence{List: true}))
	}
	return options
}

// publish publishes in a room. A number is used until it is accepted; in a room with a history, where
// a message that was refused is possibly stored, once.
func (n *node) publish(room string) {
	next := 1
	for range time.Tick(n.cfg.Every) {
		if n.quiet.Load() {
			continue
		}
		now := time.Now().UnixNano()
		_, err := n.manager.PublishEvent(context.Background(), room, event, message{n.publisher, next, n.started, now})
		refused := errors.Is(err, ws.ErrBrokerUnavailable) || errors.Is(err, ws.ErrManagerStopped)
		switch {
		case refused:
			n.refused.Add(1)
		case err != nil:
			n.failed.Add(1)
		}
		if refused && n.cfg.History == 0 { // nobody gets it
			continue
		}
		n.mu.Lock()
		if err == nil || n.cfg.History == 0 {
			n.last[room] = next
		} else {
			n.unsure[room] = append(n.unsure[room], next)
		}
		n.mu.Unlock()
		next++
	}
}

// obey runs a command and prints the answer.
func (n *node) obey(command string) {
	ctx := context.Background()
	switch command {
	case "state":
	case "publish":
		n.quiet.Store(false)
	case "quiet":
		n.quiet.Store(true)
		<-time.After(100 * time.Millisecond) // a publish may be under way
	case "drain":
		cfg := ws.DrainConfig{Grace: time.Second, Window: n.cfg.Window}
		if err := errors.Join(n.manager.Drain(ctx, cfg), n.manager.Shutdown(ctx)); err != nil {
			panic(err)
		}
	default:
		panic(command)
	}
	if err := json.NewEncoder(os.Stdout).Encode(n.state()); err != nil {
		panic(err)
	}
}

func (n *node) state() nodeState {
	rooms := 0
	n.manager.RangeRooms(func(r *ws.Room) bool {
		if len(n.manager.GetRoomMembers(r.ID())) > 0 {
			rooms++
		}
		return true
	})
	present, _ := n.manager.RoomPresence(roomName(0)) // zero without
	n.mu.Lock()
	defer n.mu.Unlock()
	return nodeState{
		Publisher: n.publisher, Last: maps.Clone(n.last), Unsure: maps.Clone(n.unsure),
		Refused: int(n.refused.Load()), Failed: int(n.failed.Load()),
		Clients: n.manager.GetClientCount(), Rooms: rooms, Nodes: len(n.manager.Nodes()), Present: present.Users,
		Cluster: n.manager.Stats().Cluster,
	}
}
