package ws

import (
	"crypto/tls"
	"net/http"
	"net/netip"
	"strings"
	"time"
)

// To add an option, see Config.settings. options_plain.go has the options that set one field.

// Option sets one field of the Config of a new Manager.
type Option func(*Config)

// WithConfig replaces the whole configuration. Options after it change it.
func WithConfig(cfg Config) Option { return func(c *Config) { *c = cfg } }

// WithMaxLifetime sets Config.MaxLifetime and Config.MaxLifetimeJitter: each connection lives for
// d, less a random part of jitter, and then ends as in a Drain with the defaults: a client of
// WithReconnectNotice gets the notice and has time to move, the others are closed with 1012 and
// {"retry_ms":n}. So connections spread over the servers again after one was added, and a deploy
// finds clients that know how to move. Example: 30 minutes and a jitter of 3. Connections that
// came at once end within jitter, so it should be some minutes. LoopStats.Retired counts.
func WithMaxLifetime(d, jitter time.Duration) Option {
	return func(c *Config) { c.MaxLifetime, c.MaxLifetimeJitter = d, jitter }
}

// WithSocketBuffers sets Config.RecvBuffer and Config.SendBuffer, in bytes.
func WithSocketBuffers(recv, send int) Option {
	return func(c *Config) { c.RecvBuffer, c.SendBuffer = recv, send }
}

// WithCheckOriginWhitelist sets Config.OriginWhitelist. It clears the fields of
// WithCheckOrigin and WithAllowAllOrigins, as each of the three does: the last one holds.
func WithCheckOriginWhitelist(origins []string) Option {
	return func(c *Config) { c.OriginWhitelist, c.CheckOrigin, c.AllowAllOrigins = origins, nil, false }
}

// WithCheckOrigin sets Config.CheckOrigin; see WithCheckOriginWhitelist.
func WithCheckOrigin(check func(*http.Request) bool) Option {
	return func(c *Config) { c.OriginWhitelist, c.CheckOrigin, c.AllowAllOrigins = nil, check, false }
}

// WithAllowAllOrigins sets Config.AllowAllOrigins; see WithCheckOriginWhitelist.
func WithAllowAllOrigins() Option {
	return func(c *Config) { c.OriginWhitelist, c.CheckOrigin, c.AllowAllOrigins = nil, nil, true }
}

// WithCompression sets Config.EnableCompression and Config.Compression: messages
// are compressed for clients that ask for it.
func WithCompression(cc CompressionConfig) Option {
	return func(c *Config) { c.EnableCompression, c.Compression = true, cc }
}

// WithEnableCompression sets Config.EnableCompression; see WithCompression.
func WithEnableCompression(on bool) Option { return func(c *Config) { c.EnableCompression = on } }

// WithJSON sets Config.JSONMarshal and Config.JSONUnmarshal, which encode and decode the
// application's values in place of json.Marshal and json.Unmarshal: the data of requests and
// responses, of errors, and the values of SendJSON. A nil function is the one of encoding/json.
// The package reads and writes the envelope itself, and NewMessage, which knows no Manager,
// uses encoding/json. See docs/json.md for libraries.
//
// marshal returns JSON in UTF-8, which nobody checks, and leaves the bytes unchanged afterwards.
// The data of unmarshal is borrowed: v must not refer to it when unmarshal returns. A client
// reads the field that is wrong if the error of unmarshal is a *json.UnmarshalTypeError, and
// "invalid data" otherwise. Both run on the goroutine of the handler or sender, several at once.
func WithJSON(marshal func(v any) ([]byte, error), unmarshal func(data []byte, v any) error) Option {
	return func(c *Config) { c.JSONMarshal, c.JSONUnmarshal = marshal, unmarshal }
}

// WithIdempotency sets Idempotency.Window: a client may repeat a request with the same
// request_id after it has connected again, if the request has the field "idempotent":true. The
// handler runs once, and the client gets the first reply. See Idempotency. Example: 2 minutes.
func WithIdempotency(window time.Duration) Option {
	return func(c *Config) { c.Idempotency.Window = window }
}

// WithInbox gives users inboxes; see Inbox. Without it, a room with the name of an inbox is a room
// like any other.
func WithInbox(inbox Inbox) Option { return func(c *Config) { c.Inbox = &inbox } }

// WithIdempotencyBytes sets Idempotency.Bytes and Idempotency.PerUser.
func WithIdempotencyBytes(total, perUser int64) Option {
	return func(c *Config) { c.Idempotency.Bytes, c.Idempotency.PerUser = total, perUser }
}

// WithBroker sets Config.Broker: the manager becomes a node of a cluster, together with the
// managers whose brokers speak to the same server. BroadcastToRoom, Publish, PublishEvent,
// BroadcastToUser and BroadcastAll then reach the clients of all nodes. Rooms with a history need a
// HistoryBroker. docs/cluster.md has the guarantees. b serves this manager alone.
func WithBroker(b Broker) Option { return func(c *Config) { c.Broker = b } }

// WithListenAddr sets Config.ListenAddr, for example "tcp://:8080".
func WithListenAddr(addr string) Option { return func(c *Config) { c.ListenAddr = addr } }

// WithTLSConfig sets Config.TLSConfig: clients of ListenAddr and Serve connect with
// TLS (wss://). The standard crypto/tls does it, with no goroutine for each
// connection. config is copied; the copy offers the protocol http/1.1 by ALPN
// unless NextProtos is set, and has DynamicRecordSizingDisabled set.
// GetCertificate and the other callbacks run on a worker and may block for a
// while; their context ends with the connection, HandshakeTimeout at the latest.
// A new certificate of GetCertificate serves the handshakes that follow. The TLS field of
// the request of WithAuthenticate holds the state of the connection, such as the client's
// certificate.
func WithTLSConfig(config *tls.Config) Option { return func(c *Config) { c.TLSConfig = config } }

// WithTrustedProxies sets Config.TrustedProxies: the addresses of the proxies in front of the
// server, such as netip.MustParsePrefix("10.0.0.5/32"). Then RemoteAddr of the client and of the
// request of WithAuthenticate, limits by address and logs mean the client, on both paths, with
// port 0 if the proxies do not report its port.
//
// A trusted proxy reports the client in X-Forwarded-For, or in Forwarded (RFC 7239) if the request
// has no X-Forwarded-For; ListenAddr and Serve also take the PROXY protocol, see
// WithProxyProtocol. The lines are read from the right: the client is the first address that is
// no trusted proxy's. An entry that is no address ends the search at the proxy that wrote it.
// Lines of any other peer are not believed.
//
// A peer over a Unix socket is trusted with any list, and WithTrustedProxies() trusts no other. Do
// not list a network of clients: one of them could name any address. A proxy must write one of the
// two lines and remove the other one, if it does not write both; see docs/proxies.md. Middleware
// before HandleUpgrade must not change the request's RemoteAddr.
func WithTrustedProxies(prefixes ...netip.Prefix) Option {
	return func(c *Config) { c.TrustedProxies = append([]netip.Prefix{}, prefixes...) }
}

// WithProxyProtocol sets Config.ProxyProtocol: a connection to ListenAddr or Serve must begin with
// a header of the PROXY protocol, version 1 or 2, ahead of the TLS handshake. The address in it
// takes the place of the connection's own, which stays if the header names none, as in health
// checks. A connection that begins otherwise is refused with 400 and counted in
// RefusalCounts.Proxy.
//
// With WithTrustedProxies that holds for the connections of these proxies, and the others begin
// as usual, because their header would not be believed. Without it the header of anybody is
// believed: nobody but the proxy may be able to connect.
func WithProxyProtocol() Option { return func(c *Config) { c.ProxyProtocol = true } }

// WithAdmission sets Config.Admission: it accepts a storm of new connections at a pace, and
// refuses the connections of an address that has too many, for example
// Admission{PerSecond: 2000, PerIP: 5, PerIPConnections: 100, Polite: 50}.
func WithAdmission(a Admission) Option { return func(c *Config) { c.Admission = a } }

// WithHeadLimits sets Config.HeadBytes and Config.HeadLines.
func WithHeadLimits(bytes, lines int) Option {
	return func(c *Config) { c.HeadBytes, c.HeadLines = bytes, lines }
}

// WithPath sets Config.Paths, for example "/ws", or "/rooms/" for all paths below it.
func WithPath(paths ...string) Option { return func(c *Config) { c.Paths = paths } }

// WithHealthPaths sets Config.LivePath and Config.ReadyPath; "" turns one off.
func WithHealthPaths(live, ready string) Option {
	return func(c *Config) { c.LivePath, c.ReadyPath = live, ready }
}

// WithAuthenticate sets Config.Authenticate: auth decides on each upgrade
// request before it is answered, on both paths, and
// returns the options of the client. An error refuses with 401, or with the
// status of a *HandshakeError. It may block: it runs off the event loops, on
// the goroutine of HandleUpgrade or on a worker, and the request's context ends
// after HandshakeTimeout. The request's body is empty, and its strings share one
// piece of memory: use strings.Clone for strings that metadata keeps.
func WithAuthenticate(auth func(*http.Request) ([]ClientOption, error)) Option {
	return func(c *Config) { c.Authenticate = auth }
}

// WithSubprotocols sets Config.Subprotocols, in order of preference.
func WithSubprotocols(protos ...string) Option { return func(c *Config) { c.Subprotocols = protos } }

// WithRoomConfig sets Config.Room as a whole. To change a part of it, begin with the Room of
// DefaultConfig.
func WithRoomConfig(r RoomConfig) Option { return func(c *Config) { c.Room = r } }

// WithBroadcastConfig sets Config.Broadcast as a whole. To change a part of it, begin with the
// Broadcast of DefaultConfig.
func WithBroadcastConfig(b BroadcastConfig) Option { return func(c *Config) { c.Broadcast = b } }

// WithMaxRoomsPerClient bounds the rooms that a client is in at once; see
// RoomConfig.MaxRoomsPerClient.
func WithMaxRoomsPerClient(n int) Option { return func(c *Config) { c.Room.MaxRoomsPerClient = n } }

// WithMaxRoomName bounds a room's ID in bytes; see RoomConfig.MaxRoomName.
func WithMaxRoomName(n int) Option { return func(c *Config) { c.Room.MaxRoomName = n } }

// ClientOption sets a property of one client at its upgrade.
type ClientOption func(*clientOptions)

// clientOptions holds the fields that ClientOptions set.
type clientOptions struct {
	id     string
	user   user
	meta   map[string]any
	rooms  []string
	header http.Header
	place  string
	traits traits
}

// WithMetadata sets one entry of the client's metadata.
func WithMetadata(key string, value any) ClientOption {
	return func(o *clientOptions) {
		if o.meta == nil {
			o.meta = make(map[string]any)
		}
		o.meta[key] = value
	}
}

// WithPlacement puts the client on the event loop that key selects: clients with the same
// key, such as the name of their room, share a loop. A message to a room wakes each loop that
// has members, so one to ten members on one loop costs less than one to ten on ten loops, and
// the writes of a loop go to the kernel together. The members of a room may have different
// keys, and a client may join any rooms.
//
// The loops share the work only if no key has many clients: with more than a few hundred, let
// them have none. Without a key, the loops get about as many clients each. WithAuthenticate
// returns this option, or HandleUpgrade takes it. A client of the native path moves to its
// loop before it is answered, which takes about 90 µs of CPU; if there are no descriptors left
// for that, it stays. Clients of a Simnet stay, too.
func WithPlacement(key string) ClientOption {
	return func(o *clientOptions) { o.place = key }
}

// WithRooms makes the client a member of rooms, as if it called JoinRoom for each,
// before its 101 is sent: it gets all messages that are published after it has read the 101. An error
// of JoinRoom closes the client with code 1008. Several of these options add up. A copy
// of ids is kept.
func WithRooms(ids ...string) ClientOption {
	return func(o *clientOptions) {
		for _, id := range ids {
			o.rooms = append(o.rooms, strings.Clone(id)) // not a part of the request's head
		}
	}
}

// WithResponseHeader adds lines to the answer that accepts the client, such as
// Set-Cookie; a refusal does not have them, see HandshakeError.Header. Several of
// these options add up. Lines of the handshake itself (Connection, Upgrade,
// Sec-WebSocket-...), lines that announce a body, malformed names and control
// characters in values are a mistake of the application: they refuse the client with 500,
// and HandleUpgrade returns the error, or the native path logs it. h must not change until
// the client is connected.
func WithResponseHeader(h http.Header) ClientOption {
	return func(o *clientOptions) {
		if o.header == nil {
			o.header = make(http.Header, len(h))
		}
		for name, values := range h {
			o.header[name] = append(o.header[name], values...)
		}
	}
}

// WithClientID sets the client's ID in place of a random one. If a connected
// client has it, Config.DuplicateID decides. "" is a random ID.
func WithClientID(id string) ClientOption {
	return func(o *clientOptions) {
		o.id, o.traits = id, o.traits&^named
		if id != "" {
			o.traits |= named
		}
	}
}
