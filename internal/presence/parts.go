package presence

import (
	"iter"
	"maps"
)

// outbox is the state of the part of this node, as the other nodes were sent it.
type outbox struct {
	version     uint64             // of the last delta, 0 before the first
	unsent      map[*user]struct{} // users with a change that is not sent; nil if there are no other nodes
	sentClients int
}

// Unsent reports whether there is a delta to send.
func (v *View) Unsent() bool {
	return len(v.unsent) > 0 || v.unsent != nil && v.clients != v.sentClients
}

// Delta returns changes of this node's part, of up to maxMessage bytes, as a message of that
// version. Sent notes that it is on its way.
func (v *View) Delta(version uint64) Delta {
	d := Delta{Prev: v.version, Version: version, Clients: v.clients}
	size := 0
	for u := range v.unsent {
		if size > 0 && size+len(u.key) > maxMessage {
			break
		}
		size += len(u.key)
		if u.isHere() {
			d.Joins = append(d.Joins, u.key)
		} else {
			d.Leaves = append(d.Leaves, u.key)
		}
	}
	return d
}

// Sent notes that d, which Delta has returned, is on its way. There must be no change in between.
func (v *View) Sent(d *Delta) {
	v.version, v.sentClients = d.Version, d.Clients
	for _, keys := range [][]string{d.Joins, d.Leaves} {
		for _, key := range keys {
			u := v.users[key]
			u.sent = u.isHere()
			v.settle(u)
		}
	}
}

// Pages returns the part of this node as it was sent; none if it is empty and always was.
func (v *View) Pages() (pages []Page) {
	if v.version == 0 {
		return nil
	}
	page, size := Page{Version: v.version, Clients: v.sentClients}, 0
	for key, u := range v.users {
		if !u.sent {
			continue
		}
		if size > 0 && size+len(key) > maxMessage {
			pages = append(pages, page)
			page.Users, page.Index, size = nil, page.Index+1, 0
		}
		size += len(key)
		page.Users = append(page.Users, key)
	}
	page.Last = true
	return append(pages, page)
}

// part is the users of another node.
type part struct {
	version uint64 // of the last delta; 0 while the part is not known
	users   map[string]struct{}
	clients int
	loading []string // users of the pages so far
	pages   int      // their number
	waiting []*Delta // that came before the part was known, in their order
}

const (
	maxPart    = 1 << 20 // users of a part
	maxWaiting = 64      // deltas that wait for the pages
)

func (v *View) part(node string) *part {
	p := v.parts[node]
	if p == nil {
		p = &part{users: make(map[string]struct{})}
		v.parts[node] = p
	}
	return p
}

// Apply applies a delta of another node. known is false if the View needs the pages of the node.
func (v *View) Apply(node string, d *Delta) (known bool) {
	p := v.part(node)
	switch {
	case d.Version <= p.version:
	case d.Prev == 0: // the room has begun anew there
		v.replace(p, nil)
		v.apply(p, d)
	case d.Prev == p.version:
		v.apply(p, d)
	default:
		if len(p.waiting) == maxWaiting {
			p.waiting = nil
		}
		p.waiting = append(p.waiting, d)
		return false
	}
	return true
}

func (v *View) apply(p *part, d *Delta) {
	for _, key := range d.Joins {
		v.add(p, key)
	}
	for _, key := range d.Leaves {
		v.remove(p, key)
	}
	v.setVersion(p, d.Version, d.Clients)
}

func (v *View) setVersion(p *part, version uint64, clients int) {
	v.away += clients - p.clients
	p.version, p.clients = version, clients
}

func (v *View) add(p *part, key string) {
	if _, ok := p.users[key]; !ok && len(p.users) < maxPart {
		p.users[key] = struct{}{}
		v.change(key, func(u *user) { u.parts++ })
	}
}

func (v *View) remove(p *part, key string) {
	if _, ok := p.users[key]; ok {
		delete(p.users, key)
		v.change(key, func(u *user) { u.parts-- })
	}
}

// replace gives a part other users.
func (v *View) replace(p *part, keys []string) {
	old := p.users
	p.users = make(map[string]struct{}, len(keys))
	for _, key := range keys {
		v.add(p, key)
	}
	for key := range old {
		v.change(key, func(u *user) { u.parts-- })
	}
}

// Load applies a page of another node. known is false if the View needs the pages of the node again.
func (v *View) Load(node string, page *Page) (known bool) {
	p := v.part(node)
	if page.Index == 0 {
		p.loading, p.pages = nil, 0
	}
	if page.Index != p.pages || len(p.loading)+len(page.Users) > maxPart {
		p.loading, p.pages = nil, 0
		return false
	}
	p.loading, p.pages = append(p.loading, page.Users...), p.pages+1
	if !page.Last {
		return true
	}
	keys, waiting := p.loading, p.waiting
	p.loading, p.pages, p.waiting = nil, 0, nil
	if page.Version > p.version {
		v.replace(p, keys)
		v.setVersion(p, page.Version, page.Clients)
	}
	for _, d := range waiting {
		known := v.Apply(node, d)
		if !known {
			p.waiting = nil
			return false
		}
	}
	return true
}

// Parts yields the IDs of the nodes that have a part, known or not.
func (v *View) Parts() iter.Seq[string] { return maps.Keys(v.parts) }

// Knows reports whether the View has a part of the node, known or not.
func (v *View) Knows(node string) bool { return v.parts[node] != nil }

// Remove removes the part of a node.
func (v *View) Remove(node string) {
	if p := v.parts[node]; p != nil {
		v.replace(p, nil)
		v.setVersion(p, 0, 0)
		delete(v.parts, node)
	}
}

// RemoveParts removes the parts of all nodes.
func (v *View) RemoveParts() {
	for node := range v.parts {
		v.Remove(node)
	}
}
