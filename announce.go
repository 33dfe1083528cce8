package ws

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/qi-realtime/ws/engine"
	"github.com/qi-realtime/ws/internal/envelope"
)

// eventPresence is the notification of presence, and the request for the list.
const eventPresence = "ws.presence"

const (
	countInterval = time.Second           // between two notifications of numbers
	presenceDelay = 10 * time.Millisecond // from a change to its notification, to collect others
	presencePage  = 500                   // users in a notification of the list
)

// scheduleLocked schedules the next run, if there is something to do.
func (p *roomPresence) scheduleLocked() {
	if p.hasNewsLocked() || p.isUnusedLocked() {
		p.all.schedule(p, max(p.all.now()+presenceDelay, p.ranAt+p.intervalLocked()))
	}
	if at, ok := p.view.NextHold(); ok {
		p.all.schedule(p, at)
	}
	if p.all.node != nil {
		if at, ok := p.nextShareLocked(p.all.now()); ok {
			p.all.schedule(p, at)
		}
	}
}

// hasNewsLocked reports whether there are members to notify.
func (p *roomPresence) hasNewsLocked() bool {
	switch {
	case len(p.clients) == 0:
		return false
	case len(p.news) > 0, p.reset:
		return true
	case p.cfg.List && !p.over:
		return p.view.Changed()
	}
	return p.numbersLocked() != p.told
}

// isUnusedLocked reports whether nobody is here, and the other nodes know that.
func (p *roomPresence) isUnusedLocked() bool {
	return len(p.clients) == 0 && p.view.Here() == 0 && !p.view.Unsent()
}

func (p *roomPresence) intervalLocked() time.Duration {
	if p.over {
		return max(p.cfg.Interval, countInterval)
	}
	return p.cfg.Interval
}

// run does all that is due.
func (p *roomPresence) run() {
	p.mu.Lock()
	now := p.all.now()
	p.view.Expire(now)
	if p.all.node != nil {
		p.shareLocked(now)
	}
	var n announcement
	if p.hasNewsLocked() && now >= p.ranAt+p.intervalLocked() {
		n = p.announceLocked()
		p.ranAt = now
	}
	if p.isUnusedLocked() {
		p.ended = true
		p.all.remove(p)
	} else {
		p.scheduleLocked()
	}
	p.mu.Unlock()
	if !n.send(p) {
		p.mu.Lock()
		p.reset = true
		p.scheduleLocked()
		p.mu.Unlock()
	}
}

// announcement is the news of one run, for all members and for newcomers. Immutable.
type announcement struct {
	newcomers []*Client // that need the list or the numbers
	behind    []behind
	state     bool // all members need the list or the numbers
	list      bool // not the numbers
	numbers   presenceNumbers
	diff      presenceDiff
	joins     []string // keys of users
	leaves    []string
	users     []string // the list, if somebody needs it
}

// presenceNumbers is the data of ws.presence without a list.
type presenceNumbers struct {
	Users     int  `json:"users"`
	Clients   int  `json:"clients"`
	Truncated bool `json:"truncated,omitempty"`
}

// presencePageOf is the data of ws.presence with one page of the list.
type presencePageOf struct {
	Snapshot bool          `json:"snapshot"`
	Epoch    string        `json:"epoch"`
	Version  uint64        `json:"version"`
	Page     int           `json:"page"`
	Pages    int           `json:"pages"`
	Users    int           `json:"users"`
	Members  []PresentUser `json:"members"`
}

// presenceDiff is the data of ws.presence with the changes of the list.
type presenceDiff struct {
	Epoch   string        `json:"epoch"`
	Version uint64        `json:"version"`
	Users   int           `json:"users"`
	Joins   []PresentUser `json:"joins,omitempty"`
	Leaves  []PresentUser `json:"leaves,omitempty"`
}

// behind is a member that needs the changes alone: those before the news.
type behind struct {
	client *Client
	diffs  []*Prepared
}

// announceLocked returns the news. Beyond MaxList the members get the numbers, until the users are
// clearly fewer, because each change between the two costs a whole list for all.
func (p *roomPresence) announceLocked() (n announcement) {
	users := p.view.Users()
	over := p.cfg.List && (users > p.cfg.MaxList || p.over && users > p.cfg.MaxList*9/10)
	n.state, n.list = p.reset || over != p.over, p.cfg.List && !over
	p.over, p.reset = over, false
	p.sortNewsLocked(&n)
	n.joins, n.leaves = p.view.Take()
	n.numbers = p.numbersLocked()
	if !n.list {
		n.state = n.state || n.numbers != p.told
		p.told = n.numbers
		p.version++ // no list that a client has gets the changes
		return n
	}
	if n.state || len(n.joins)+len(n.leaves) > 0 {
		p.version++
	}
	n.diff = presenceDiff{Epoch: p.epoch, Version: p.version, Users: users}
	if n.state || len(n.newcomers) > 0 {
		n.users = p.usersLocked(users)
	}
	return n
}

// sortNewsLocked takes the members to bring up to date.
func (p *roomPresence) sortNewsLocked(n *announcement) {
	for c, has := range p.news {
		if has.Epoch == p.epoch && n.list && !n.state {
			if diffs, ok := p.diffs.Between(has.Version, p.version); ok {
				n.behind = append(n.behind, behind{c, diffs})
				continue
			}
		}
		n.newcomers = append(n.newcomers, c)
	}
	clear(p.news)
}

func (p *roomPresence) numbersLocked() presenceNumbers {
	return presenceNumbers{p.view.Users(), p.view.Clients(), p.over}
}

// send publishes the news, and reports whether all members have what all of them need. It may wait
// for event loops.
func (n *announcement) send(p *roomPresence) bool {
	m := p.all.manager
	r, ok := m.rooms.Get(p.id)
	if !ok || r.Data().presence == nil {
		return true // its members leave
	}
	newcomers := slices.DeleteFunc(n.newcomers, func(c *Client) bool { return !c.isIn(r) })
	for _, b := range n.behind {
		if b.client.isIn(r) {
			p.all.resumed.Add(1)
			b.client.sendAll(b.diffs)
		}
	}
	for _, prepared := range n.forAll(p) {
		to := &publication{prepared: prepared}
		to.in(r)
		if _, err := m.publishHere(context.Background(), to); err != nil {
			return m.stopped() != nil
		}
		p.all.published.Add(1)
	}
	if n.state || len(newcomers) == 0 {
		return true
	}
	state := n.forOne(p.id)
	for _, c := range newcomers {
		p.all.snapshots.Add(1)
		c.sendAll(state)
	}
	return true
}

// sendAll sends messages to a member, which asks again if it misses one.
func (c *Client) sendAll(messages []*Prepared) {
	for _, prepared := range messages {
		_ = c.SendPrepared(prepared)
	}
}

// isIn reports whether the client is a member of r. Then its table has the client, or will have it
// before the loop runs a task that is posted from now on.
func (c *Client) isIn(r *roomEntry) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	mem, _ := c.roomLocked(r.ID())
	return mem != nil && mem.Room() == r
}

// forAll returns the notifications for all members. The changes are kept.
func (n *announcement) forAll(p *roomPresence) []*Prepared {
	switch {
	case n.state:
		return n.forOne(p.id)
	case !n.list || len(n.joins)+len(n.leaves) == 0:
		return nil
	}
	diff := n.diff
	diff.Joins, diff.Leaves = presentUsers(n.joins), presentUsers(n.leaves)
	prepared := notification(p.id, diff, "")
	p.diffs.Add(diff.Version, prepared, prepared.frame.Len(), diff.Users)
	return []*Prepared{prepared}
}

// forOne returns the notifications with the whole list, or with the numbers.
func (n *announcement) forOne(room string) (pages []*Prepared) {
	if !n.list { // the newest replaces one that waits
		return []*Prepared{notification(room, n.numbers, eventPresence)}
	}
	users := presentUsers(n.users)
	page := presencePageOf{
		Snapshot: true, Epoch: n.diff.Epoch, Version: n.diff.Version, Users: n.diff.Users,
		Pages: max(1, (len(users)+presencePage-1)/presencePage),
	}
	for page.Page = range page.Pages {
		count := min(len(users), presencePage)
		page.Members, users = users[:count], users[count:]
		pages = append(pages, notification(room, page, ""))
	}
	return pages
}

// notification encodes a ws.presence, once for all members.
func notification(room string, data any, conflateKey string) *Prepared {
	text, err := json.Marshal(data)
	if err != nil {
		panic(err) // never for these types
	}
	n := envelope.Notify{Event: eventPresence, Room: room, Data: text}
	payload, _ := n.Append(nil)
	h := engine.Handling{Key: conflateKey}
	return &Prepared{newFrame(OpText, payload, h), h}
}

// presenceRequest is the data of ws.presence.
type presenceRequest struct {
	Room     string           `json:"room"`
	Presence *PresenceVersion `json:"presence"`
}

// answerPresence is the handler of ws.presence: the changes, the list or the numbers follow the response.
func answerPresence(c *Client, msg *Message) error {
	req, err := decode[presenceRequest](msg)
	if err != nil {
		return err
	}
	if err := req.Presence.check(); err != nil {
		return err
	}
	p := c.manager.presences.get(req.Room)
	if p == nil || !p.show(c, req.Presence.orZero()) {
		return NewClientError(404, "not in a room with presence")
	}
	return respond[struct{}](c, msg, nil)
}
