//go:build linux

package server

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/bench/control"
	"github.com/qi-realtime/ws/internal/testcert"
)

// server is the server process: this library under load. Safe for concurrent use.
type server struct {
	control.Host
	cfg      control.Config
	options  []ws.Option
	current  atomic.Pointer[ws.Manager]
	http     net.Listener
	run      chan error   // the error of Run of the current manager
	log      *countedLog  // in modes Attack and Soak; else nil
	rooms    atomic.Int64 // the highest number of any room joined, plus 1
	leaks    [][]byte     // see control.Config.Leak
	kept     keptRoom     // in mode Soak
	numbered numbered     // in mode Numbered
	link     *tap         // of a node of a cluster; else nil
}

// manager is the one that serves now: in mode Soak others have ended before it.
func (s *server) manager() *ws.Manager { return s.current.Load() }

// Serve is the hidden command: it runs until its standard input ends. The server is a node of a
// cluster if broker is not nil.
func Serve(arg string, in io.Reader, out io.Writer, broker ws.HistoryBroker) error {
	s := new(server)
	cfg := &s.cfg
	if err := json.Unmarshal([]byte(arg), cfg); err != nil {
		return err
	}
	if cfg.ProfileHeap {
		runtime.MemProfileRate = 512
	}
	s.options = managerOptions(cfg)
	if cfg.Mode == control.History {
		s.options = append(s.options, historyOptions)
	}
	if cfg.Mode == control.Attack || cfg.Mode == control.Soak {
		s.log = newCountedLog()
		s.options = attackedOptions(cfg, s.log)
	}
	if broker != nil {
		s.link = newTap(broker, cfg.Mode)
		s.options = append(s.options, s.link.options)
	}
	var tlsConfig *tls.Config
	if cfg.TLS {
		certificate, _ := testcert.New("localhost")
		tlsConfig = &tls.Config{Certificates: []tls.Certificate{certificate}}
		s.options = append(s.options, ws.WithTLSConfig(tlsConfig))
	}
	if err := s.start(); err != nil {
		return err
	}
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s.http = ln
	mux := http.NewServeMux()
	mux.HandleFunc("/ws", func(w http.ResponseWriter, r *http.Request) { _ = s.manager().HandleUpgrade(w, r) })
	if cfg.TLS {
		ln = tls.NewListener(ln, tlsConfig)
	}
	go func() { _ = s.httpServer(mux).Serve(ln) }() // ends with the listener
	if cfg.Scrape > 0 {
		go s.scrape(cfg.Scrape) // ends with the process
	}
	hello := &control.Report{Native: s.manager().Addr().String(), HTTP: ln.Addr().String(), Library: "ws"}
	return s.Serve(s, hello, in, out)
}

// start makes a manager and runs it.
func (s *server) start(more ...ws.Option) error {
	m, err := ws.NewManager(slices.Concat(s.options, more)...)
	if err != nil {
		return err
	}
	if err := s.handlers(m); err != nil {
		return err
	}
	switch {
	case s.cfg.JoinRooms > 0:
		m.Subscribe(ws.EventClientConnected, func(e ws.Event) { s.welcome(e.ClientID, s.cfg.JoinRooms) })
	case s.cfg.Leak != "":
		m.Subscribe(ws.EventClientConnected, func(ws.Event) { s.leak() })
	}
	run := make(chan error, 1)
	go func() { run <- m.Run() }() // ends with Shutdown or the process
	if m.Addr() == nil {
		return <-run
	}
	s.run = run
	s.current.Store(m)
	return nil
}

// scrape takes a snapshot of all figures and histograms now and then, as a collector of metrics does.
func (s *server) scrape(every time.Duration) {
	for range time.Tick(every) {
		st := s.manager().Stats()
		for range st.Figures() { // a collector would send them
		}
		for range st.Histograms() {
		}
	}
}

// handlers registers the handlers of the mode.
func (s *server) handlers(m *ws.Manager) error {
	switch s.cfg.Mode {
	case control.Attack:
		return s.attackedRoutes(m)
	case control.Soak:
		m.HandleBinary(func(c *ws.Client, payload []byte) { s.Handle(client{s, c}, payload) })
		return errors.Join(s.keptRoute(m), s.attackedRoutes(m))
	case control.History:
		return s.historyRoutes(m)
	case control.Numbered:
		return s.numberedRoutes(m)
	case control.Echo:
		m.HandleRaw(echo)
	case control.JSON:
		return ws.Handle(m, "echo", echoData)
	case control.Noop:
		return ws.Handle(m, "noop", noop(s.cfg.HandlerTime))
	case control.Head:
		m.HandleRaw(answerHead)
	default:
		m.HandleRaw(func(c *ws.Client, _ ws.Opcode, payload []byte) { s.Handle(client{s, c}, payload) })
	}
	return nil
}

// echoData is the echo server for requests.
func echoData(_ *ws.Client, req *control.EchoData) (*control.EchoData, error) { return req, nil }

// noop returns a handler that takes the time d and answers with an empty object.
func noop(d time.Duration) func(*ws.Client, *control.NoopData) (*control.NoopAnswer, error) {
	return func(*ws.Client, *control.NoopData) (*control.NoopAnswer, error) {
		if d > 0 {
			<-time.After(d)
		}
		return new(control.NoopAnswer), nil
	}
}

// answerHead sends the stamp of a message back, once the client's queue has space:
// it may read more slowly than it sends.
func answerHead(c *ws.Client, _ ws.Opcode, payload []byte) {
	head := payload[:min(len(payload), control.StampBytes)]
	_ = c.SendContext(c.Context(), head, ws.Binary()) // the client would miss it
}

// managerOptions are the options that cfg asks for.
func managerOptions(cfg *control.Config) []ws.Option {
	opts := []ws.Option{
		ws.WithListenAddr("tcp://127.0.0.1:0"),
		ws.WithMaxConnections(cfg.MaxConnections), ws.WithLoops(cfg.Loops),
		func(c *ws.Config) { c.HeartbeatTimeout = time.Hour }, // a stalled client answers no ping
	}
	if !cfg.Pooled {
		opts = append(opts, ws.WithHandlerMode(ws.Inline))
	}
	if cfg.Authenticate {
		opts = append(opts, ws.WithAuthenticate(authenticate(cfg.AuthDelay)))
	}
	if cfg.Placed {
		opts = append(opts, ws.WithAuthenticate(func(r *http.Request) ([]ws.ClientOption, error) {
			return []ws.ClientOption{ws.WithPlacement(r.URL.RawQuery)}, nil
		}))
	}
	if cfg.Notices {
		opts = append(opts, ws.WithAuthenticate(func(r *http.Request) ([]ws.ClientOption, error) {
			if r.URL.RawQuery == control.NoticeQuery {
				return []ws.ClientOption{ws.WithReconnectNotice()}, nil
			}
			return nil, nil
		}))
	}
	if cfg.AdmitPerSecond > 0 {
		opts = append(opts, ws.WithAdmission(ws.Admission{PerSecond: cfg.AdmitPerSecond, Burst: cfg.AdmitBurst}))
	}
	if cfg.SingleWrites {
		opts = append(opts, ws.WithBatchedWrites(ws.Off))
	}
	if cfg.Compress {
		opts = append(opts, ws.WithEnableCompression(true))
	}
	if cfg.Queue > 0 {
		opts = append(opts, ws.WithMessageQueueSize(cfg.Queue))
	}
	if cfg.QueueBytes > 0 {
		opts = append(opts, ws.WithQueueBytes(cfg.QueueBytes))
	}
	if cfg.Unsent != 0 {
		opts = append(opts, ws.WithUnsentBytes(max(0, cfg.Unsent)))
	}
	if cfg.RoomShards > 0 {
		opts = append(opts, ws.WithRoomShards(cfg.RoomShards))
	}
	if cfg.Ring > 0 {
		opts = append(opts, func(c *ws.Config) { c.Broadcast.QueueSize = cfg.Ring })
	}
	if cfg.Batch > 0 {
		opts = append(opts, func(c *ws.Config) { c.Broadcast.BatchSize = cfg.Batch })
	}
	return opts
}

// echo is the whole echo server.
func echo(c *ws.Client, op ws.Opcode, payload []byte) {
	if op == ws.OpBinary {
		_ = c.SendBinary(payload) // the client would miss it
		return
	}
	_ = c.SendBytes(payload)
}

// client is a connection, for the host.
type client struct {
	server *server
	*ws.Client
}

// Join puts the client into a room; the load generator counts members.
func (c client) Join(room int) {
	for n := c.server.rooms.Load(); n <= int64(room) && !c.server.rooms.CompareAndSwap(n, int64(room)+1); {
		n = c.server.rooms.Load()
	}
	_ = c.JoinRoom(roomName(room))
}

// Leave takes the client out of a room.
func (c client) Leave(room int) { c.LeaveRoom(roomName(room)) }

// welcome puts a new client into its rooms.
func (s *server) welcome(id string, rooms int) {
	c, ok := s.manager().GetClient(id)
	if !ok {
		return // gone already
	}
	for k := range rooms {
		client{s, c}.Join(control.RoomOf(uint64(c.UserID), k))
	}
}

// authenticate asks for a token, and waits as if a database was asked.
func authenticate(delay time.Duration) func(*http.Request) ([]ws.ClientOption, error) {
	return func(r *http.Request) ([]ws.ClientOption, error) {
		user, ok := control.TokenUser(r.URL.Query().Get("token"))
		if !ok {
			return nil, errors.New("no valid token")
		}
		if delay > 0 {
			select {
			case <-r.Context().Done():
				return nil, r.Context().Err()
			case <-time.After(delay):
			}
		}
		return []ws.ClientOption{ws.WithUserID(int64(user))}, nil
	}
}

// Echo sends payload back; the client would miss it.
func (c client) Echo(payload []byte) { _ = c.SendBinary(payload) }

func roomName(room int) string { return "bench-" + strconv.Itoa(room) }

// Publish implements control.Server.
func (s *server) Publish(room int, payload []byte) error {
	switch s.cfg.Mode {
	case control.History:
		return s.publishKept(room, len(payload))
	case control.Numbered:
		return s.numbered.publish(s.manager(), room, payload)
	}
	if s.cfg.Mode == control.Soak && room == 0 {
		if err := s.keep(); err != nil {
			return err
		}
	}
	return s.manager().BroadcastPrepared(roomName(room), ws.Prepare(ws.OpBinary, payload), nil)
}

// Prepare encodes payload once for many calls of publish.
func (s *server) Prepare(room int, payload []byte) (publish func() error) {
	name, prepared := roomName(room), ws.Prepare(ws.OpBinary, payload)
	return func() error { return s.manager().BroadcastPrepared(name, prepared, nil) }
}

// Shutdown ends the server as an application would, and waits for it.
func (s *server) Shutdown() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return errors.Join(s.http.Close(), s.manager().Shutdown(ctx), <-s.run)
}

// Report implements control.Server.
func (s *server) Report(r *control.Report) {
	st := s.manager().Stats()
	r.Clients = st.Clients
	for i := range int(s.rooms.Load()) {
		if room, ok := s.manager().GetRoom(roomName(i)); ok {
			r.Members += room.MemberCount()
		}
	}
	r.Writes, r.WakeUps, r.Tasks = st.Total.Writes, st.Total.WakeUps, st.Total.Tasks
	r.AdmissionWait = st.Accept.Pace.Time
	r.Pauses = st.Total.PausedTotal
	if s.log != nil {
		r.LogLines = s.log.lines.Load()
	}
	r.Handled = st.Total.MessagesIn - st.Unhandled
	r.Moved, r.Closed = st.Total.DrainMoved, st.Total.DrainClosed
	r.HistoryMemory, r.Replayed = st.HistoryMemory, st.Replayed
	r.Kept = s.kept.head()
	r.Forced, r.Left = st.Total.DrainForced, st.Total.DrainLeft
	if s.link != nil {
		r.Link = s.link.report(&st.Cluster)
	}
	r.Dropped, r.Messages = st.Total.Drops.Lost(), st.Total.MessagesOut
}

// ReportQueues looks at every client's queue, which takes too long for a report
// that is made while a load runs.
func (s *server) ReportQueues(r *control.Report) {
	s.manager().RangeClients(func(c *ws.Client) bool {
		if n := c.QueuedBytes(); n > 0 {
			r.Backlogged++
			r.QueuedBytes += uint64(n)
		}
		return true
	})
}

// Quiesce waits until the event loops have neither run a task nor written for
// some time: a single look could find a loop that the kernel had no processor
// for.
func (s *server) Quiesce() {
	var tasks, writes uint64
	for same := 0; same < 4; {
		<-time.After(2 * time.Millisecond)
		st := s.manager().Stats().Total
		if st.InboxLen > 0 || st.Tasks != tasks || st.Writes != writes {
			tasks, writes, same = st.Tasks, st.Writes, 0
			continue
		}
		same++
	}
}
