package natsbroker

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/qi-realtime/ws"
)

const (
	apiPrefix = "$JS.API."
	// longestTry bounds a call of the store. It is shorter than the window in which a server knows the
	// ID of a message again.
	longestTry = 15 * time.Second
	dedupe     = 2 * longestTry
	// attempt bounds the first of the attempts of a call; each of the next ones has twice the time.
	attempt = time.Second
	// opening bounds a look at the stream: nobody answers while it has no leader.
	opening = 2 * time.Second
	// pause is the time after the first attempt.
	pause = 10 * time.Millisecond
)

// store is the part of a Broker that speaks to JetStream. Safe for concurrent use.
type store struct {
	// Immutable.
	broker  *Broker
	cfg     HistoryConfig
	streams []*stream
	id      string

	messages atomic.Uint64 // with an ID
	getter   atomic.Pointer[getter]

	mu   sync.Mutex
	conn context.Context    // ends with the connection; guarded by mu
	end  context.CancelFunc // guarded by mu
}

func newStore(b *Broker, cfg HistoryConfig) *store {
	s := &store{broker: b, cfg: cfg, id: rand.Text()[:12]}
	s.conn, s.end = context.WithCancel(b.dialer.ctx)
	for i := range cfg.Streams {
		s.streams = append(s.streams, newStream(s, i))
	}
	return s
}

// connected begins the time of a connection, after which calls may use it.
func (s *store) connected(nc *nats.Conn) {
	s.mu.Lock()
	s.end()
	s.conn, s.end = context.WithCancel(s.broker.dialer.ctx)
	s.mu.Unlock()
	for _, stream := range s.streams { // which the server may have lost meanwhile
		stream.known.Store(false)
	}
	if !nc.IsConnected() { // otherwise nats.go calls disconnected later
		s.disconnected()
	}
}

// disconnected ends all calls.
func (s *store) disconnected() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.end()
}

// connection returns a context that ends with the present connection.
func (s *store) connection() context.Context {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.conn
}

// messageID returns an ID by which a server knows a message again.
func (s *store) messageID() string {
	return fmt.Sprintf("%s%x", s.id, s.messages.Add(1))
}

// try calls f until it succeeds, fails for good, or ctx, the connection or longestTry ends.
func (s *stream) try(ctx context.Context, call string, f func(context.Context, *state) error) error {
	conn := s.store.connection()
	if conn.Err() != nil || !s.store.broker.gate.isOpen() {
		return ErrDown
	}
	inner, cancel := context.WithTimeout(ctx, longestTry)
	defer cancel()
	defer context.AfterFunc(conn, cancel)()
	for n := 0; ; n++ {
		err := s.once(inner, n, f)
		if err == nil {
			return nil
		}
		if inner.Err() == nil && temporary(err) {
			if n > 3 || !errors.Is(err, errStale) {
				s.known.Store(false)
			}
			select {
			case <-time.After(min(pause<<min(n, 8), time.Second)):
				continue
			case <-inner.Done():
			}
		}
		switch {
		case conn.Err() != nil:
			return ErrDown
		case ctx.Err() != nil:
			return fmt.Errorf("natsbroker: %s: %w: %w", call, context.Cause(ctx), err)
		case temporary(err):
			return fmt.Errorf("natsbroker: %s: %w: %w", call, ws.ErrBrokerUnavailable, err)
		default:
			return fmt.Errorf("natsbroker: %s: %w", call, err)
		}
	}
}

// once makes attempt n.
func (s *stream) once(ctx context.Context, n int, f func(context.Context, *state) error) error {
	ctx, cancel := context.WithTimeout(ctx, attempt<<min(n, 3))
	defer cancel()
	st, err := s.ready(ctx)
	if err != nil {
		return err
	}
	return f(ctx, st)
}

// Errors after which try calls again.
var (
	errStale      = errors.New("natsbroker: a replica is behind")
	errNoEpoch    = errors.New("natsbroker: a stream has no epoch")
	errIncomplete = errors.New("natsbroker: an answer is incomplete")
	errLoss       = errors.New("natsbroker: a stream has lost messages")
)

// temporary reports whether another attempt may succeed.
func temporary(err error) bool {
	if e, ok := errors.AsType[*jetstream.APIError](err); ok {
		return (e.Code == 503 || e.Code == 429 || e.ErrorCode == jetstream.JSErrCodeStreamNotFound) &&
			!isCode(err, jetstream.JSErrCodeJetStreamNotEnabled, jetstream.JSErrCodeJetStreamNotEnabledForAccount)
	}
	return errors.Is(err, nats.ErrNoResponders) || errors.Is(err, context.DeadlineExceeded) ||
		errors.Is(err, errStale) || errors.Is(err, errNoEpoch) || errors.Is(err, errIncomplete) ||
		errors.Is(err, errLoss)
}

// request sends m, and waits for one answer.
func (s *store) request(ctx context.Context, m *nats.Msg) (*nats.Msg, error) {
	nc := s.broker.nc.Load()
	answer, err := nc.RequestMsgWithContext(ctx, m)
	switch {
	case errors.Is(err, nats.ErrReconnectBufExceeded), errors.Is(err, nats.ErrConnectionClosed):
		return nil, ErrDown
	case errors.Is(err, nats.ErrMaxPayload):
		return nil, fmt.Errorf("%w: %d bytes, where max_payload of the server is %d", err, len(m.Data), nc.MaxPayload())
	}
	return answer, err
}

// call calls a function of the JetStream API.
func (s *store) call(ctx context.Context, function string, req, resp any) error {
	data, err := json.Marshal(req)
	if err != nil {
		return err
	}
	answer, err := s.request(ctx, &nats.Msg{Subject: apiPrefix + function, Data: data})
	if errors.Is(err, nats.ErrNoResponders) {
		return fmt.Errorf("%w: %w", ws.ErrBrokerUnavailable, jetstream.ErrJetStreamNotEnabled)
	}
	if err != nil {
		name, _, _ := strings.Cut(function, "ws")
		return fmt.Errorf("%s: %w", name, err)
	}
	return decode(answer.Data, resp)
}

// decode returns the error in a response of the API, or decodes it.
func decode(data []byte, resp any) error {
	var failed struct {
		Error *jetstream.APIError `json:"error"`
	}
	if err := json.Unmarshal(data, &failed); err != nil {
		return err
	}
	if failed.Error != nil {
		return failed.Error
	}
	return json.Unmarshal(data, resp)
}

// isCode reports whether err is an error of the API with one of the codes.
func isCode(err error, codes ...jetstream.ErrorCode) bool {
	e, ok := errors.AsType[*jetstream.APIError](err)
	return ok && slices.Contains(codes, e.ErrorCode)
}
