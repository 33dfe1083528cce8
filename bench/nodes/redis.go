//go:build linux

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/redis/rueidis"

	"github.com/qi-realtime/ws/bench/control"
)

// redisServers is the number of servers of a Redis Cluster.
const redisServers = 3

// redisSlots is the number of hash slots of a Redis Cluster.
const redisSlots = 16384

// redisCluster is a redis-server process, or several that form a cluster, with nothing on disk.
type redisCluster struct {
	noRooms
	dir     string
	servers []*redisServer
}

// redisServer is a process, and a connection to it.
type redisServer struct {
	port   int
	cmd    *exec.Cmd
	client rueidis.Client
}

// startRedis starts n servers, as a cluster if there are several.
func startRedis(n int) (_ *redisCluster, err error) {
	runtime.LockOSThread() // the servers end with this thread, on which main runs
	c := new(redisCluster)
	defer func() {
		if err != nil {
			c.stop()
		}
	}()
	if c.dir, err = os.MkdirTemp("", "bench-redis-"); err != nil {
		return nil, err
	}
	for range n {
		s, err := c.startServer(n > 1)
		if err != nil {
			return nil, err
		}
		c.servers = append(c.servers, s)
		s.client, err = rueidis.NewClient(rueidis.ClientOption{
			InitAddress: []string{s.address()}, ForceSingleClient: true, DisableCache: true,
		})
		if err != nil {
			return nil, err
		}
	}
	if n > 1 {
		return c, c.join()
	}
	return c, nil
}

// startServer starts a server on a free port below those that the kernel gives to clients.
func (c *redisCluster) startServer(cluster bool) (*redisServer, error) {
	for range 100 {
		s := &redisServer{port: 10_000 + rand.IntN(12_000)} // the bus of a cluster has the port 10,000 above
		args := []string{
			"--port", strconv.Itoa(s.port), "--bind", "127.0.0.1", "--save", "", "--dir", c.dir,
			"--client-output-buffer-limit", "pubsub 64mb 32mb 10",
		}
		if cluster {
			args = append(args, "--cluster-enabled", "yes", "--cluster-config-file", fmt.Sprintf("%d.conf", s.port))
		}
		s.cmd = exec.Command("redis-server", args...)
		s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		out, err := s.cmd.StdoutPipe()
		if err != nil {
			return nil, err
		}
		if err := s.cmd.Start(); err != nil {
			return nil, fmt.Errorf("nodes: %w; Debian has it in the package redis-server", err)
		}
		if ready(out) {
			return s, nil
		}
		_ = s.cmd.Wait()
	}
	return nil, errors.New("nodes: redis-server does not start")
}

// ready waits until the server is ready, and returns false if it ends before.
func ready(out io.Reader) bool {
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if strings.Contains(lines.Text(), "Ready to accept connections") {
			go func() { _, _ = io.Copy(io.Discard, out) }() // until the process ends
			return true
		}
	}
	return false
}

func (s *redisServer) address() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)) }

// do runs a command.
func (s *redisServer) do(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return s.client.Do(ctx, s.client.B().Arbitrary(args...).Build()).ToString()
}

// join makes one cluster of the servers, each with an equal part of the slots.
func (c *redisCluster) join() error {
	n := len(c.servers)
	for i, s := range c.servers {
		first, last := i*redisSlots/n, (i+1)*redisSlots/n-1
		_, err := s.do("CLUSTER", "ADDSLOTSRANGE", strconv.Itoa(first), strconv.Itoa(last))
		if err == nil {
			_, err = s.do("CLUSTER", "SET-CONFIG-EPOCH", strconv.Itoa(i+1))
		}
		if err == nil && i > 0 {
			_, err = s.do("CLUSTER", "MEET", "127.0.0.1", strconv.Itoa(c.servers[0].port))
		}
		if err != nil {
			return err
		}
	}
	for range 600 {
		up := 0
		for _, s := range c.servers {
			info, err := s.do("CLUSTER", "INFO")
			if err != nil {
				return err
			}
			if strings.Contains(info, "cluster_state:ok") && strings.Contains(info, fmt.Sprintf("cluster_size:%d", n)) {
				up++
			}
		}
		if up == n {
			return nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	return errors.New("nodes: the Redis Cluster does not come up")
}

func (c *redisCluster) hello() *control.Report {
	r := new(control.Report)
	var addresses []string
	for _, s := range c.servers {
		addresses = append(addresses, s.address())
		info, _ := s.do("INFO", "server") // without it there is no version
		r.Library = "redis-server " + infoField(info, "redis_version:")
	}
	r.Native = strings.Join(addresses, ",")
	return r
}

func (c *redisCluster) stop() {
	for _, s := range c.servers {
		if s.client != nil {
			s.client.Close()
		}
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
	}
	_ = os.RemoveAll(c.dir)
}

// Report implements control.Server.
func (c *redisCluster) Report(r *control.Report) {
	r.CPU = 0
	for _, s := range c.servers {
		info, err := s.do("INFO", "cpu", "stats", "commandstats")
		if err != nil {
			continue // the figures show it
		}
		for _, key := range []string{"used_cpu_sys:", "used_cpu_user:"} {
			seconds, _ := strconv.ParseFloat(infoField(info, key), 64)
			r.CPU += time.Duration(seconds * float64(time.Second))
		}
		for _, command := range []string{"publish", "spublish"} {
			calls, _, _ := strings.Cut(infoField(info, "cmdstat_"+command+":calls="), ",")
			r.BrokerIn += count(calls)
		}
		r.BrokerBytesIn += count(infoField(info, "total_net_input_bytes:"))
		r.BrokerBytesOut += count(infoField(info, "total_net_output_bytes:"))
	}
}

// infoField returns the text behind key in a line of INFO.
func infoField(info, key string) string {
	for line := range strings.Lines(info) {
		if value, found := strings.CutPrefix(line, key); found {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

func count(text string) uint64 {
	n, _ := strconv.ParseUint(text, 10, 64)
	return n
}
