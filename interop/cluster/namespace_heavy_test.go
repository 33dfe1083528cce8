//go:build heavy

package cluster_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"
)

// nobody is a link-layer address that no interface has: its frames are dropped without a word.
const nobody = "02:00:00:00:00:01"

// namespace is a network namespace with two links: one to the clients, one to the broker's server.
type namespace struct {
	name    string
	clients string // the address inside for clients
	broker  string // the address outside for the server
	inside  string // the address inside of the link to the server
	outward string // interfaces of the link to the server
	inward  string
}

// newNamespace makes a namespace. It needs root, and Debian's iproute2.
func newNamespace(t *testing.T) *namespace {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("network namespaces need root")
	}
	n := &namespace{name: fmt.Sprintf("wst%d-%d", os.Getpid(), rand.IntN(100))}
	prefix := fmt.Sprintf("10.%d.%d", 200+rand.IntN(50), rand.IntN(256))
	n.clients, n.broker, n.inside = prefix+".2", prefix+".5", prefix+".6"
	n.outward, n.inward = n.name+"c", n.name+"d"
	ip(t, "netns", "add", n.name)
	t.Cleanup(func() { ip(t, "netns", "del", n.name) }) // with its links
	link := func(outer, inner, outside, inside string) {
		ip(t, "link", "add", outer, "type", "veth", "peer", "name", inner, "netns", n.name)
		ip(t, "addr", "add", outside+"/30", "dev", outer)
		ip(t, "link", "set", outer, "up")
		ip(t, "-n", n.name, "addr", "add", inside+"/30", "dev", inner)
		ip(t, "-n", n.name, "link", "set", inner, "up")
	}
	link(n.name+"a", n.name+"b", prefix+".1", n.clients)
	link(n.outward, n.inward, n.broker, n.inside)
	ip(t, "-n", n.name, "link", "set", "lo", "up")
	return n
}

// exec returns the words of a command that executes another one inside.
func (n *namespace) exec() []string { return []string{"ip", "netns", "exec", n.name} }

// cut drops all that is sent over the link to the server, in both directions.
func (n *namespace) cut(t *testing.T) {
	t.Helper()
	ip(t, "neigh", "replace", n.inside, "lladdr", nobody, "dev", n.outward, "nud", "permanent")
	ip(t, "-n", n.name, "neigh", "replace", n.broker, "lladdr", nobody, "dev", n.inward, "nud", "permanent")
}

// heal ends the cut.
func (n *namespace) heal(t *testing.T) {
	t.Helper()
	ip(t, "neigh", "del", n.inside, "dev", n.outward)
	ip(t, "-n", n.name, "neigh", "del", n.broker, "dev", n.inward)
}

// ip runs iproute2's command.
func ip(t *testing.T, args ...string) {
	t.Helper()
	cmd := exec.Command("ip", args...)
	cmd.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	output, err := cmd.CombinedOutput()
	require.NoError(t, err, "ip %v: %s", args, output)
}
