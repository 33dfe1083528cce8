package ws

import (
	"context"
	"strings"
	"time"

	"github.com/qi-realtime/ws/internal/history"
)

// Inbox bounds the inboxes of users. The inbox of a user is the room "@user:" and the name of the
// user (see WithUser), with a history. It begins with its first message or its first join, also
// while the user is not connected. Only the clients of the user may join it, each as a device with
// a name, and acknowledge its messages (ws.ack of HandleJoin, or Client.Ack). The server stores the
// last acknowledged offset of each device, and a device that joins without a position begins there:
// a message comes again until the device has acknowledged it. Messages that all devices
// have acknowledged are dropped. docs/delivery.md describes the messages, and the bounds.
//
// A zero field has its default. Immutable after New.
type Inbox struct {
	// Size and Bytes bound the messages of each inbox as those of History do. Default 100 and 256 KiB.
	Size  int
	Bytes int64
	// TTL is the time from the publication of a message to its end. A device that was not
	// connected for that time is forgotten, and so is an inbox without a device and a new message
	// for that time. Default 5 minutes.
	TTL time.Duration
	// MaxDevices bounds the devices of a user. A device beyond it takes the place of the one that
	// was not seen for the longest time, and never of a connected one. Default 16, 256 at most.
	MaxDevices int
}

const (
	defaultMaxDevices = 16
	maxMaxDevices     = 256
	// maxDeviceName is the greatest length of the name of a device, in bytes.
	maxDeviceName = 128
	// inboxPrefix is the beginning of the IDs of inboxes.
	inboxPrefix = "@user:"
)

// inboxConfig is an Inbox with its defaults. Immutable.
type inboxConfig struct {
	history history.Config
	devices int
}

// config returns i with its defaults, nil if i is nil, or an error that wraps ErrInvalidConfig.
func (i *Inbox) config() (*inboxConfig, error) {
	if i == nil {
		return nil, nil
	}
	h, err := History{i.Size, i.Bytes, i.TTL}.config("Inbox")
	cfg := &inboxConfig{h, i.MaxDevices}
	if cfg.devices == 0 {
		cfg.devices = defaultMaxDevices
	}
	return cfg, firstError(err, invalidIf(i.TTL < 0, "Inbox.TTL", "must not be negative"),
		between("Inbox.MaxDevices", cfg.devices, 1, maxMaxDevices))
}

// isInbox reports whether the room of that ID is an inbox.
func (m *Manager) isInbox(id string) bool {
	return m.inboxes != nil && strings.HasPrefix(id, inboxPrefix)
}

// mayEnter returns an error if the client must not be in the room because it is the inbox of
// another user, or if the device has no valid name.
func (c *Client) mayEnter(id, device string) error {
	if !c.manager.isInbox(id) {
		return nil
	}
	switch user := c.User(); {
	case user == "" || id[len(inboxPrefix):] != user:
		return ErrForbidden
	case len(device) > maxDeviceName:
		return ErrInvalidDevice
	}
	return nil
}

// PublishToInbox is PublishEvent to the inbox of a user: the name of WithUser, or the decimal text
// of the ID of WithUserID. The user need not be connected. It returns ErrNoInbox without WithInbox,
// and for the user "". Safe for concurrent use.
func (m *Manager) PublishToInbox(ctx context.Context, user, event string, v any) (Position, error) {
	if m.inboxes == nil {
		return Position{}, ErrNoInbox
	}
	return m.PublishEvent(ctx, inboxPrefix+user, event, v)
}

// PublishToInbox is Manager.PublishToInbox with v of the event's type. Safe for concurrent use.
func (e TypedEvent[T]) PublishToInbox(ctx context.Context, user string, v T) (Position, error) {
	return e.manager.PublishToInbox(ctx, user, e.name, v)
}

// Ack notes that the client's device has handled the messages of its inbox up to the offset, so
// that it does not get them again when it joins without a position. An offset below an earlier one
// has no effect. It returns ErrInvalidAck, and has no effect, if the client is not in the room, if
// the room is no inbox, or if the client was not sent a message of that offset; and
// ErrConnectionClosed. Safe for concurrent use.
func (c *Client) Ack(roomID string, offset uint64) error {
	c.mu.Lock()
	mem, _ := c.roomLocked(roomID)
	c.mu.Unlock()
	if mem != nil {
		if h := mem.Room().Data().history; h != nil && h.ack(mem, offset) {
			return nil
		}
	}
	if !c.conn.Open() {
		return ErrConnectionClosed
	}
	c.manager.histories.invalidAcks.Add(1)
	return ErrInvalidAck
}

// inbox is the part of the history of an inbox that other histories lack.
//
// Guarded by roomHistory.mu.
type inbox struct {
	id      string // of the room; immutable
	devices history.Devices
	members map[*membership]*inboxMember // nil while nobody is in the inbox
	used    time.Duration                // time at which the last message came, or the last member left
	lost    []Undelivered                // to be published
}

// inboxMember is a connection of a device. Guarded by roomHistory.mu.
type inboxMember struct {
	device string
	loop   int
	behind bool   // it has got the messages up to the cursor; otherwise all that its loop has fanned out
	cursor uint64 // valid if behind
}

// inboxMemory is the memory of an inbox without messages, members, devices and tops, in bytes.
const inboxMemory = 600

// beginInbox makes h, which no other goroutine has yet, the history of the inbox of that ID.
func (h *roomHistory) beginInbox(id string, devices int) {
	h.inbox = &inbox{
		id: strings.Clone(id), devices: history.NewDevices(devices), used: h.all.clock(),
	}
	h.all.inboxes.Add(1)
	h.weighLocked()
}

// idleMemoryLocked returns the memory of an inbox without members, beside its messages; 0 for another
// room. An inbox with members is part of the memory of their connections, which MaxConnections
// bounds.
func (h *roomHistory) idleMemoryLocked() int64 {
	if h.inbox == nil || len(h.inbox.members) > 0 {
		return 0
	}
	return inboxMemory + 8*int64(len(h.tops)) + h.inbox.devices.Bytes()
}

// start returns the position at which a device begins that has none.
func (x *inbox) start(epoch, device string, base uint64) Position {
	if offset, known := x.devices.Acked(device); known {
		return Position{epoch, offset}
	}
	return Position{epoch, base}
}

// enterInboxLocked adds a member that begins at the cursor.
func (h *roomHistory) enterInboxLocked(mem *membership, loop int, device string, cursor uint64) {
	h.inbox.devices.Join(device, h.log.Base(), h.all.clock())
	if h.inbox.members == nil {
		h.inbox.members = make(map[*membership]*inboxMember)
	}
	h.inbox.members[mem] = &inboxMember{device: device, loop: loop, behind: true, cursor: cursor}
	h.weighLocked()
}

// leaveInbox removes a member. It has no effect on one that is not there.
func (h *roomHistory) leaveInbox(mem *membership) {
	if h == nil || h.inbox == nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if x := h.inbox.members[mem]; x != nil {
		h.inbox.used = h.all.clock()
		h.inbox.devices.Leave(x.device, h.inbox.used)
		delete(h.inbox.members, mem)
		if len(h.inbox.members) == 0 {
			h.inbox.members = nil
		}
		h.trimLocked()
	}
}

// ack notes an acknowledgement, and returns false if it is invalid.
func (h *roomHistory) ack(mem *membership, offset uint64) bool {
	if h.inbox == nil {
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	x := h.inbox.members[mem]
	if x == nil || h.ended || offset > h.sentLocked(x) {
		return false
	}
	if h.inbox.devices.Ack(x.device, offset, h.all.clock()) {
		h.trimLocked()
	}
	return true
}

// sentLocked returns the offset of the last message that was queued for the member, or is next.
func (h *roomHistory) sentLocked(x *inboxMember) uint64 {
	if x.behind {
		return x.cursor
	}
	return h.tops[x.loop]
}

// trimLocked drops the messages that all devices have acknowledged, but those that a member still
// has to get: one that has asked for them, or another connection of a device.
func (h *roomHistory) trimLocked() {
	offset, known := h.inbox.devices.Least()
	if known && offset > h.log.Base() {
		for _, x := range h.inbox.members {
			offset = min(offset, h.sentLocked(x))
		}
		h.log.Trim(offset)
	}
	h.weighLocked()
}

// setTopInLoop notes that the loop has begun to fan out the messages up to top. Ack reads it for an
// inbox on other goroutines, so there mu is held.
func (h *roomHistory) setTopInLoop(loop int, top uint64) {
	if h.inbox != nil {
		h.mu.Lock()
		defer h.mu.Unlock()
	}
	h.tops[loop] = top
}

// setBehindInLoop notes whether a member of an inbox is behind, and up to which offset it has got the
// messages.
func (h *roomHistory) setBehindInLoop(mem *membership, behind bool, cursor uint64) {
	if h.inbox == nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if x := h.inbox.members[mem]; x != nil {
		x.behind, x.cursor = behind, cursor
	}
}

// refreshInboxLocked forgets devices that were away for the TTL. It reports whether the inbox was not used for
// that time: it has no message then.
func (h *roomHistory) refreshInboxLocked(now time.Duration) (unused bool) {
	h.inbox.devices.Forget(now - h.ttl)
	h.trimLocked()
	return len(h.inbox.members) == 0 && now-h.inbox.used >= h.ttl
}

// endInbox ends an inbox without messages and members that was not used after that time. Publishers
// and joins have the lock, too, so they find the room ended or keep it.
func (m *Manager) endInbox(h *roomHistory, before time.Duration) {
	r, ok := m.rooms.Get(h.inbox.id)
	if !ok || r.Data().history != h {
		return
	}
	h.mu.Lock()
	ended := h.log.Len() == 0 && len(h.inbox.members) == 0 && h.inbox.used <= before && m.rooms.EndKeptIfEmpty(r)
	h.mu.Unlock()
	if ended {
		m.histories.end(h)
		m.roomChanged(h.inbox.id)
	}
}
