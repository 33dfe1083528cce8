package cluster_test

import (
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"testing"

	natsserver "github.com/nats-io/nats-server/v2/server"
)

// The ports of all servers, each with an address of its own.
const (
	portNATS      = 4222
	portNATSRoute = 6222
	portNode      = 8080
)

// natsConfig is the configuration of a NATS server, as JSON.
type natsConfig struct {
	Host   string
	Store  string   // the folder of JetStream
	Routes []string // hosts of the servers of a cluster
}

// runNATS runs a NATS server until the standard input ends.
func runNATS(config string) {
	var c natsConfig
	if err := json.Unmarshal([]byte(config), &c); err != nil {
		panic(err)
	}
	o := natsserver.Options{
		ServerName: c.Host, Host: c.Host, Port: portNATS, NoLog: true, NoSigs: true, JetStream: true, StoreDir: c.Store,
	}
	if c.Routes != nil {
		o.Cluster = natsserver.ClusterOpts{Name: "test", Host: c.Host, Port: portNATSRoute}
	}
	for _, host := range c.Routes {
		o.Routes = append(o.Routes, &url.URL{Scheme: "nats", Host: fmt.Sprintf("%s:%d", host, portNATSRoute)})
	}
	s, err := natsserver.NewServer(&o)
	if err != nil {
		panic(err)
	}
	s.Start()
	if !s.ReadyForConnections(patience) {
		panic("the server does not listen")
	}
	fmt.Println("ready")
	_, _ = os.Stdin.Read(make([]byte, 1))
}

// server is the server of a broker. Not safe for concurrent use.
type server struct {
	*process
	host    string
	store   string             // the folder of its data; empty if it has none
	restart func(t *testing.T) // starts it again, after its end
}

func addressOf(host string, port int) string { return fmt.Sprintf("%s:%d", host, port) }

func natsURL(host string) string { return "nats://" + addressOf(host, portNATS) }

// startNATS starts a NATS server, alone or as one of a cluster.
func startNATS(owner *testing.T, host string, cluster ...string) *server {
	owner.Helper()
	s := &server{host: host, store: owner.TempDir()}
	s.restart = func(t *testing.T) {
		s.process = spawn(t, owner, "nats "+host, roleNATS, natsConfig{host, s.store, cluster})
	}
	s.restart(owner)
	return s
}
