// Command cluster is a chat on three nodes behind a balancer, with a NATS server for messages
// between the nodes. All run in this process.
//
//	go run ./examples/cluster
//
// Then open http://localhost:8080 in several tabs.
package main

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"
)

//go:embed static
var static embed.FS

// shutdownTimeout is the time in which the nodes flush the queues of their clients.
const shutdownTimeout = 10 * time.Second

func main() {
	addr := flag.String("addr", "localhost:8080", "address of the page and of the balancer")
	nodes := flag.Int("nodes", 3, "number of nodes")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *addr, *nodes, nil); err != nil {
		slog.Error("the cluster ended", "err", err)
		os.Exit(1)
	}
}

// run serves until ctx ends. When it listens, it sends its address to ready, if that is not nil.
func run(ctx context.Context, addr string, nodes int, ready chan<- string) error {
	c, err := newCluster(nodes)
	if err != nil {
		return err
	}
	defer c.close()
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: routes(c), ReadHeaderTimeout: 10 * time.Second}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }() // until Shutdown
	fmt.Printf("Open http://%s in several tabs.\n", listener.Addr())
	if ready != nil {
		ready <- listener.Addr().String()
	}
	select {
	case <-ctx.Done():
	case err := <-failed:
		return err
	}
	c.close() // ends the WebSocket connections, which Shutdown does not know
	limit, release := context.WithTimeout(context.Background(), shutdownTimeout)
	defer release()
	return server.Shutdown(limit)
}

// routes serves the page, the balancer, and the state of the cluster.
func routes(c *cluster) http.Handler {
	page, err := fs.Sub(static, "static")
	if err != nil {
		panic(err) // the directory is embedded above
	}
	mux := http.NewServeMux()
	mux.Handle("GET /", http.FileServerFS(page))
	mux.Handle("GET /ws", newBalancer(c))
	mux.HandleFunc("GET /state", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(c.state())
	})
	// A browser sends these to this host only from its own pages, because of the content type.
	mux.HandleFunc("POST /nodes/{number}/{action}", func(w http.ResponseWriter, r *http.Request) {
		i, err := strconv.Atoi(r.PathValue("number"))
		answer(w, r, errors.Join(err, c.switchNode(i, r.PathValue("action") == "start")))
	})
	mux.HandleFunc("POST /broker/{action}", func(w http.ResponseWriter, r *http.Request) {
		answer(w, r, c.switchBroker(r.PathValue("action") == "start"))
	})
	return mux
}

func answer(w http.ResponseWriter, _ *http.Request, err error) {
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
	}
}
