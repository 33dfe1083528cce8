//go:build perf

package otel_test

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"runtime/trace"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/contrib/otel"
)

var (
	rounds = flag.Int("rounds", 40, "rounds of TestCost")
	slice  = flag.Duration("slice", 250*time.Millisecond, "time of one variant in a round")
)

// costVariants are the servers that are compared. The first is the base, and the second is the same:
// its ratio is the noise.
var costVariants = []string{"base", "base again", "not sampled", "one in 100", "flight recorder"}

// costLoads are the messages. One loop handles all but pooled messages.
var costLoads = []string{"raw", "typed inline", "typed pooled", "fan-out"}

const (
	costServer  = "WS_OTEL_COST_SERVER" // in the environment of a server: its load and its variant
	costClients = 64
	costFlight  = 16 // messages under way of each client
)

// TestCost measures the CPU time of a server for each message, with and without spans and a flight
// recorder. The servers are processes. In each round the same load goes to each of them in turn, and
// another one begins. The table has the median of the ratios to the base of the same round. On a busy
// machine most rounds are disturbed, which adds to their time: the last two columns compare the 5 %
// of the rounds with the lowest times.
func TestCost(t *testing.T) {
	if give := os.Getenv(costServer); give != "" {
		load, variant, _ := strings.Cut(give, "/")
		serveCost(t, load, variant)
		return
	}
	for _, load := range costLoads {
		t.Run(load, func(t *testing.T) {
			costs := make([][]float64, len(costVariants)) // of the rounds, in ns
			for generation := range 4 {                   // as the place of the code in memory counts, too
				var servers []*costProcess
				for _, variant := range costVariants {
					servers = append(servers, startCost(t, load, variant))
				}
				for round := range *rounds / 4 {
					for i := range servers {
						v := (i + round + generation) % len(servers)
						costs[v] = append(costs[v], servers[v].measure(*slice))
					}
				}
				for _, s := range servers {
					s.stop()
				}
			}
			reportCosts(t, costs)
		})
	}
}

// reportCosts prints a row for each variant.
func reportCosts(t *testing.T, costs [][]float64) {
	for v, name := range costVariants {
		var ratios []float64
		for round, cost := range costs[v] {
			ratios = append(ratios, cost/costs[0][round])
		}
		slices.Sort(ratios)
		n, rank := len(ratios), signRank(len(ratios))
		least := quantile(costs[v], 0.05)
		t.Logf("%-15s %6.0f ns, ratio %.3f (quartiles %.3f to %.3f, 95 %%: %.3f to %.3f); undisturbed %6.0f ns, ratio %.3f",
			name, quantile(costs[v], 0.5), ratios[n/2], ratios[n/4], ratios[n*3/4], ratios[rank], ratios[n-1-rank],
			least, least/quantile(costs[0], 0.05))
	}
}

func quantile(values []float64, q float64) float64 {
	values = slices.Sorted(slices.Values(values))
	return values[int(q*float64(len(values)))]
}

// signRank returns the rank that bounds the median of n values with a confidence of about 95 %.
func signRank(n int) int {
	rank := n/2 - 1
	for rank > 0 && float64(n-2*rank)*float64(n-2*rank) < 4*float64(n) {
		rank--
	}
	return rank
}

// costProcess is a server and its clients.
type costProcess struct {
	t       *testing.T
	clients []*costClient
	in      io.WriteCloser
	out     *bufio.Scanner
	cmd     *exec.Cmd
}

func startCost(t *testing.T, load, variant string) *costProcess {
	cmd := exec.Command(os.Args[0], "-test.run=^TestCost$")
	cmd.Env = append(os.Environ(), costServer+"="+load+"/"+variant)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	p := &costProcess{t: t, in: in, out: bufio.NewScanner(out), cmd: cmd}
	t.Cleanup(p.stop)
	require.True(t, p.out.Scan())
	addr := p.out.Text()
	message := "0123456789abcdef0123456789abcdef"
	if strings.HasPrefix(load, "typed") {
		message = `{"type":"request","event":"echo","request_id":"1","data":{"text":"` + message + `"}}`
	}
	for i := range costClients {
		flight := costFlight
		if load == "fan-out" && i > 0 {
			flight = 0
		}
		p.clients = append(p.clients, dialCost(t, addr, message, flight, costFlight))
	}
	return p
}

func (p *costProcess) stop() {
	_ = p.in.Close()
	_ = p.cmd.Wait()
}

// cpu returns the CPU time of the server.
func (p *costProcess) cpu() (ns int64) {
	_, err := fmt.Fprintln(p.in)
	require.NoError(p.t, err)
	require.True(p.t, p.out.Scan(), "the server has ended")
	_, err = fmt.Sscan(p.out.Text(), &ns)
	require.NoError(p.t, err)
	return ns
}

// measure loads the server for d, and returns its CPU time in ns for a message that it has sent.
func (p *costProcess) measure(d time.Duration) float64 {
	p.exchange(d / 4)
	before := p.cpu()
	messages := p.exchange(d)
	return float64(p.cpu()-before) / float64(messages)
}

// exchange sends the messages of all clients and reads all answers, again and again.
func (p *costProcess) exchange(d time.Duration) (messages int) {
	for began := time.Now(); time.Since(began) < d; {
		for _, c := range p.clients {
			require.NoError(p.t, c.send())
		}
		for _, c := range p.clients {
			require.NoError(p.t, c.receive())
			messages += c.answers
		}
	}
	return messages
}

// serveCost is a server process. It prints its CPU time for each line that it reads.
func serveCost(t *testing.T, load, variant string) {
	opts := []ws.Option{
		ws.WithListenAddr("tcp://127.0.0.1:0"), ws.WithLogger(slog.New(slog.DiscardHandler)),
		ws.WithOnConnect(func(c *ws.Client) error { return c.JoinRoom("room") }),
	}
	if load == "typed inline" {
		opts = append(opts, ws.WithHandlerMode(ws.Inline))
	}
	if variant == "flight recorder" {
		recorder := trace.NewFlightRecorder(trace.FlightRecorderConfig{MinAge: 10 * time.Second})
		opts = append(opts, ws.WithFlightRecorder(recorder))
	}
	m, err := ws.NewManager(opts...)
	require.NoError(t, err)
	if ratio := map[string]float64{"not sampled": 1e-9, "one in 100": 0.01}[variant]; ratio > 0 {
		provider := sdktrace.NewTracerProvider(sdktrace.WithBatcher(discardSpans{}))
		require.NoError(t, otel.New(otel.Provider(provider), otel.Ratio(ratio)).Use(m))
	}
	switch load {
	case "raw":
		m.HandleRaw(func(c *ws.Client, _ ws.Opcode, payload []byte) { _ = c.SendBytes(payload) })
	case "fan-out":
		m.HandleRaw(func(_ *ws.Client, _ ws.Opcode, payload []byte) { _ = m.BroadcastToRoom("room", payload, nil) })
	default:
		type text struct {
			Text string `json:"text"`
		}
		require.NoError(t, ws.Handle(m, "echo", func(_ *ws.Client, x *text) (*text, error) { return x, nil }))
	}
	go func() { _ = m.Run() }() // until the process ends
	fmt.Println(m.Addr())
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		var used syscall.Rusage
		require.NoError(t, syscall.Getrusage(syscall.RUSAGE_SELF, &used))
		fmt.Println(used.Utime.Nano() + used.Stime.Nano())
	}
	os.Exit(0)
}

// discardSpans is an exporter.
type discardSpans struct{}

func (discardSpans) ExportSpans(context.Context, []sdktrace.ReadOnlySpan) error { return nil }
func (discardSpans) Shutdown(context.Context) error                             { return nil }
