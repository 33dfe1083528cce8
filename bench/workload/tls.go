//go:build linux

package workload

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/qi-realtime/ws/bench/command"
	"github.com/qi-realtime/ws/bench/control"
	"github.com/qi-realtime/ws/bench/load"
	"github.com/qi-realtime/ws/bench/report"
	"github.com/qi-realtime/ws/bench/result"
	"github.com/qi-realtime/ws/bench/server"
)

// TLSCommand is the command tls.
var TLSCommand = command.Command{
	Name:  "tls",
	About: "the cost of TLS: CPU to accept, memory of an idle connection, CPU for an echo",
	Help: `Puts plain connections, TLS on the native path and TLS behind net/http next to each
other: CPU time and rate of accepting with a full handshake, memory of a connection
that has echoed 16 KiB, and the CPU time of an echo. Only the server's part counts:
the clients have a goroutine each.`,
	Example: "bench tls -conns 1000 -sizes 64,16384",
	New:     func() command.Runner { return newTLSRun() },
}

// tlsTransports are the transports that tls compares.
var tlsTransports = []struct {
	name, path string
	tls        bool
}{{"plain", "native", false}, {"TLS", "native", true}, {"TLS, net/http", "http", true}}

// tlsRun is a run of tls.
type tlsRun struct {
	conns, rounds int
	sizes         string
	load.Timing
}

func newTLSRun() *tlsRun {
	return &tlsRun{rounds: 1, sizes: "64,512,16384", Timing: load.DefaultTiming()}
}

func (o *tlsRun) Flags(fs *flag.FlagSet) {
	command.ConnsFlag(fs, &o.conns)
	command.RoundsFlag(fs, &o.rounds)
	o.Timing.Flags(fs)
	fs.StringVar(&o.sizes, "sizes", o.sizes, "tls: payload `bytes` to echo, a row each")
}

func (o *tlsRun) Validate(*command.Session) error { return command.AtLeast("-rounds", o.rounds, 1) }

// Run measures the cost of TLS on the server's side. Its clients have a goroutine
// each, for plain connections too, so only the server's figures count.
func (o *tlsRun) Run(ctx context.Context, s *command.Session) ([]*result.Table, error) {
	s.SetDefaults(&o.conns, 1000)
	sizes, err := o.sizeList()
	if err != nil {
		return nil, err
	}
	costs := &result.Table{
		Command: "tls",
		Title:   "A connection over TLS (1.3, ECDSA P-256, full handshakes): the server's part",
		Columns: []result.Column{
			{"transport", "transport", "%s"},
			{"conns", "connections", "%d"},
			{"accept_us", "accept and upgrade µs", "%.0f"},
			{"accepts_per_second", "accepts/s", "%.0f"},
			{"heap_bytes", "idle heap B", "%.0f"},
			{"rss_bytes", "idle RSS B", "%.0f"},
		}, Charts: []result.Chart{
			{Kind: report.Bars, X: []string{"transport"}, Y: []string{"accept_us", "heap_bytes"}},
		},
	}
	echoes := &result.Table{
		Command: "tls-echo", Title: "Echo, one message in flight on each connection",
		Columns: []result.Column{
			{"transport", "transport", "%s"},
			{"conns", "connections", "%d"},
			{"size", "bytes", "%d"},
			{"per_second", "messages/s", "%.0f"},
			{"server_us", "server µs/msg", "%.2f"},
		}, Charts: []result.Chart{
			{Kind: report.Bars, X: []string{"size"}, Series: "transport", Y: []string{"server_us"}},
		},
	}
	for range o.rounds {
		for _, t := range tlsTransports {
			r := tlsRound{tlsRun: o, name: t.name, path: t.path, tls: t.tls}
			if err := r.run(ctx, s, sizes, costs, echoes); err != nil {
				return nil, fmt.Errorf("%s: %w", t.name, err)
			}
		}
	}
	return []*result.Table{costs, echoes}, nil
}

// sizeList reads -sizes.
func (o *tlsRun) sizeList() ([]int, error) {
	var sizes []int
	for field := range strings.SplitSeq(o.sizes, ",") {
		n, err := strconv.Atoi(field)
		if err != nil || n < control.StampBytes || n > 1<<20 {
			return nil, fmt.Errorf("bench: -sizes is %q, must be payload bytes such as 64,16384", o.sizes)
		}
		sizes = append(sizes, n)
	}
	return sizes, nil
}

// tlsQuiet is how long connections rest before their memory is measured.
const tlsQuiet = time.Second

// tlsRound is one transport on a fresh server.
type tlsRound struct {
	*tlsRun
	name, path string
	tls        bool
	srv        *server.Process
	clients    []net.Conn
}

func (r *tlsRound) run(ctx context.Context, s *command.Session, sizes []int, costs, echoes *result.Table) error {
	srv, err := server.Start(ctx, &s.Options, control.Config{Mode: control.Echo, MaxConnections: r.conns + 16, TLS: r.tls})
	if err != nil {
		return err
	}
	defer srv.Stop()
	r.srv = srv
	defer func() {
		for _, c := range r.clients {
			_ = c.Close()
		}
	}()
	if err := r.connect(ctx, costs); err != nil {
		return err
	}
	for _, size := range sizes {
		if err := r.echo(ctx, size, echoes); err != nil {
			return err
		}
	}
	return nil
}

// connect opens all connections, some at a time, and asks for the memory of
// those that have echoed a message of 16 KiB.
func (r *tlsRound) connect(ctx context.Context, costs *result.Table) error {
	const atOnce = 32
	warm, err := r.dial(ctx) // the cost of the first connection alone is not counted
	if err != nil {
		return err
	}
	defer warm.Close()
	idle, err := r.srv.Call(control.Command{Name: "settle"})
	if err != nil {
		return err
	}
	var todo atomic.Int64
	todo.Store(int64(r.conns))
	clients := make(chan net.Conn, r.conns)
	err = inParallel(atOnce, func(int) error {
		for todo.Add(-1) >= 0 {
			c, err := r.dial(ctx)
			if err != nil {
				return err
			}
			clients <- c
		}
		return nil
	})
	close(clients)
	for c := range clients {
		r.clients = append(r.clients, c)
	}
	if err != nil {
		return err
	}
	open, err := r.srv.Call(control.Command{Name: "report"})
	if err != nil {
		return err
	}
	message := load.MaskedFrame(load.OpBinary, make([]byte, 16<<10))
	answer := make([]byte, 16<<10+4)
	for _, c := range r.clients {
		if err := exchange(c, message, answer); err != nil {
			return err
		}
	}
	if err := load.Wait(ctx, tlsQuiet); err != nil {
		return err
	}
	used, err := r.srv.Call(control.Command{Name: "settle"})
	if err != nil {
		return err
	}
	n := float64(r.conns)
	costs.Add(r.name, r.conns, result.Micros(open.CPU-idle.CPU)/n, n/time.Duration(open.At-idle.At).Seconds(),
		float64(int64(used.HeapAlloc-idle.HeapAlloc))/n, float64(int64(used.RSS-idle.RSS))/n)
	return nil
}

// echo lets every connection send, wait for the answer, and send again.
func (r *tlsRound) echo(ctx context.Context, size int, echoes *result.Table) error {
	message := load.MaskedFrame(load.OpBinary, make([]byte, size))
	var stop atomic.Bool
	var messages atomic.Uint64
	failed := make(chan error, 1)
	go func() { // owned by this call, which waits for it
		failed <- inParallel(len(r.clients), func(i int) error {
			answer := make([]byte, load.ServerFrameBytes(size))
			for !stop.Load() {
				if err := exchange(r.clients[i], message, answer); err != nil {
					return err
				}
				messages.Add(1)
			}
			return nil
		})
	}()
	before, after, n, err := r.window(ctx, &messages)
	stop.Store(true)
	if err := errors.Join(err, <-failed); err != nil {
		return err
	}
	elapsed := time.Duration(after.At - before.At)
	echoes.Add(r.name, r.conns, size, float64(n)/elapsed.Seconds(), result.Micros(after.CPU-before.CPU)/float64(max(n, 1)))
	return nil
}

// window counts messages while the server's reports are apart.
func (r *tlsRound) window(ctx context.Context, messages *atomic.Uint64) (
	before, after *control.Report, n uint64, err error,
) {
	if err = load.Wait(ctx, r.Warmup); err != nil {
		return nil, nil, 0, err
	}
	if before, err = r.srv.Call(control.Command{Name: "report"}); err != nil {
		return nil, nil, 0, err
	}
	first := messages.Load()
	if err = load.Wait(ctx, r.Duration); err != nil {
		return nil, nil, 0, err
	}
	if after, err = r.srv.Call(control.Command{Name: "report"}); err != nil {
		return nil, nil, 0, err
	}
	return before, after, messages.Load() - first, nil
}

// dial opens one WebSocket connection.
func (r *tlsRound) dial(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp4", r.srv.Addr(r.path))
	if err != nil {
		return nil, err
	}
	if r.tls {
		c = tls.Client(c, &tls.Config{InsecureSkipVerify: true}) // the server makes its certificate itself
	}
	if err := load.Upgrade(c, bufio.NewReaderSize(c, 1024)); err != nil {
		_ = c.Close()
		return nil, err
	}
	return c, nil
}

// exchange sends a message and waits for its echo, which has answer's length.
func exchange(c net.Conn, message, answer []byte) error {
	if _, err := c.Write(message); err != nil {
		return err
	}
	_, err := io.ReadFull(c, answer)
	return err
}

// inParallel runs n calls of f and waits for all.
func inParallel(n int, f func(i int) error) error {
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { errs[i] = f(i) })
	}
	wg.Wait()
	return errors.Join(errs...)
}
