package client

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/qi-realtime/ws/codec"
)

// Phase is the kind of a State. Immutable.
type Phase int

// The phases.
const (
	Idle       Phase = iota // Connect has not been called
	Connecting              // an attempt to connect is under way
	Open                    // there is a connection
	Waiting                 // for the next attempt to connect
	Closed                  // for good
)

// String returns the name of p in lower case.
func (p Phase) String() string {
	return [...]string{"idle", "connecting", "open", "waiting", "closed"}[p]
}

// State is the state of a Client. Immutable.
type State struct {
	Phase   Phase
	RetryAt time.Time // of the next attempt, in phase Waiting
	// Err is the cause of the phases Waiting and Closed: a *CloseError, a *HandshakeError, an error of
	// the network or of WithPrepare, or ErrClosed after Close.
	Err error
}

// Client is a connection to a server that mends itself. It comes from New and ends with Close,
// or when the server asks it not to come back. While it is connected and idle it has one goroutine.
// Safe for concurrent use.
type Client struct {
	// Immutable.
	settings
	url    *url.URL
	prefix string // of request IDs
	done   chan struct{}

	mu    sync.Mutex
	space *sync.Cond // of mu: a call of the application has ended, or a request was sent

	// Guarded by mu.
	state       State
	opened      chan struct{} // closed when the client is open or closed
	goroutines  int
	failures    int  // in a row; they set the backoff
	refresh     bool // the server has refused the credentials
	subprotocol string
	retry       *time.Timer // of the next attempt, or of a move
	current     *link       // that requests are sent on; nil while Waiting
	next        *link       // that takes current's place, or nil
	links       []*link     // all, those that are being closed too

	nextID  uint64
	sent    map[string]*request // that wait for an answer
	repeats []*request          // that were sent on a lost connection, in order
	queue   []*request          // that were never sent, in order

	overlap *overlap // of the move that is under way, or nil

	rooms    map[string]*roomState
	joined   []*roomState // the rooms to be in, in the order of their joins
	handlers handlers
	raw      []*func(text bool, payload []byte)
	calls    callbacks
}

// New returns a client for the server at rawURL, which is like "wss://example.com/ws". Register
// callbacks, then call Connect. Requests before it wait in the queue.
func New(rawURL string, opts ...Option) (*Client, error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	c := &Client{
		settings: defaults(), url: u, prefix: newPrefix(),
		done: make(chan struct{}), opened: make(chan struct{}),
		sent: make(map[string]*request), rooms: make(map[string]*roomState), handlers: make(handlers),
	}
	c.space = sync.NewCond(&c.mu)
	for _, opt := range opts {
		opt(&c.settings)
	}
	if err := c.check(u); err != nil {
		return nil, err
	}
	if c.makeBefore {
		u.RawQuery = strings.TrimPrefix(u.RawQuery+"&notice=1", "&")
	}
	return c, nil
}

// Dial is New and Connect. Messages that the server sends before the first callback is
// registered are lost. After an error the client is closed.
func Dial(ctx context.Context, rawURL string, opts ...Option) (*Client, error) {
	c, err := New(rawURL, opts...)
	if err != nil {
		return nil, err
	}
	if err := c.Connect(ctx); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// Connect begins to connect, and waits until the client is open. It returns an error if the
// client is closed, or if ctx ends; the client then goes on trying until Close.
func (c *Client) Connect(ctx context.Context) error {
	c.mu.Lock()
	if c.state.Phase == Idle {
		c.dialLocked()
	}
	opened := c.opened
	c.mu.Unlock()
	select {
	case <-opened:
	case <-ctx.Done():
		return fmt.Errorf("client: connect: %w", ctx.Err())
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state.Phase == Closed {
		return c.state.Err
	}
	return nil
}

// Close closes the connection with 1000. Requests fail. Close does not wait, so a callback may
// call it; Done is closed when all has ended.
func (c *Client) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closeLocked(ErrClosed)
}

// Done is closed when the client is closed for good, its goroutines have ended and the last
// callback has returned. Err then returns the reason.
func (c *Client) Done() <-chan struct{} { return c.done }

// State returns the present state.
func (c *Client) State() State {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state
}

// Err returns the reason why the client is closed for good, or nil.
func (c *Client) Err() error {
	if s := c.State(); s.Phase == Closed {
		return s.Err
	}
	return nil
}

// Subprotocol returns the server's choice on the latest connection, or "".
func (c *Client) Subprotocol() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.subprotocol
}

// On registers a callback for notifications of an event that belong to no room. off removes it.
func (c *Client) On(event string, fn func(Notify)) (off func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.offLocked(c.handlers.addLocked(event, fn), func() {})
}

// OnRaw registers a callback for messages that are no response, error or notification, such as those
// of BroadcastToRoom. The payload must not be changed. off removes the callback.
func (c *Client) OnRaw(fn func(text bool, payload []byte)) (off func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.offLocked(addLocked(&c.raw, fn), func() {})
}

// setStateLocked changes the state and reports the change.
func (c *Client) setStateLocked(s State) {
	c.state = s
	if s.Phase == Open || s.Phase == Closed {
		select {
		case <-c.opened:
		default:
			close(c.opened)
		}
	}
	if c.onStateChange != nil {
		c.callLocked(func() { c.onStateChange(s) })
	}
}

// closeLocked closes the client for good.
func (c *Client) closeLocked(reason error) {
	if c.state.Phase == Closed {
		return
	}
	c.setStateLocked(State{Phase: Closed, Err: reason})
	c.stopRetryLocked()
	for _, r := range c.joined {
		r.endAcksLocked()
	}
	for _, l := range c.links {
		if l.open {
			l.closeLocked(codec.CloseNormal)
		}
		l.cancel()
	}
	c.current, c.next, c.overlap = nil, nil, nil
	c.failAllLocked()
	for _, r := range slices.Clone(c.joined) {
		r.stopLocked(answer{err: c.closedLocked()})
	}
	c.space.Broadcast()
	c.endedLocked()
}

// closedLocked returns ErrClosed with the reason.
func (c *Client) closedLocked() error {
	if reason := c.state.Err; reason != ErrClosed { //nolint:errorlint // it is never wrapped
		return fmt.Errorf("%w: %w", ErrClosed, reason)
	}
	return ErrClosed
}

// startLocked starts a goroutine of the client; fn ends with goroutineEndedLocked.
func (c *Client) startLocked(fn func()) {
	c.goroutines++
	go fn()
}

func (c *Client) goroutineEndedLocked() {
	c.goroutines--
	c.endedLocked()
}

// endedLocked closes done after the end of a closed client's last goroutine.
func (c *Client) endedLocked() {
	if c.state.Phase == Closed && c.goroutines == 0 {
		select {
		case <-c.done:
		default:
			close(c.done)
		}
	}
}

// receive handles a data message of l. The payload is borrowed.
func (c *Client) receive(l *link, text bool, payload []byte) {
	var in incoming
	known := text && json.Unmarshal(payload, &in) == nil
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state.Phase == Closed {
		return
	}
	switch {
	case known && (in.Type == typeResponse || in.Type == typeError):
		c.answerLocked(l, &in)
	case known && in.Type == typeNotify:
		c.notifyLocked(l, &in, payload)
	case len(c.raw) > 0:
		c.plainLocked(l, nil, plain{text: text, payload: bytes.Clone(payload)}, payload)
	}
}

func (c *Client) notifyLocked(l *link, in *incoming, payload []byte) {
	r := c.rooms[in.Room]
	switch {
	case in.Room == "" && in.Event == eventReconnect:
		c.noticeLocked(l, in.Data)
	case in.Room == "" || in.Offset == 0 && !in.isGapOfHistory():
		c.plainLocked(l, r, plain{in: in}, payload)
	case r != nil:
		r.receiveLocked(l, in)
	}
}
