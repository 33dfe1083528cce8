package redisbroker

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/redis/rueidis"
)

// Config holds the settings of a Broker. The zero value is valid.
type Config struct {
	// Options are options of rueidis: InitAddress (default 127.0.0.1:6379), Username, Password,
	// TLSConfig, Sentinel, ClientName and others. The Broker sets those of retries, caches, timeouts
	// and connections after them, and calls DialCtxFn and DialFn for connections of its own.
	Options rueidis.ClientOption
	// Prefix begins each channel and key. Clusters of nodes that share a server need different ones. Any bytes
	// but "{" and "}". Default is "ws".
	Prefix string
	// Sharded uses sharded pub/sub (SSUBSCRIBE, SPUBLISH), which a Redis Cluster needs. All nodes
	// have to agree on it.
	Sharded bool
	// Partitions is the number of hash tags that topics are divided into with Sharded. They are spread
	// evenly over the slots of a Redis Cluster. A node makes one connection for each. All nodes
	// have to agree on it. Default is 16.
	Partitions int
	// MaxInFlight bounds the messages that were sent and have no reply, and again those that wait to be
	// sent with the next pipeline. Default is 1,024.
	MaxInFlight int
	// ReconnectWait is the time between two attempts to connect, to which a random time up to the
	// same length is added. Default is 500 ms.
	ReconnectWait time.Duration
	// PingInterval is the time after which a connection is checked with a ping. Default is 1 s.
	PingInterval time.Duration
	// Timeout bounds a dial, and the wait for the answer to a ping, to published messages and to
	// subscriptions. Default is 3 s.
	Timeout time.Duration
}

// maxPartitions bounds Config.Partitions.
const maxPartitions = 1024

// defaultTo sets a field that is zero.
func defaultTo[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// complete sets the defaults, and returns an error for an invalid setting.
func (c *Config) complete() error {
	if len(c.Options.InitAddress) == 0 {
		c.Options.InitAddress = []string{"127.0.0.1:6379"}
	}
	defaultTo(&c.Prefix, "ws")
	defaultTo(&c.Partitions, 16)
	defaultTo(&c.MaxInFlight, 1024)
	defaultTo(&c.ReconnectWait, 500*time.Millisecond)
	defaultTo(&c.PingInterval, time.Second)
	defaultTo(&c.Timeout, 3*time.Second)
	if c.MaxInFlight < 0 || c.ReconnectWait < 0 || c.PingInterval < 0 || c.Timeout < 0 {
		return errors.New("redisbroker: a setting is negative")
	}
	if c.Partitions < 0 || c.Partitions > maxPartitions {
		return fmt.Errorf("redisbroker: Partitions is %d, not between 1 and %d", c.Partitions, maxPartitions)
	}
	if !c.Sharded {
		c.Partitions = 1
	}
	if strings.ContainsAny(c.Prefix, "{}") {
		return errors.New("redisbroker: the prefix has a brace, which belongs to hash tags")
	}
	c.setOptions()
	return nil
}

// setOptions sets the options of rueidis that the Broker relies on.
func (c *Config) setOptions() {
	o := &c.Options
	o.DisableRetry = true // an unanswered message is told, and not sent twice
	o.DisableCache = true
	o.AlwaysRESP2 = false    // a connection with subscriptions has to answer other commands
	o.PipelineMultiplex = -1 // one connection for messages, which keeps their order
	o.OnInvalidations = nil  // it belongs to the cache
	o.SendToReplicas = nil   // a publisher and its subscribers meet at the primary
	o.ConnLifetime = 0       // the end of a connection is a gap
	o.Dialer.Timeout = c.Timeout
	o.Dialer.KeepAlive = c.PingInterval // which rueidis takes as its interval of pings
	o.ConnWriteTimeout = c.Timeout
	defaultTo(&o.RingScaleEachConn, 10) // more places than maxScripts
	defaultTo(&o.ReadBufferEachConn, 64<<10)
	defaultTo(&o.WriteBufferEachConn, 64<<10)
}

// wait returns a random time between attempts.
func (c *Config) wait() time.Duration { return c.ReconnectWait + rand.N(c.ReconnectWait) }
