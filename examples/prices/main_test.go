package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"io/fs"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws/client"
	"github.com/qi-realtime/ws/internal/leak"
	"github.com/qi-realtime/ws/schema"
)

// wait bounds each step of a test, generously: the machine may be busy.
const wait = time.Minute

// maxPage bounds the page, in bytes with gzip.
const maxPage = 14_000

func TestMain(m *testing.M) { leak.Main(m) }

// TestAPI holds the types of the page to those of the server.
func TestAPI(t *testing.T) {
	m, _, err := newManager(filepath.Join(t.TempDir(), "ws"), window)
	require.NoError(t, err)
	schema.Golden(t, m, "web/api.gen.ts", schema.WithSource("."))
}

// TestPageSize holds the page to its size, and README.md to the truth.
func TestPageSize(t *testing.T) {
	var all bytes.Buffer
	require.NoError(t, fs.WalkDir(static, "static", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := static.ReadFile(path)
		require.NoError(t, err)
		z, err := gzip.NewWriterLevel(&all, gzip.BestCompression)
		require.NoError(t, err)
		_, err = z.Write(text)
		require.NoError(t, err)
		return z.Close()
	}))
	t.Logf("%d bytes with gzip, of %d", all.Len(), maxPage)
	assert.LessOrEqual(t, all.Len(), maxPage)
	readme, err := os.ReadFile("README.md")
	require.NoError(t, err)
	stated := regexp.MustCompile(`is (\d+) KB with gzip`).FindSubmatch(readme)
	require.NotNil(t, stated)
	size, err := strconv.Atoi(string(stated[1]))
	require.NoError(t, err)
	assert.InDelta(t, size*1000, all.Len(), 1000, "README.md")
}

// serve runs the server without its main function, and returns its address.
func serve(t *testing.T, window time.Duration) (addr string) {
	t.Helper()
	m, f, err := newManager(filepath.Join(t.TempDir(), "ws"), window)
	require.NoError(t, err)
	ran := make(chan error, 1)
	go func() { ran <- m.Run() }()
	require.NotNil(t, m.Addr())
	server := httptest.NewServer(routes(m, f))
	ctx, cancel := context.WithCancel(context.Background())
	published := make(chan struct{})
	go func() { f.publish(ctx, 200); close(published) }()
	t.Cleanup(func() {
		cancel()
		<-published
		limit, release := context.WithTimeout(context.Background(), wait)
		defer release()
		assert.NoError(t, m.Shutdown(limit))
		assert.NoError(t, <-ran)
		server.Close()
	})
	return strings.TrimPrefix(server.URL, "http://")
}

// room is a room as a client with a slow link sees it. Safe for concurrent use.
type room struct {
	mu     sync.Mutex
	newest map[string]int // number of each symbol
	roomState
}

type roomState struct {
	received int
	seen     int   // prices published up to the newest received ones
	missed   int   // by the numbers of the symbols
	symbols  int   // with a price
	offset   int64 // of the last price or gap
	lost     int64 // by the gaps
	holes    int   // in the offsets, beside the gaps
}

func (r *room) receive(n client.Notify) {
	var p Price
	if n.Decode(&p) != nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.received++
	before, known := r.newest[p.Symbol]
	if known {
		r.missed += p.N - before - 1
	}
	r.newest[p.Symbol] = p.N
	r.symbols = len(r.newest)
	r.seen += p.N - before
	if r.received > 1 && n.Position.Offset > r.offset+1 {
		r.holes++
	}
	r.offset = n.Position.Offset
}

func (r *room) gap(g client.Gap) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lost += g.Lost()
	r.offset = g.Next - 1
}

func (r *room) state() roomState {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.roomState
}

// visit joins the room over a slow link named "page".
func visit(t *testing.T, addr, name string) *room {
	t.Helper()
	r := &room{newest: make(map[string]int)}
	c := dial(t, fmt.Sprintf("ws://%s/slow?link=page&rate=%d", addr, maxRate))
	c.Room(name).On("price", r.receive)
	c.Room(name).OnGap(r.gap)
	_, err := c.Room(name).Join(t.Context())
	require.NoError(t, err)
	return r
}

func dial(t *testing.T, url string) *client.Client {
	t.Helper()
	c, err := client.Dial(t.Context(), url)
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c
}

// until waits for a condition.
func until(t *testing.T, what string, condition func() bool) {
	t.Helper()
	require.Eventually(t, condition, wait, 10*time.Millisecond, what)
}

// The links stop for four seconds: each room delivers the prices of that time in its own way.
func TestStoppedLinks(t *testing.T) {
	for name, window := range map[string]time.Duration{"kept": time.Hour, "no longer kept": time.Second} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			addr := serve(t, window)
			control := dial(t, "ws://"+addr+"/ws")
			var report atomic.Pointer[Report]
			control.Room(roomFeed).On("report", func(n client.Notify) {
				if r := new(Report); n.Decode(r) == nil {
					report.Store(r)
				}
			})
			_, err := control.Room(roomFeed).Join(t.Context())
			require.NoError(t, err)
			conflate, ttl, catchUp := visit(t, addr, roomConflate), visit(t, addr, roomTTL), visit(t, addr, roomCatchUp)
			rooms := []*room{conflate, ttl, catchUp}
			for _, r := range rooms {
				until(t, "all symbols", func() bool { return r.state().symbols == len(symbols) })
			}

			setRate(t, control, 0)
			until(t, "a report", func() bool { return report.Load() != nil })
			stopped := report.Load()
			until(t, "prices meanwhile", func() bool {
				r := report.Load()
				return r.At >= stopped.At+4000 && r.Published >= stopped.Published+4*150
			})
			setRate(t, control, maxRate)
			published := report.Load().Published
			for _, r := range rooms {
				until(t, "all is delivered", func() bool { return r.state().seen >= published })
			}
			assert.Positive(t, conflate.state().missed)
			assert.Positive(t, ttl.state().missed)
			s := catchUp.state()
			assert.Zero(t, s.holes, "a gap names each hole")
			if window < wait {
				assert.Positive(t, s.lost)
			} else {
				assert.Zero(t, s.lost)
				assert.Zero(t, s.missed)
			}
		})
	}
}

func setRate(t *testing.T, c *client.Client, rate int) {
	t.Helper()
	require.NoError(t, c.Request(t.Context(), "link", Link{"page", rate}, nil))
}

func TestRefusals(t *testing.T) {
	addr := serve(t, window)
	c := dial(t, "ws://"+addr+"/ws")
	var refused *client.ServerError
	require.ErrorAs(t, c.Request(t.Context(), "link", Link{"page", -1}, nil), &refused)
	assert.Equal(t, 400, refused.Code)
	_, err := c.Room("elsewhere").Join(t.Context())
	require.ErrorAs(t, err, &refused)
	assert.Equal(t, 404, refused.Code)
	for _, query := range []string{"", "?link=a", "?rate=1", "?link=a&rate=-1", "?link=a&rate=999999999"} {
		_, status := upgrade(t, addr, query, addr)
		assert.Equal(t, 400, status, query)
	}
	_, status := upgrade(t, addr, "?link=a&rate=1000000", "elsewhere.example")
	assert.Equal(t, 403, status, "a page of another host")
	_, status = upgrade(t, addr, "?link=a&rate=1000000", addr)
	assert.Equal(t, 101, status)
}

// upgrade asks for a slow link, as a page of the host would.
func upgrade(t *testing.T, addr, query, host string) (header http.Header, status int) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+addr+"/slow"+query, nil)
	require.NoError(t, err)
	for name, value := range map[string]string{
		"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
		"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "Origin": "http://" + host,
	} {
		r.Header.Set(name, value)
	}
	answer, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	require.NoError(t, answer.Body.Close())
	return answer.Header, answer.StatusCode
}

func TestWalkStaysNear(t *testing.T) {
	price := 100.0
	for range 100_000 {
		price = walk(price, 100)
		require.InDelta(t, 100, price, 100*spread+0.005)
		require.InDelta(t, math.Round(price*100), price*100, 1e-6, "cents")
	}
}

func TestRunServesThePage(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	pages, ran := make(chan string, 1), make(chan error, 1)
	go func() { ran <- run(ctx, "127.0.0.1:0", 200, func(page string) { pages <- page }) }()
	page := <-pages
	for name, text := range map[string]string{"/": "<!doctype html>", "/page.js": "ws.join", "/style.css": ":root"} {
		answer, err := http.Get(page + name)
		require.NoError(t, err)
		body, err := io.ReadAll(answer.Body)
		require.NoError(t, err)
		require.NoError(t, answer.Body.Close())
		assert.Contains(t, string(body), text, name)
	}
	assert.Error(t, run(ctx, strings.TrimPrefix(page, "http://"), 200, nil), "the address is taken")
	stop()
	assert.NoError(t, <-ran)
}
